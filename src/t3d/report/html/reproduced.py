"""Of a run of ``t3d reproduce``: its tables and curves, from ``tables.json`` and the cells beside it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from t3d.evaluation.over_tasks import over_tasks
from t3d.report.console import accuracy_text
from t3d.report.html.content import Chart, Sample, Table
from t3d.report.html.evaluations import SECONDS, read_evaluation, samples_of
from t3d.report.points import FORWARDS, Bar, Line
from t3d.work.files import read_json

_AVERAGE = "average"
_STATIC = re.compile(r"(B\d+)-T\d+")
_SUBJECT, _ORIGINAL = "t3d", "original"
_SHOWN_SETTINGS = ("B8-T4", "B8-T2", "B4-T1")
"""Of whose answers some are shown: the first that is there."""
Entries = Sequence[Mapping[str, Any]]


def accuracy_tables(entries: Entries) -> Iterator[Table]:
    """Per table and teacher the average accuracies, methods by settings; below ours what the paper prints."""
    found = [one for one in entries if (one["metric"], one["task"]) == ("accuracy", _AVERAGE)]
    for table, teacher in dict.fromkeys((one["table"], one["teacher"]) for one in found):
        own = [one for one in found if (one["table"], one["teacher"]) == (table, teacher)]
        settings = list(dict.fromkeys(one["setting"] for one in own))
        cells = {(one["method"], one["setting"]): one for one in own}
        rows = []
        for method in dict.fromkeys(one["method"] for one in own):
            in_row = [cells.get((method, setting)) for setting in settings]
            rows.append([method, *(_accuracy(one) for one in in_row)])
            papers = [None if one is None else one["paper"] for one in in_row]
            if any(paper is not None for paper in papers):
                rows.append(["in the paper", *("" if paper is None else f"{paper:.1f}" for paper in papers)])
        yield Table(
            title=f"Table {table}, {Path(teacher).name}",
            header=["method", *settings],
            rows=rows,
            note="Accuracy in percent, mean over tasks and seeds, with 95 % intervals.",
        )


def _accuracy(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return ""
    return f"{entry['mean']:.1f}" if entry["ci95"] is None else accuracy_text(entry["mean"], entry["ci95"])


def accuracy_charts(entries: Entries, folder: Path) -> list[Chart]:
    """Table 1's accuracies against cost, a plot per teacher and block size; costs are those of the cells."""
    costs = _Costs(folder)
    lines: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}
    for one in entries:
        static = _STATIC.fullmatch(one["setting"])
        is_shown = (one["table"], one["metric"], one["task"]) == (1, "accuracy", _AVERAGE)
        if is_shown and static and one["ci95"] is not None:
            by_method = lines.setdefault((one["teacher"], static[1]), {})
            by_method.setdefault(one["method"], []).append(one)
    charts = []
    for quantity, label in (("tokens_per_forward", FORWARDS), ("tokens_per_second", SECONDS)):
        for (teacher, block), by_method in lines.items():
            drawn = [_line(method, found, costs, quantity) for method, found in by_method.items()]
            drawn = [line for line in drawn if line.points]
            if drawn:
                title = f"{Path(teacher).name}, blocks of {block[1:]}, against {label.partition(' (')[0]}"
                has_powers = quantity == "tokens_per_forward"
                charts.append(Chart(title=title, lines=drawn, xlabel=label, has_powers=has_powers))
    return charts


def _line(method: str, entries: Entries, costs: "_Costs", quantity: str) -> Line:
    points = {}
    for one in entries:
        cost = costs.mean(one["config_hashes"], one["setting"], quantity)
        if cost is not None:
            low, high = one["ci95"]
            points[one["setting"]] = (cost, Bar(value=one["mean"], low=low, high=high))
    is_labelled = method in (_SUBJECT, _ORIGINAL)
    return Line(name=method, points=points, is_subject=method == _SUBJECT, is_labelled=is_labelled)


class _Costs:
    """What decoding took, by the hash of a cell; cells of an earlier run lie elsewhere, and tell nothing."""

    def __init__(self, folder: Path) -> None:
        files = (folder / "cells").glob("*.*.json")
        self._files = {path.name.split(".")[-2]: path for path in files}

    def mean(self, hashes: Sequence[str], setting: str, quantity: str) -> float | None:
        """Over the tasks of these cells, as :func:`~t3d.evaluation.over_tasks.over_tasks` takes it."""
        found = [read_json(self._files[one]) for one in hashes if one in self._files]
        rows = [row for record in found if record is not None for row in record["results"]]
        return over_tasks(rows)[setting][quantity] if rows and len(found) == len(hashes) else None


def answers(entries: Entries, folder: Path) -> Iterator[Sample]:
    """Some of the original's and of T3D's, in one setting, from the evaluations that lie in the folder."""
    accuracies = [one for one in entries if (one["metric"], one["task"]) == ("accuracy", _AVERAGE)]
    for method in (_ORIGINAL, _SUBJECT):
        own = {one["setting"]: one for one in accuracies if one["method"] == method}
        shown = next((own[setting] for setting in _SHOWN_SETTINGS if setting in own), None)
        if shown is not None:
            where = folder / "evaluations" / shown["config_hashes"][0]
            if (where / "results.json").is_file():
                yield from samples_of(read_evaluation(where, folder), method)

"""Of the evaluations of a run: plots of accuracy against cost, tables, and some answers."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.evaluation.finished import RESULTS, SAMPLES, check_lines, check_results
from t3d.evaluation.over_tasks import over_tasks
from t3d.report.console import COLUMNS_TEXT, accuracy_text, results_rows
from t3d.report.html.content import Chart, Sample, Table
from t3d.report.points import FORWARDS, setting_lines
from t3d.work.files import read_json

SECONDS = "visible tokens per second"
"""Label of the axis of throughput."""
_IN_RUN = (RESULTS, f"*/{RESULTS}", f"*/*/{RESULTS}")
_NEEDED = ("accuracy", "ci95", "num_prompts", "mean_length", "seconds", "tokens_per_step")
_NEEDED += ("tokens_per_forward", "tokens_per_second", "latency", "mean_denoising_steps", "stopped")


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A finished evaluation."""

    name: str
    folder: Path
    record: Mapping[str, Any]
    """Of its ``results.json``."""

    @property
    def entries(self) -> list[Mapping[str, Any]]:
        """By task and setting."""
        return self.record["results"]


def evaluations_in(folder: Path) -> list[Evaluated]:
    """All of a folder and of those below it, the teacher's first; those of one name by their place.

    Raises InputError for one that is damaged, or of a version that kept less.
    """
    files = [path for pattern in _IN_RUN for path in folder.glob(pattern) if not _is_hidden(path, folder)]
    found = [read_evaluation(path.parent, folder) for path in sorted(files, key=_order)]
    times = Counter(one.name for one in found)
    return [one if times[one.name] == 1 else replace(one, name=_place(one, folder)) for one in found]


def _place(one: Evaluated, run: Path) -> str:
    """Where it lies in the run; of the run's own evaluation also its name."""
    return f"{one.name} (.)" if one.folder == run else one.folder.relative_to(run).as_posix()


def read_evaluation(where: Path, run: Path) -> Evaluated:
    """One of a run, named by its place there or, where it is all of the run, by its model."""
    file = where / RESULTS
    match read_json(file):
        case {"results": list() as entries, "config": dict() as config} as record:
            check_results(record, file, "run")
            check_lines(record, where / SAMPLES, file, "run")
        case _:
            raise InputError("run", str(file), "not the results of t3d eval", "delete it, or evaluate again")
    missing = [name for name in _NEEDED for entry in entries if name not in entry]
    if missing:
        problem = f"made by an earlier version, without {missing[0]}"
        raise InputError("run", str(file), problem, "evaluate again into another folder")
    if not all(map(_can_be_drawn, entries)):
        problem = "damaged: an entry without an interval, or whose seconds or tokens per forward are 0"
        raise InputError("run", str(file), problem, "delete it, or evaluate again")
    name = where.relative_to(run).as_posix().removeprefix("evaluations/")
    if where == run:
        name = Path(str(config.get("model", "model"))).name
    return Evaluated(name=name, folder=where, record=record)


def _can_be_drawn(entry: Mapping[str, Any]) -> bool:
    match entry["ci95"]:
        case [int() | float(), int() | float()]:
            return entry["seconds"] > 0 and entry["tokens_per_forward"] > 0
    return False


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _order(path: Path) -> tuple[bool, bool, str]:
    name = path.parent.name
    return name != "teacher", name != "student", str(path)


def evaluation_charts(evaluations: Sequence[Evaluated]) -> list[Chart]:
    """Mean accuracy over the tasks against tokens per forward, and against tokens per second."""
    models = {one.name: over_tasks(one.entries) for one in evaluations}
    names = list(models)
    subject = "student" if "student" in names else names[-1]
    return [
        Chart(
            title=title,
            lines=setting_lines(models, quantity, subject),
            xlabel=label,
            has_powers=quantity == "tokens_per_forward",
        )
        for title, quantity, label in (
            ("Accuracy against tokens per forward", "tokens_per_forward", FORWARDS),
            ("Accuracy against tokens per second", "tokens_per_second", SECONDS),
        )
    ]


def evaluation_tables(evaluations: Sequence[Evaluated]) -> list[Table]:
    """Means over the tasks, setting by setting; then each evaluation by itself."""
    tables = []
    if len(evaluations) > 1 or len({entry["task"] for entry in evaluations[0].entries}) > 1:
        tables.append(_means(evaluations))
    for one in evaluations:
        header, *rows = results_rows(one.entries)
        tables.append(
            Table(
                title=f"{one.name}, task by task",
                header=header,
                rows=rows,
                num_names=2,
                note=f"{COLUMNS_TEXT}.",
                is_folded=bool(tables),
            )
        )
    return tables


def _means(evaluations: Sequence[Evaluated]) -> Table:
    models = {one.name: over_tasks(one.entries) for one in evaluations}
    settings = dict.fromkeys(setting for found in models.values() for setting in found)
    rows = [
        [
            setting,
            model,
            accuracy_text(found[setting]["accuracy"]["mean"], found[setting]["ci95"]["mean"]),
            f"{found[setting]['tokens_per_forward']:.2f}",
            f"{found[setting]['tokens_per_second']:.0f}",
            str(found[setting]["n"]),
        ]
        for setting in settings
        for model, found in models.items()
        if setting in found
    ]
    tasks = ", ".join(
        dict.fromkeys(entry["task"] or "prompts" for one in evaluations for entry in one.entries)
    )
    return Table(
        title="Means over the tasks",
        header=["setting", "model", "accuracy % [95 %]", "TPF", "tok/s", "answers"],
        rows=rows,
        num_names=2,
        note=f"Over {tasks}. TPF: tokens per forward. tok/s: visible tokens by wall time of one run, without "
        "an interval.",
    )


def samples_of(one: Evaluated, source: str = "") -> Iterator[Sample]:
    """Of every setting the first right and the first wrong answer; the rest of a long file stays unread.

    Raises InputError for a file that is damaged.
    """
    seen: set[tuple[str, bool]] = set()
    all_kinds = {(entry["setting"], True) for entry in one.entries if entry["num_correct"]}
    all_kinds |= {(entry["setting"], False) for entry in one.entries if entry["num_correct"] < entry["n"]}
    file = one.folder / SAMPLES
    if not file.is_file():
        return
    for row in _rows(file):
        setting, is_right = str(row.get("setting")), bool(row["correct"])
        if (setting, is_right) in seen:
            continue
        seen.add((setting, is_right))
        yield Sample(
            source=" · ".join(filter(None, (source or one.name, setting, str(row.get("task") or "")))),
            id=str(row["id"]),
            question=str(row.get("question")),
            reference=str(row.get("answer")),
            response=str(row["response"]),
            is_right=is_right,
            reason=str(row.get("reason")),
        )
        if seen >= all_kinds:
            return


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """The graded answers of a file. Raises InputError for a line that is none."""
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if not (isinstance(row, dict) and row.keys() >= {"id", "correct", "response"}):
                    raise ValueError("not a graded answer")
                yield row
    except (OSError, ValueError, RecursionError) as error:
        problem = "damaged: not a graded answer in each line"
        fix = "delete it: the report then has no answers of it"
        raise InputError("run", str(file), problem, fix) from error

"""Tables 1-7 as Markdown, ours and the paper's numbers side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from t3d.reproduce.paper import INCONSISTENCIES, METRICS
from t3d.reproduce.recipes import LAMBDAS, ORIGINAL
from t3d.reproduce.settings import DIVERSITY, DYNAMIC, LAMBDA_SETTINGS
from t3d.reproduce.suites import Suite
from t3d.reproduce.summaries import (
    AVERAGE,
    CURVES,
    GROUPS,
    PAIRED_TO_BEST,
    PAIRED_TO_ORIGINAL,
    Entry,
    is_part_of_the_benchmarks,
)

TITLES = {
    ORIGINAL: "Original Model",
    "sft": "SFT",
    "redi": "ReDi",
    "dparallel": "dParallel",
    "naive_td": "Naive TD",
    "naive_td_path": "Naive TD + path",
    "naive_td_random": "Naive TD + random tokens",
    "naive_td_path_random": "Naive TD + path + random tokens",
    "ddo": "DDO",
    "ddo_random": "DDO + random tokens",
    "ddo_path": "DDO + path",
    "t3d": "T3D (DDO + path + random tokens)",
}
_HEADINGS = {
    1: "Few-step decoding",
    2: "What is kept at full steps (block size 4, 4 steps per block)",
    3: "Dynamic decoding (block size 4, threshold 0.9, T = 0.1)",
    4: "The weight lambda of the path term",
    5: "Ablations at full steps (block size 4, 4 steps per block)",
    6: "Ablations at two tokens per step (block size 8, 4 steps per block)",
    7: "Ablations at four tokens per step (block size 8, 2 steps per block)",
}
_METRIC_TITLES = {
    "tokens_per_second": "tokens/s",
    "latency": "latency, s",
    "mean_denoising_steps": "steps",
    "mean_length": "length",
    "accuracy": "accuracy %",
}

_PAIRED = {"vs. original": PAIRED_TO_ORIGINAL, "vs. best": PAIRED_TO_BEST}
"""Columns beside an average."""

Index = Mapping[tuple[str, str, str, str, str], Entry]
"""Entries of one table by teacher, method, setting, task and metric."""


def method_title(method: str) -> str:
    """A method's name in tables; overrides follow its preset's."""
    preset, *overrides = method.split()
    if [item.partition("=")[0] for item in overrides] == ["path_weight"]:
        return f"T3D, lambda = {overrides[0].partition('=')[2]}" if preset == "t3d" else method
    return TITLES.get(method, method)


def markdown_tables(suite: Suite, entries: Sequence[Entry], foreword: str, afterword: str) -> str:
    """All tables that there are entries for."""
    parts = [foreword.rstrip()]
    for table in sorted({entry.table for entry in entries}):
        index = {(e.teacher, e.method, e.setting, e.task, e.metric): e for e in entries if e.table == table}
        parts.append(f"## Table {table}. {_HEADINGS[table]}")
        parts += _RENDERERS[table](suite, index)
    parts.append("## Inconsistencies of the printed numbers")
    parts.append("\n".join(f"- {text}" for text in INCONSISTENCIES))
    return "\n\n".join([*parts, afterword.rstrip()]) + "\n"


def grid_table(rates: Sequence[float], scores: Mapping[str, Mapping[float, float]]) -> str:
    """Validation accuracy by learning rate; the chosen one is bold. Only a complete grid makes a choice."""
    body = []
    for method, found in scores.items():
        is_complete = all(rate in found for rate in rates)
        best = max(found, key=lambda rate: (found[rate], -rate)) if is_complete else None
        cells = [
            "-" if rate not in found else f"**{found[rate]:.1f}**" if rate == best else f"{found[rate]:.1f}"
            for rate in rates
        ]
        body.append([method_title(method), *cells])
    return _grid(["method", *(f"{rate:g}" for rate in rates)], body)


def _grid(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _methods(index: Index, teacher: str) -> list[str]:
    return list(dict.fromkeys(method for owner, method, *_ in index if owner == teacher))


def _teachers(index: Index) -> Iterator[tuple[str, str]]:
    """Each teacher with the heading of its part."""
    for teacher in dict.fromkeys(owner for owner, *_ in index):
        entry = next(entry for key, entry in index.items() if key[0] == teacher)
        seeds = f"{len(entry.seeds)} seed{'s' if len(entry.seeds) > 1 else ''}"
        yield teacher, f"Teacher `{teacher}` (the paper's {entry.paper_model}), {seeds}:"


def _ours(entry: Entry | None, *, with_paper: bool = True) -> str:
    """``73.2 [69.2, 76.9]``, and the printed number of the same task in brackets."""
    if entry is None:
        return "-"
    text = f"{entry.mean:.1f}"
    if entry.ci95 is not None:
        text += f" [{entry.ci95[0]:.1f}, {entry.ci95[1]:.1f}]"
    if with_paper and entry.paper is not None and entry.paper_is_printed:
        text += f" (paper {entry.paper:.2f})"
    return text


def _paired(index: Index, teacher: str, method: str, setting: str) -> list[str]:
    """``+5.6 [3.2, 8.0]``: the average's distances to the original's and to the best one, in points."""
    texts = []
    for metric in _PAIRED.values():
        entry = index.get((teacher, method, setting, AVERAGE, metric))
        if entry is None or entry.ci95 is None:
            texts.append("-")
        else:
            texts.append(f"{entry.mean:+.1f} [{entry.ci95[0]:.1f}, {entry.ci95[1]:.1f}]")
    return texts


def _printed(entry: Entry | None, form: str = ".2f") -> str:
    return "-" if entry is None or entry.paper is None else format(entry.paper, form)


def _averaged(suite: Suite, noun: str = "") -> str:
    """What the paper's averages beside ours are over."""
    return ", ".join(suite.tasks) if is_part_of_the_benchmarks(suite) else f"its four{noun}"


def _table_1(suite: Suite, index: Index) -> Iterator[str]:
    for teacher, heading in _teachers(index):
        body = []
        for group, settings in GROUPS.items():
            for method in _methods(index, teacher):
                row = [
                    _ours(index.get((teacher, method, setting, task, "accuracy")))
                    for setting in settings
                    for task in suite.tasks
                ]
                whole = index.get((teacher, method, group, AVERAGE, "accuracy"))
                gain = index.get((teacher, method, group, AVERAGE, "improvement"))
                body.append(
                    [
                        group.removeprefix("T"),
                        method_title(method),
                        *row,
                        _ours(whole, with_paper=False),
                        *_paired(index, teacher, method, group),
                        "-" if gain is None else f"{gain.mean:+.1f}",
                        _printed(whole),
                        _printed(gain, "+.2f"),
                    ]
                )
        columns = [f"B{block} {task}" for block in (4, 8) for task in suite.tasks]
        paper = f"mean of {_averaged(suite)}" if is_part_of_the_benchmarks(suite) else "Average"
        ends = ["Average", *_PAIRED, "Improvement %", f"paper: {paper}", "paper: Improvement %"]
        yield heading
        yield _grid(["TokPS", "method", *columns, *ends], body)
        draws = suite.full.samples_per_prompt
        yield f"Accuracy under parallelism, and distinct answers ({draws} to a prompt, full steps, T = 1):"
        yield _grid(
            ["method", "AUP, block size 4", "AUP, block size 8", "distinct answers"],
            [[method_title(method), *_extras(index, teacher, method)] for method in _methods(index, teacher)],
        )


def _extras(index: Index, teacher: str, method: str) -> list[str]:
    scores = [index.get((teacher, method, block, AVERAGE, "aup")) for block in CURVES]
    distinct = index.get((teacher, method, DIVERSITY, AVERAGE, "distinct_answers_per_prompt"))
    return [_ours(entry) for entry in scores] + ["-" if distinct is None else f"{distinct.mean:.2f}"]


def _table_2(suite: Suite, index: Index) -> Iterator[str]:
    for teacher, heading in _teachers(index):
        body = []
        for method in _methods(index, teacher):
            cells = [index.get((teacher, method, "B4-T1", task, "accuracy")) for task in suite.tasks]
            whole = index.get((teacher, method, "B4-T1", AVERAGE, "accuracy"))
            kept = index.get((teacher, method, "B4-T1", AVERAGE, "retention"))
            ours = [_ours(whole, with_paper=False), *_paired(index, teacher, method, "B4-T1"), _kept(kept)]
            papers = [_printed(whole), _printed(kept, ".1f")]
            body.append([method_title(method), *map(_ours, cells), *ours, *papers])
        yield heading
        ends = ["Average", *_PAIRED, "kept, %", f"paper: mean of {_averaged(suite)}", "paper: kept, %"]
        yield _grid(["method", *suite.tasks, *ends], body)


def _kept(retention: Entry | None) -> str:
    """How much of the original's average accuracy is left."""
    return "-" if retention is None else f"{retention.mean:.1f}"


def _table_3(suite: Suite, index: Index) -> Iterator[str]:
    names = {DYNAMIC[0]: "the model's own", DYNAMIC[1]: "as sampled (tempered), as in the paper's engine"}
    for teacher, heading in _teachers(index):
        for setting in DYNAMIC:
            body = []
            for task in (*suite.tasks, AVERAGE):
                for method in _methods(index, teacher):
                    cells = [index.get((teacher, method, setting, task, metric)) for metric in METRICS]
                    body.append([task, method_title(method), *(_cost(entry) for entry in cells)])
            averaged = _averaged(suite, " benchmarks")
            where = f"{heading} confidence {names[setting]}"
            yield f"{where}; of {AVERAGE}, the paper's number is the mean of {averaged}."
            yield _grid(["task", "method", *(_METRIC_TITLES[metric] for metric in METRICS)], body)


def _cost(entry: Entry | None) -> str:
    """A measure of Table 3, with the paper's in brackets: of our average, a mean of its benchmarks."""
    if entry is None:
        return "-"
    digits = {"latency": 4, "tokens_per_second": 0}.get(entry.metric, 1)
    own = _ours(entry, with_paper=False) if entry.metric == "accuracy" else f"{entry.mean:.{digits}f}"
    return own if entry.paper is None else f"{own} (paper {entry.paper:.2f})"


def _table_4(suite: Suite, index: Index) -> Iterator[str]:
    task = "math500" if "math500" in suite.tasks else AVERAGE
    for teacher, heading in _teachers(index):
        methods = _methods(index, teacher)
        body = []
        for setting in LAMBDA_SETTINGS:
            found = [index.get((teacher, method, setting, task, "accuracy")) for method in methods]
            body.append([setting, *(_ours(e, with_paper=False) for e in found), *map(_printed, found)])
        header = [f"lambda = {value:g}" for value in LAMBDAS]
        ours = "mean over the tasks" if task == AVERAGE else "MATH500"
        yield f"{heading} {ours}; the paper's numbers are of MATH500."
        yield _grid(["setting", *header, *(f"paper: {value:g}" for value in LAMBDAS)], body)


def _ablation(suite: Suite, index: Index) -> Iterator[str]:
    for teacher, heading in _teachers(index):
        (setting,) = {setting for owner, _, setting, _, _ in index if owner == teacher}
        is_full = setting == "B4-T1"
        body = []
        for method in _methods(index, teacher):
            cells = [index.get((teacher, method, setting, task, "accuracy")) for task in suite.tasks]
            whole = index.get((teacher, method, setting, AVERAGE, "accuracy"))
            printed = index.get((teacher, method, setting, "math500", "accuracy"), whole)
            kept = index.get((teacher, method, setting, AVERAGE, "retention"))
            ends = [_ours(whole, with_paper=False), *_paired(index, teacher, method, setting)]
            ends += [*([_kept(kept)] if is_full else []), _printed(printed)]
            body.append([method_title(method), *map(_ours, cells), *ends])
        yield heading
        ends = ["Average", *_PAIRED, *(["kept, %"] if is_full else []), "paper: MATH500"]
        yield _grid(["method", *suite.tasks, *ends], body)


_RENDERERS: dict[int, Callable[[Suite, Index], Iterator[str]]] = {
    1: _table_1,
    2: _table_2,
    3: _table_3,
    4: _table_4,
    5: _ablation,
    6: _ablation,
    7: _ablation,
}

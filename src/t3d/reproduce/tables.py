"""Tables 1-7 as Markdown, ours and the paper's numbers side by side."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from t3d.report.console import accuracy_text
from t3d.report.markdown import markdown_table
from t3d.reproduce.paper import INCONSISTENCIES, METRICS
from t3d.reproduce.recipes import LAMBDAS, ORIGINAL, best_rate
from t3d.reproduce.settings import DIVERSITY, DYNAMIC, LAMBDA_SETTINGS
from t3d.reproduce.suites import Suite
from t3d.reproduce.summaries import (
    AVERAGE,
    CURVES,
    GROUPS,
    PAIRED_TO_BEST,
    PAIRED_TO_ORIGINAL,
    Entry,
    has_only_some_tasks_of_the_paper,
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
_METRIC_TITLES = ("tokens/s", "latency, s", "steps", "length", "accuracy %")
"""Of METRICS."""

_PAIRED = {"vs. original": PAIRED_TO_ORIGINAL, "vs. best": PAIRED_TO_BEST}
"""Columns beside an average."""


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
        parts.append(f"## Table {table}. {_HEADINGS[table]}")
        for teacher, index in _by_teacher(entry for entry in entries if entry.table == table).items():
            entry = next(iter(index.values()))
            seeds = f"{len(entry.seeds)} seed{'s' if len(entry.seeds) > 1 else ''}"
            heading = f"Teacher `{teacher}` (the paper's {entry.paper_model}), {seeds}:"
            parts += _RENDERERS[table](suite, index, heading)
    parts.append("## Inconsistencies of the printed numbers")
    parts.append("\n".join(f"- {text}" for text in INCONSISTENCIES))
    return "\n\n".join([*parts, afterword.rstrip()]) + "\n"


def learning_rate_table(rates: Sequence[float], scores: Mapping[str, Mapping[float, float]]) -> str:
    """Validation accuracy by learning rate; the chosen one is bold. Only a complete grid makes a choice."""
    body = []
    for method, found in scores.items():
        best = best_rate(rates, found)
        cells = [
            "-" if rate not in found else f"**{found[rate]:.1f}**" if rate == best else f"{found[rate]:.1f}"
            for rate in rates
        ]
        body.append([method_title(method), *cells])
    return markdown_table(["method", *(f"{rate:g}" for rate in rates)], body)


Index = Mapping[tuple[str, str, str, str], Entry]
"""Entries of one table and teacher by method, setting, task and metric."""


def _by_teacher(entries: Iterable[Entry]) -> dict[str, Index]:
    found: dict[str, dict[tuple[str, str, str, str], Entry]] = {}
    for entry in entries:
        place = (entry.method, entry.setting, entry.task, entry.metric)
        found.setdefault(entry.teacher, {})[place] = entry
    return dict(found)


def _methods(index: Index) -> list[str]:
    return list(dict.fromkeys(method for method, *_ in index))


def _ours(entry: Entry | None, *, with_paper: bool = True) -> str:
    """``73.2 [69.2, 76.9]``, and the printed number of the same task in brackets."""
    if entry is None:
        return "-"
    text = f"{entry.mean:.1f}" if entry.ci95 is None else accuracy_text(entry.mean, entry.ci95)
    if with_paper and entry.paper is not None and entry.paper_is_printed:
        text += f" (paper {entry.paper:.2f})"
    return text


def _average(index: Index, method: str, setting: str) -> list[str]:
    """The average, and its distances in points to the original's and to the best: ``+5.6 [3.2, 8.0]``."""
    texts = [_ours(index.get((method, setting, AVERAGE, "accuracy")), with_paper=False)]
    for metric in _PAIRED.values():
        entry = index.get((method, setting, AVERAGE, metric))
        is_known = entry is not None and entry.ci95 is not None
        texts.append(f"{entry.mean:+z.1f} [{entry.ci95[0]:z.1f}, {entry.ci95[1]:z.1f}]" if is_known else "-")
    return texts


def _mean(entry: Entry | None, form: str) -> str:
    return "-" if entry is None else format(entry.mean, form)


def _printed(entry: Entry | None, form: str = ".2f") -> str:
    return "-" if entry is None or entry.paper is None else format(entry.paper, form)


def _averaged(suite: Suite, noun: str = "") -> str:
    """What the paper's averages beside ours are over."""
    return ", ".join(suite.tasks) if has_only_some_tasks_of_the_paper(suite) else f"its four{noun}"


def _table_1(suite: Suite, index: Index, heading: str) -> Iterator[str]:
    body = []
    for group, settings in GROUPS.items():
        for method in _methods(index):
            places = [(method, setting, task, "accuracy") for setting in settings for task in suite.tasks]
            gain = index.get((method, group, AVERAGE, "improvement"))
            papers = [_printed(index.get((method, group, AVERAGE, "accuracy"))), _printed(gain, "+.2f")]
            ours = [*(_ours(index.get(place)) for place in places), *_average(index, method, group)]
            body.append([group.removeprefix("T"), method_title(method), *ours, _mean(gain, "+.1f"), *papers])
    columns = [f"B{block} {task}" for block in (4, 8) for task in suite.tasks]
    paper = f"mean of {_averaged(suite)}" if has_only_some_tasks_of_the_paper(suite) else "Average"
    ends = ["Average", *_PAIRED, "Improvement %", f"paper: {paper}", "paper: Improvement %"]
    yield heading
    yield markdown_table(["TokPS", "method", *columns, *ends], body)
    body = []
    for method in _methods(index):
        scores = [_ours(index.get((method, block, AVERAGE, "aup"))) for block in CURVES]
        distinct = index.get((method, DIVERSITY, AVERAGE, "distinct_answers_per_prompt"))
        body.append([method_title(method), *scores, _mean(distinct, ".2f")])
    draws = suite.full.samples_per_prompt
    yield f"Accuracy under parallelism, and distinct answers ({draws} to a prompt, full steps, T = 1):"
    yield markdown_table(["method", "AUP, block size 4", "AUP, block size 8", "distinct answers"], body)


def _table_3(suite: Suite, index: Index, heading: str) -> Iterator[str]:
    names = {DYNAMIC[0]: "the model's own", DYNAMIC[1]: "as sampled (tempered), as in the paper's engine"}
    for setting, name in names.items():
        body = []
        for task in (*suite.tasks, AVERAGE):
            for method in _methods(index):
                costs = [_cost(index.get((method, setting, task, metric))) for metric in METRICS]
                body.append([task, method_title(method), *costs])
        averaged = _averaged(suite, " benchmarks")
        yield f"{heading} confidence {name}; of {AVERAGE}, the paper's number is the mean of {averaged}."
        yield markdown_table(["task", "method", *_METRIC_TITLES], body)


def _cost(entry: Entry | None) -> str:
    """A measure of Table 3, with the paper's in brackets: of our average, a mean of its benchmarks."""
    if entry is None:
        return "-"
    digits = {"latency": 4, "tokens_per_second": 0}.get(entry.metric, 1)
    own = _ours(entry, with_paper=False) if entry.metric == "accuracy" else f"{entry.mean:.{digits}f}"
    return own if entry.paper is None else f"{own} (paper {entry.paper:.2f})"


def _table_4(suite: Suite, index: Index, heading: str) -> Iterator[str]:
    task = "math500" if "math500" in suite.tasks else AVERAGE
    body, methods = [], list(_methods(index))
    for setting in LAMBDA_SETTINGS:
        found = [index.get((method, setting, task, "accuracy")) for method in methods]
        printed = map(_printed, found[: len(LAMBDAS)])
        body.append([setting, *(_ours(e, with_paper=False) for e in found), *printed])
    header = [f"lambda = {value:g}" for value in LAMBDAS]
    header += map(method_title, methods[len(LAMBDAS) :])  # added rows
    ours = "mean over the tasks" if task == AVERAGE else "MATH500"
    yield f"{heading} {ours}; the paper's numbers are of MATH500."
    yield markdown_table(["setting", *header, *(f"paper: {value:g}" for value in LAMBDAS)], body)


def _tables_of_one_setting(suite: Suite, index: Index, heading: str) -> Iterator[str]:
    """Tables 2 and 5 to 7; the paper has four tasks in the first, and MATH500 in the others."""
    entry = next(iter(index.values()))
    setting, is_table_2, is_full = entry.setting, entry.table == 2, entry.setting == "B4-T1"
    body = []
    for method in _methods(index):
        tasks = [_ours(index.get((method, setting, task, "accuracy"))) for task in suite.tasks]
        whole = index.get((method, setting, AVERAGE, "accuracy"))
        kept = index.get((method, setting, AVERAGE, "retention"))
        paper = whole if is_table_2 else index.get((method, setting, "math500", "accuracy"), whole)
        ends = [*([_mean(kept, ".1f")] if is_full else []), _printed(paper)]
        ends += [_printed(kept, ".1f")] if is_table_2 else []
        body.append([method_title(method), *tasks, *_average(index, method, setting), *ends])
    papers = [f"mean of {_averaged(suite)}", "kept, %"] if is_table_2 else ["MATH500"]
    ends = ["Average", *_PAIRED, *(["kept, %"] if is_full else []), *(f"paper: {name}" for name in papers)]
    yield heading
    yield markdown_table(["method", *suite.tasks, *ends], body)


_RENDERERS: dict[int, Callable[[Suite, Index, str], Iterator[str]]] = {
    1: _table_1,
    3: _table_3,
    4: _table_4,
    **dict.fromkeys((2, 5, 6, 7), _tables_of_one_setting),
}

"""One number for a model's whole curve, and what a student is to reach, from the rows of ``real_text.py``."""

from collections.abc import Callable, Sequence
from typing import Any

from t3d.evaluation.aup import accuracy_under_parallelism
from t3d.evaluation.intervals import pooled_difference_interval, pooled_ratio_interval
from t3d.evaluation.text_measures import Count, Estimate, Tokens, agreement, distinct, doubled, looped
from t3d.report.markdown import markdown_table

Row = dict[str, Any]
TEACHER = "teacher"
SCORES = {"agreement": "agreement", "right": "answers right"}
"""What AUP is taken of, where all rows have it."""
OF_LEFT_TO_RIGHT = ("left-to-right", "self-speculative")
"""In the labels of settings that draw every token behind all before it: another decoder than few steps."""


def estimate(value: Estimate, scale: float = 1.0, digits: int = 1) -> str:
    """A value with its interval."""
    middle, low, high = (scale * number for number in value)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def aup_table(rows: Sequence[Row]) -> str:
    """AUP by model, in percent times tokens per forward, over the few-step settings and over all.

    The best score is that of any model under any setting: of ``agreement`` 100, the teacher's first line.
    A model that lacks a setting of the teacher's is left out.
    """
    of_model: dict[str, dict[str, Row]] = {}
    for row in rows:
        of_model.setdefault(row["model"], {})[row["setting"]] = row
    everything = list(of_model[TEACHER])
    few_steps = [label for label in everything if not any(part in label for part in OF_LEFT_TO_RIGHT)]
    names = [name for name in SCORES if all(name in row["measures"] for row in rows)]
    best = {name: max(100 * row["measures"][name][0] for row in rows) for name in names}
    lines = []
    for model, own in of_model.items():
        if own.keys() >= set(everything):
            line = [model]
            for name in names:
                for labels in (few_steps, everything):
                    points = [_point(own[label], name) for label in labels]
                    line.append(f"{accuracy_under_parallelism(points, best[name]):.1f}")
            lines.append(line)
    ways = ("few steps", "all settings")
    return markdown_table(["model", *(f"{SCORES[name]}, {way}" for name in names for way in ways)], lines)


def _point(row: Row, name: str) -> tuple[float, float]:
    return row["tokens_per_forward"], 100 * row["measures"][name][0]


def _texts(rows: Sequence[Row], model: str, setting: str) -> list[Tokens] | None:
    """Responses by prompt; None where they are not measured."""
    for row in rows:
        if (row["model"], row["setting"]) == (model, setting):
            return [response["ids"] for response in row["responses"]]
    return None


def goals_table(rows: Sequence[Row], block_size: int) -> str | None:
    """Students beside the teacher: at four tokens per step by ratios, at full steps by differences.

    Both with 95 % intervals over prompts, paired. None without a student, or without either setting.
    """
    fast, full = f"B{block_size}-T4", f"B{block_size}-T1"
    of_teacher = [_texts(rows, TEACHER, setting) for setting in (fast, full)]
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows if row["model"] != TEACHER):
        own = [_texts(rows, model, setting) for setting in (fast, full)]
        if None not in own and None not in of_teacher:
            lines.append([model, *_goals(own, of_teacher)])
    if not lines:
        return None
    header = ["student", f"agreement at {fast}, times", f"doubled at {fast}, times"]
    header += [f"{name} at {full}, points" for name in ("doubled", "in loops", "distinct 4-grams")]
    return markdown_table(header, lines)


def _goals(student: Sequence[Any], teacher: Sequence[Any]) -> list[str]:
    """Cells of a student; both sides have texts at few steps and at full ones."""
    (fast, full), (fast_teacher, targets) = student, teacher
    with_targets = [
        [agreement(*pair) for pair in zip(texts, targets, strict=True)] for texts in (fast, fast_teacher)
    ]
    ratios = [with_targets, [[doubled(text) for text in texts] for texts in (fast, fast_teacher)]]
    cells = []
    for firsts, seconds in ratios:
        has_base = any(part for part, _ in seconds)
        cells.append(
            estimate(pooled_ratio_interval(firsts, seconds), digits=2) if has_base else "the teacher has none"
        )
    measures: tuple[Callable[[Tokens], Count], ...] = (doubled, looped, lambda text: distinct(text, 4))
    for measure in measures:
        counts = [[measure(text) for text in texts] for texts in (full, targets)]
        cells.append(estimate(pooled_difference_interval(*counts), 100))
    return cells

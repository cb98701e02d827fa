"""Compare graded answers of several evaluations, prompt by prompt.

The summary is JSON-ready. Accuracies and differences are in percent and points; a difference is second
minus first, so that it is positive where the second evaluation is better.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_uppercase
from typing import Any

from t3d.errors import InputError
from t3d.evaluation.intervals import (
    clustered_interval,
    gain,
    holm,
    mcnemar_p,
    mean_of_differences,
    sign_flip_p,
    wilson_interval,
)
from t3d.evaluation.pairs import DATA_FIELDS, Pair, check_sources, match_cells, pair_rows, shorten
from t3d.evaluation.samples import COSTS, ERROR, GradedSamples, Key, prompt_key

_GROUP = ("a", "b", "setting_a", "setting_b")
SPEEDS = ("tokens_per_forward", "tokens_per_second")
_LENGTH = 160
"""Characters of a response that a list of changes shows."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared with what."""

    setting_a: tuple[str, ...] = ()
    """Settings of the first evaluation, matched in turn with setting_b; one is matched with all.
    None of either: equal settings."""
    setting_b: tuple[str, ...] = ()
    """Settings of the other evaluations."""
    all_pairs: bool = False
    """Compare every two evaluations; otherwise every later one with the first."""
    common_only: bool = False
    """Compare the ids that both have; otherwise different ids are an error."""
    list_changes: int = 0
    """Answers per comparison to list whose verdict changed."""

    def __post_init__(self) -> None:
        num_a, num_b = len(self.setting_a), len(self.setting_b)
        if bool(num_a) != bool(num_b):
            name = "setting_b" if num_a else "setting_a"
            raise InputError(name, (), "missing", "set both setting_a and setting_b, or neither")
        if num_a != num_b and 1 not in (num_a, num_b):
            problem = f"{num_a} of setting_a do not match {num_b} of setting_b"
            raise InputError("setting_b", self.setting_b, problem, "give one, or as many as of the other")
        if self.all_pairs and num_a:
            fix = "leave out all_pairs, or the settings"
            raise InputError("all_pairs", True, "setting_a is of the first evaluation", fix)
        if self.list_changes < 0:
            raise InputError("list_changes", self.list_changes, "negative", "use 0 or more")

    def settings(self) -> list[tuple[str, str]]:
        """Matched settings of the first and of another evaluation; empty for equal ones."""
        longest = max(len(self.setting_a), len(self.setting_b))
        first, second = (
            names * longest if len(names) == 1 else names for names in (self.setting_a, self.setting_b)
        )
        return list(zip(first, second, strict=True))


def compare(evaluations: Sequence[GradedSamples], config: CompareConfig | None = None) -> dict[str, Any]:
    """All comparisons: ``cells`` by evaluation pair, task and setting, ``means`` over tasks, ``notes``.

    Raises InputError if there are fewer than two evaluations, if nothing matches, if the ids of a cell
    differ, if the same id has another question or answer, or for cells on other problems.
    """
    config = CompareConfig() if config is None else config
    if not 2 <= len(evaluations) <= len(ascii_uppercase):
        found = [evaluation.path for evaluation in evaluations]
        raise InputError("evaluations", found, "not two to 26 of them", "give the outputs to compare")
    letters = ascii_uppercase[: len(evaluations)]
    cells: list[dict[str, Any]] = []
    notes: list[str] = []
    for (a, first), (b, second) in combinations(zip(letters, evaluations, strict=True), 2):
        if a != "A" and not config.all_pairs:
            continue
        check_sources(first, second)
        keys = match_cells(first, second, config.settings())
        for key_a, key_b in keys:
            pairs, left_out = pair_rows(first, second, key_a, key_b, common_only=config.common_only)
            task = key_b.task if key_a.task is None else key_a.task
            names = {"a": a, "b": b, "task": task, "setting_a": key_a.setting, "setting_b": key_b.setting}
            speeds = {"speed_a": _speed(first, key_a), "speed_b": _speed(second, key_b)}
            cells.append({**names, **left_out, **compare_pairs(pairs, config.list_changes), **speeds})
        notes += _unmatched(a, first, [key for key, _ in keys], config.setting_a)
        notes += _unmatched(b, second, [key for _, key in keys], config.setting_b)
    for cell, adjusted in zip(cells, holm([cell["p_value"] for cell in cells]), strict=True):
        cell["p_holm"] = adjusted
    return {
        "evaluations": {name: each.path for name, each in zip(letters, evaluations, strict=True)},
        "cells": cells,
        "means": _means(cells),
        "notes": [*notes, *_notes(cells, has_sources=evaluations[0].source is not None)],
    }


def compare_pairs(pairs: Sequence[Pair], num_listed: int = 0) -> dict[str, Any]:
    """Accuracies, their difference with interval and p-value, cost ratios and changed verdicts."""
    by_prompt: dict[tuple[str, str, str], list[tuple[bool, bool]]] = {}
    for a, b in pairs:
        by_prompt.setdefault(prompt_key(a), []).append((a["correct"], b["correct"]))
    groups = list(by_prompt.values())
    count = len(pairs)
    counts = {
        name: sum((a["correct"], b["correct"]) == verdicts for a, b in pairs)
        for name, verdicts in {
            "both_right": (True, True),
            "only_a": (True, False),
            "only_b": (False, True),
            "both_wrong": (False, False),
        }.items()
    }
    low, high = clustered_interval(groups)
    one_each = len(groups) == count
    changed = [pair for pair in pairs if pair[0]["correct"] != pair[1]["correct"]]
    return {
        "n": count,
        "num_prompts": len(groups),
        **_accuracy("a", counts["both_right"] + counts["only_a"], count, len(groups)),
        **_accuracy("b", counts["both_right"] + counts["only_b"], count, len(groups)),
        "difference": 100 * (counts["only_b"] - counts["only_a"]) / count,
        "ci95": [100 * low, 100 * high],
        **counts,
        "test": "McNemar, exact" if one_each else "sign flips of prompts, exact",
        "p_value": mcnemar_p(counts["only_b"], counts["only_a"])
        if one_each
        else sign_flip_p([gain(group) for group in groups]),
        **_costs(pairs),
        "num_errors_a": sum(_is_error(first) for first, _ in pairs),
        "num_errors_b": sum(_is_error(second) for _, second in pairs),
        "data_compared": any(
            None not in (a.get(name), b.get(name)) for a, b in pairs for name in DATA_FIELDS
        ),
        "lost_ids": [str(a["id"]) for a, _ in changed if a["correct"]],
        "gained_ids": [str(a["id"]) for a, _ in changed if not a["correct"]],
        "changes": [_change(pair) for pair in changed[:num_listed]],
    }


def _accuracy(side: str, num_correct: int, count: int, num_prompts: int) -> dict[str, Any]:
    share = num_correct / count
    low, high = wilson_interval(share * num_prompts, num_prompts)
    return {f"accuracy_{side}": 100 * share, f"ci95_{side}": [100 * low, 100 * high]}


def _costs(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Means per answer of both, and the second's by the first's; None where the lines do not say.

    Pairs of which a response is missing, since decoding failed, are left out.
    """
    pairs = [pair for pair in pairs if not any(map(_is_error, pair))]
    if not pairs or not all(name in row for pair in pairs for row in pair for name in COSTS):
        return {"cost_a": None, "cost_b": None, "cost_ratio": None}
    costs = []
    for side in (0, 1):
        tokens, steps, forwards = (sum(pair[side][name] for pair in pairs) for name in COSTS)
        costs.append(
            {
                "denoising_steps": steps / len(pairs),
                "visible_tokens_per_forward": tokens / max(1, forwards),
                "length": tokens / len(pairs),
            }
        )
    ratios = {name: costs[1][name] / costs[0][name] if costs[0][name] else None for name in costs[0]}
    return {"cost_a": costs[0], "cost_b": costs[1], "cost_ratio": ratios}


def _is_error(row: Mapping[str, Any]) -> bool:
    return row.get("finish_reason") == ERROR


def _speed(evaluation: GradedSamples, key: Key) -> dict[str, float | None]:
    """TPF and tokens/s of all answers of a cell, as the evaluation measured them; None if it does not say."""
    entry = evaluation.entries.get(key, {})
    return {name: entry.get(name) for name in SPEEDS}


def _change(pair: Pair) -> dict[str, Any]:
    responses = [shorten(str(row.get("response", row.get("output", ""))), _LENGTH) for row in pair]
    return {
        "id": str(pair[0]["id"]),
        "right": "a" if pair[0]["correct"] else "b",
        "response_a": responses[0],
        "response_b": responses[1],
    }


def _means(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over the tasks, which share no prompt, where a pair of settings has several."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[name] for name in _GROUP), []).append(cell)
    means = []
    for names, group in groups.items():
        if len(group) == 1:
            continue
        mean, low, high = mean_of_differences([(cell["difference"], *cell["ci95"]) for cell in group])
        accuracies = {
            name: math.fsum(cell[name] for cell in group) / len(group)
            for name in ("accuracy_a", "accuracy_b")
        }
        means.append(
            {
                **dict(zip(_GROUP, names, strict=True)),
                "tasks": [cell["task"] for cell in group],
                **accuracies,
                "difference": mean,
                "ci95": [low, high],
            }
        )
    return means


def _unmatched(
    letter: str, evaluation: GradedSamples, matched: Sequence[Key], chosen: Sequence[str]
) -> list[str]:
    """A note on the cells, of the chosen settings if any are, that the other evaluation does not have."""
    left = [key for key in evaluation.cells if key not in matched and (not chosen or key.setting in chosen)]
    return [f"Not compared, only in {letter}: {', '.join(sorted(map(str, left)))}."] if left else []


def _notes(cells: Sequence[dict[str, Any]], *, has_sources: bool) -> list[str]:
    """What a reader of the numbers has to know; with sources, what posed all problems was compared."""
    notes = [
        f"{cell['a']} and {cell['b']}, {cell['task']}: {cell['n']} common ids compared; {cell['left_out_a']} "
        f"only in {cell['a']} and {cell['left_out_b']} only in {cell['b']} left out."
        for cell in cells
        if cell["left_out_a"] or cell["left_out_b"]
    ]
    notes += [
        f"{cell[side]}, {cell['task']}: {cell[f'num_errors_{side}']} responses failed and count as wrong; "
        "costs are without them."
        for cell in cells
        for side in "ab"
        if cell[f"num_errors_{side}"]
    ]
    if any(cell["num_prompts"] < cell["n"] for cell in cells):
        notes.append("Several answers to one prompt: interval and test go by prompts.")
    if not has_sources and not all(cell["data_compared"] for cell in cells):
        notes.append("Some lines hold neither question nor answer: that the data agree is known by id only.")
    if len(cells) > 1:
        notes.append(
            f"{len(cells)} tests: the p-values shown are Holm's, so that those below 0.05 hold together at "
            "95 %. Intervals are of one comparison each."
        )
    return notes

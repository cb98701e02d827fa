"""From entries of an evaluation, one per task and setting, to a setting's means over the tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from t3d.evaluation.intervals import mean_interval, wilson_interval


def over_tasks(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Per setting: accuracy and 95 % interval by task and their mean (percent), TokPS, TPF, tokens/s, n.

    Intervals count prompts: several answers to one are not independent.
    """
    by_setting: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        by_setting.setdefault(entry["setting"], []).append(entry)
    return {setting: _of_setting(found) for setting, found in by_setting.items()}


def _of_setting(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = {entry["task"]: entry["num_prompts"] for entry in entries}
    accuracies = {entry["task"]: entry["num_correct"] / entry["n"] for entry in entries}
    intervals = {"mean": mean_interval(list(accuracies.values()), list(counts.values()))}
    for entry in entries:
        num_prompts = entry["num_prompts"]
        right = entry["num_correct"] * num_prompts / entry["n"]
        intervals[entry["task"]] = wilson_interval(right, num_prompts)
    num_tasks = len(entries)
    visible = sum((entry["n"] - entry.get("num_errors", 0)) * entry["mean_length"] for entry in entries)
    return {
        "accuracy": {"mean": 100 * sum(accuracies.values()) / num_tasks}
        | {task: 100 * accuracy for task, accuracy in accuracies.items()},
        "ci95": {task: [100 * bound for bound in ends] for task, ends in intervals.items()},
        "tokens_per_step": sum(entry["tokens_per_step"] for entry in entries) / num_tasks,
        "tokens_per_forward": sum(entry["tokens_per_forward"] for entry in entries) / num_tasks,
        "tokens_per_forward_by_task": {entry["task"]: entry["tokens_per_forward"] for entry in entries},
        "tokens_per_second": visible / sum(entry["seconds"] for entry in entries),
        "tokens_per_second_by_task": {entry["task"]: entry["tokens_per_second"] for entry in entries},
        "n": sum(entry["n"] for entry in entries),
    }

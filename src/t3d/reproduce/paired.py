"""Two methods of a table on the same prompts, from the verdicts that their cells keep."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from t3d.evaluation.intervals import VerdictsByPrompt, paired_seeds_interval
from t3d.reproduce.suite_data import SuiteData, questions

RowsOfCells = Mapping[tuple[int, str, str], Mapping[str, Any]]
"""Rows of a method's cells by seed, setting and task."""


def paired_difference(
    data: SuiteData,
    limit: int | None,
    base: RowsOfCells,
    other: RowsOfCells,
    *,
    seeds: Sequence[int],
    settings: Sequence[str],
    tasks: Sequence[str],
    split: str = "test",
) -> tuple[float, float, float] | None:
    """Accuracy of the other minus that of the base, over seeds, settings and tasks, with its interval.

    As fractions. ``limit`` is that of the cells' problems, of one split. A prompt counts once, however many
    settings and seeds have it. None where a row was made before verdicts were kept.
    """
    places = [(seed, setting, task) for seed in seeds for setting in settings for task in tasks]
    if not all("verdicts" in rows[place] for rows in (base, other) for place in places):
        return None
    per_seed = []
    for seed in seeds:
        found = []
        for task in tasks:
            pairs = [(base[seed, setting, task], other[seed, setting, task]) for setting in settings]
            # Names under which other seeds find the same prompts; numbers where there is no other seed.
            numbers = range(pairs[0][0]["num_prompts"])
            is_alone = len(seeds) == 1
            prompts = numbers if is_alone else questions(data.problems, task, limit, seed, split)
            found.append(_by_prompt(pairs, prompts))
        per_seed.append(found)
    return paired_seeds_interval(per_seed)


def _by_prompt(
    rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], prompts: Sequence[Hashable]
) -> VerdictsByPrompt:
    """Pairs of verdicts; in a row the answers to one prompt stand one after another."""
    found: dict[Hashable, list[tuple[bool, bool]]] = {}
    for first, second in rows:
        num_draws = len(first["verdicts"]) // len(prompts)
        pairs = zip(first["verdicts"], second["verdicts"], strict=True)
        for index, (ours, theirs) in enumerate(pairs):
            found.setdefault(prompts[index // num_draws], []).append((ours == "1", theirs == "1"))
    return found

"""How near texts are to those of a teacher's full steps, and how much they repeat; on token ids.

A text is the visible token ids of a response, its stop token included. Of one text most measures are a
:data:`Count`, of several the pooled share: the parts of all by the wholes of all, so that every token weighs
the same. Intervals are over texts, 95 %.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from t3d.evaluation.intervals import (
    pooled_difference_interval,
    pooled_interval,
    t_half_width,
    wilson_interval,
)

Tokens = Sequence[int]
"""Token ids of one text."""
Count = tuple[int, int]
"""Of one text: how many of how many."""
Estimate = tuple[float, float, float]
"""A value and the ends of its interval."""
MIN_LOOP = 3
"""Tokens of the shortest n-gram whose repetition is a loop: shorter ones, such as digits, repeat anyway."""
NGRAMS = (1, 2, 3, 4)


def agreement(text: Tokens, target: Tokens) -> Count:
    """Positions of the target where the text has the same token.

    A token that is missing or too much shifts all behind it: the edit distance does not mind.
    """
    return sum(ours == theirs for ours, theirs in zip(text, target, strict=False)), len(target)


def token_agreement(texts: Sequence[Tokens], targets: Sequence[Tokens]) -> float:
    """Share of the targets' positions where the texts have the same token: :func:`agreement`, pooled."""
    counts = [agreement(*pair) for pair in zip(texts, targets, strict=True)]
    return sum(part for part, _ in counts) / sum(whole for _, whole in counts)


def edit_distance(text: Tokens, target: Tokens) -> int:
    """Fewest tokens to insert, delete or replace so that one becomes the other (Levenshtein, 1966)."""
    others, place = np.asarray(target), np.arange(len(target) + 1)
    row = place
    for count, token in enumerate(text, start=1):
        # Without insertions first; then the cheapest way from any place to the left, one insertion a step.
        best = np.concatenate(([count], np.minimum(row[1:] + 1, row[:-1] + (others != token))))
        row = np.minimum.accumulate(best - place) + place
    return int(row[-1])


def normalised_edit_distance(text: Tokens, target: Tokens) -> float:
    """:func:`edit_distance` by the length of the longer one: 0 for equal texts, 1 for nothing in common."""
    longer = max(len(text), len(target))
    return edit_distance(text, target) / longer if longer else 0.0


def doubled(text: Tokens) -> Count:
    """Tokens equal to the one before, of those that have one before.

    Some are right (``100``, ``tomorrow, tomorrow``): compare with the rate of full-step text.
    """
    return sum(one == two for one, two in pairwise(text)), max(0, len(text) - 1)


def distinct(text: Tokens, length: int) -> Count:
    """Different n-grams of this length within one text, of all that it has."""
    grams = [tuple(text[first : first + length]) for first in range(len(text) - length + 1)]
    return len(set(grams)), len(grams)


def looped(text: Tokens) -> Count:
    """Tokens of n-grams that stand twice side by side, both copies, of all; n from :data:`MIN_LOOP` on."""
    ids = np.asarray(text, dtype=np.int64)
    is_covered = np.zeros(len(ids), dtype=bool)
    for length in range(MIN_LOOP, len(ids) // 2 + 1):
        same = np.concatenate(([0], np.cumsum(ids[length:] == ids[:-length])))
        starts = np.flatnonzero(same[length:] - same[:-length] == length)
        change = np.zeros(len(ids) + 1, dtype=np.int64)
        change[starts] += 1
        change[starts + 2 * length] -= 1
        is_covered |= np.cumsum(change)[:-1] > 0
    return int(is_covered.sum()), len(ids)


def pooled_share(counts: Sequence[Count]) -> Estimate:
    """The share of all texts together; of few texts the interval would leave 0 to 1."""
    value, low, high = pooled_interval(counts)
    return value, max(0.0, low), min(1.0, high)


def text_measures(
    texts: Sequence[Tokens], targets: Sequence[Tokens], ended: Sequence[bool]
) -> dict[str, Estimate]:
    """All measures of texts beside those of a teacher's full steps, one for each, as fractions.

    ``ended`` says which texts end with a stop token. ``edit_distance`` is the mean of the normalised ones,
    ``doubled_excess`` the texts' rate less the targets', ``distinct_N`` counts within each text alone.
    """
    pairs = list(zip(texts, targets, strict=True))
    exact = sum(list(text) == list(target) for text, target in pairs)
    distances = [normalised_edit_distance(*pair) for pair in pairs]
    mean, half = sum(distances) / len(distances), t_half_width(distances)
    of_targets = [doubled(target) for target in targets]
    return {
        "agreement": pooled_share([agreement(*pair) for pair in pairs]),
        "exact": (exact / len(pairs), *wilson_interval(exact, len(pairs))),
        "edit_distance": (mean, max(0.0, mean - half), min(1.0, mean + half)),
        "doubled": pooled_share([doubled(text) for text in texts]),
        "doubled_excess": pooled_difference_interval([doubled(text) for text in texts], of_targets),
        "loops": pooled_share([looped(text) for text in texts]),
        **{f"distinct_{n}": pooled_share([distinct(text, n) for text in texts]) for n in NGRAMS},
        "ended": (sum(ended) / len(ended), *wilson_interval(sum(ended), len(ended))),
    }

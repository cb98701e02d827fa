"""Which masked positions a step commits."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t3d.decoding.params import DecodeParams
from t3d.decoding.transfer import transfer_mask

STRATEGIES = ["low_confidence_static", "low_confidence_dynamic", "entropy_bounded", "sequential", "random"]


@st.composite
def blocks(draw):
    """Rows of (confidence, mask, planned, order), with many ties."""
    size = draw(st.integers(1, 8))

    def row(values):
        return st.lists(values, min_size=size, max_size=size)

    one = st.tuples(
        row(st.sampled_from([0.05, 0.3, 0.5, 0.9, 0.95])),
        row(st.booleans()),
        st.integers(0, size),
        row(st.sampled_from([0.1, 0.2, 0.7])),
    )
    return draw(st.lists(one, min_size=1, max_size=4))


def transfer(rows, remasking, threshold=0.5, bound=0.35):
    """``order`` serves as the order's uniforms and as entropies."""
    confidence, mask, planned, order = zip(*rows, strict=True)
    order = torch.tensor(order, dtype=torch.float64)
    result = transfer_mask(
        torch.tensor(confidence, dtype=torch.float64),
        torch.tensor(mask),
        torch.tensor(planned),
        DecodeParams(remasking=remasking, confidence_threshold=threshold, entropy_bound=bound),
        order_uniform_RS=order,
        entropy_RS=order,
    )
    return result.tolist()


@pytest.mark.parametrize("remasking", STRATEGIES)
@given(blocks())
def test_only_masked_positions_are_committed(remasking, rows):
    for chosen, (_, mask, _, _) in zip(transfer(rows, remasking), rows, strict=True):
        assert all(masked for commit, masked in zip(chosen, mask, strict=True) if commit)


@pytest.mark.parametrize("remasking", ["low_confidence_static", "sequential", "random"])
@given(blocks())
def test_exactly_the_planned_number_is_committed(remasking, rows):
    """Or all masks that are left, if there are fewer."""
    for chosen, (_, mask, planned, _) in zip(transfer(rows, remasking), rows, strict=True):
        assert sum(chosen) == min(planned, sum(mask))


@pytest.mark.parametrize("remasking", STRATEGIES)
@given(blocks())
def test_the_choice_equals_the_rule_and_lower_positions_win_ties(remasking, rows):
    """Brute force: sort the masked positions by (worse score, higher position), take the planned number."""
    for chosen, (confidence, mask, planned, order) in zip(transfer(rows, remasking), rows, strict=True):
        score = {
            "sequential": [0.0] * len(mask),
            "random": order,
            "entropy_bounded": [-entropy for entropy in order],
        }.get(remasking, confidence)
        masked, count = [position for position in range(len(mask)) if mask[position]], planned
        if remasking == "entropy_bounded":
            sums = itertools.accumulate(sorted(order[position] for position in masked))
            count = max(planned, sum(total < 0.35 for total in sums))
        expected = set(sorted(masked, key=lambda position: (-score[position], position))[:count])
        if remasking == "low_confidence_dynamic":
            expected |= {position for position in masked if confidence[position] > 0.5}
        assert {position for position, commit in enumerate(chosen) if commit} == expected


@given(blocks(), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]))
def test_dynamic_commits_at_least_the_static_choice(rows, threshold):
    static = transfer(rows, "low_confidence_static", threshold)
    dynamic = transfer(rows, "low_confidence_dynamic", threshold)
    for few, many in zip(static, dynamic, strict=True):
        assert all(in_many for in_few, in_many in zip(few, many, strict=True) if in_few)


@given(blocks())
def test_dynamic_at_threshold_one_is_static(rows):
    assert transfer(rows, "low_confidence_dynamic", 1.0) == transfer(rows, "low_confidence_static")


@pytest.mark.parametrize(
    ("bound", "planned", "committed"),
    [
        (0.0, 1, [4]),
        (0.1, 1, [4]),
        (0.11, 1, [4]),
        (0.5, 1, [4, 5]),
        (0.95, 1, [1, 4, 5]),
        (9, 1, [1, 2, 4, 5]),
    ],
)
def test_entropies_add_up_to_less_than_the_bound(bound, planned, committed):
    """Entropies .5 .8 .1 .3 at the masked positions 1 2 4 5: sums .1, .4, .9, 1.7 by rising entropy."""
    row = ([1.0] * 6, [False, True, True, False, True, True], planned, [0.0, 0.5, 0.8, 0.0, 0.1, 0.3])
    chosen = transfer([row], "entropy_bounded", bound=bound)[0]
    assert [position for position, commit in enumerate(chosen) if commit] == committed


@pytest.mark.parametrize(
    ("remasking", "threshold", "planned", "committed"),
    [
        ("low_confidence_static", 0.5, 1, [4]),
        ("low_confidence_static", 0.5, 2, [4, 5]),
        ("low_confidence_static", 0.5, 3, [2, 4, 5]),
        ("low_confidence_dynamic", 0.5, 1, [4, 5]),
        ("low_confidence_dynamic", 0.6, 1, [4]),
        ("low_confidence_dynamic", 0.99, 2, [4, 5]),
        ("low_confidence_dynamic", 0.0, 1, [1, 2, 4, 5]),
        ("sequential", 0.5, 1, [1]),
        ("sequential", 0.5, 3, [1, 2, 4]),
        ("random", 0.5, 1, [2]),
        ("random", 0.5, 2, [1, 2]),
        ("random", 0.5, 9, [1, 2, 4, 5]),
        ("random", 0.5, 0, []),
    ],
)
def test_strategies_by_hand(remasking, threshold, planned, committed):
    """Positions 0 and 3 are decided (their confidence must not matter); the others are masked.

    Confidence: 1.0 .2 .4 1.0 .8 .6; order uniforms: .9 .5 .8 .9 .1 .3. The threshold is strict: .6 is
    not above 0.6.
    """
    confidence = [1.0, 0.2, 0.4, 1.0, 0.8, 0.6]
    mask = [False, True, True, False, True, True]
    order = [0.9, 0.5, 0.8, 0.9, 0.1, 0.3]
    chosen = transfer([(confidence, mask, planned, order)], remasking, threshold)[0]
    assert [position for position, commit in enumerate(chosen) if commit] == committed


def test_random_commits_every_position_equally_often():
    """4,000 draws of 2 of 4 positions: each in half of them, within 5 sigma."""
    order = torch.rand(4000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chosen = transfer_mask(
        torch.zeros(4000, 4, dtype=torch.float64),
        torch.ones(4000, 4, dtype=torch.bool),
        torch.full((4000,), 2),
        DecodeParams(remasking="random"),
        order_uniform_RS=order,
    )
    assert chosen.double().mean(0).tolist() == pytest.approx([0.5] * 4, abs=5 * 0.5 / 4000**0.5)

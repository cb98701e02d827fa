"""What is measured of a network on its trajectories is the exact divergence where the network is a table."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from t3d.theory.exact.chain import chain_of
from t3d.theory.exact.measures import divergence
from t3d.theory.exact.tables import TableModel, random_model
from t3d.theory.instances import SURE_THEN_UNSURE
from t3d.theory.measured import mean_of, score_trajectory, summary
from t3d.theory.searches import whole_block
from t3d.trajectory import Trajectory

MASK = 2
LENGTH, PROMPT = 4, (0, 0, 0, 0)


class Network(torch.nn.Module):
    """A table of binary tokens behind a prompt of one block, which it does not look at."""

    def __init__(self, model: TableModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids, position_ids, attention_mask, **unused) -> SimpleNamespace:
        tokens = torch.cat([self.model.table, torch.zeros_like(self.model.table[..., :1])], -1)
        size = self.model.length
        predicted = tokens[tuple(input_ids[:, size:].T)].log()
        before = predicted.new_zeros(len(input_ids), size, predicted.shape[-1])
        return SimpleNamespace(logits=torch.cat([before, predicted], 1))


def trajectory(tokens, steps, visible_length=LENGTH, block_size=LENGTH) -> Trajectory:
    return Trajectory(
        id="a",
        prompt_ids=PROMPT[:block_size],
        response_ids=tuple(tokens),
        step_map=tuple(steps),
        visible_length=visible_length,
        finish_reason="length",
        block_size=block_size,
        mask_token_id=MASK,
    )


@pytest.fixture(scope="module")
def model() -> TableModel:
    generator = torch.Generator().manual_seed(11)
    return random_model(2, LENGTH, block_size=LENGTH, scale=1.5, generator=generator)


@pytest.mark.parametrize("tokens_per_step", [1, 2, 4])
def test_over_all_trajectories_left_to_right_it_is_the_exact_divergence(model, tokens_per_step):
    """KL(one by one || so many together), each trajectory with its probability."""
    alone = chain_of(model, whole_block("sequential", LENGTH)).clean()
    together = chain_of(model, whole_block("sequential", LENGTH, tokens_per_step)).clean()
    found = 0.0
    for tokens in itertools.product((0, 1), repeat=LENGTH):
        record = trajectory(tokens, range(1, LENGTH + 1))
        scores = score_trajectory(
            Network(model), record, 0, tokens_per_step=[tokens_per_step], block_size=LENGTH
        )
        assert sum(score.alone for score in scores) == pytest.approx(float(alone[tokens].log()))
        found += float(alone[tokens]) * sum(score.error(tokens_per_step) for score in scores)
    expected = float(divergence(alone, together, frozenset(range(LENGTH))))
    assert found == pytest.approx(expected, abs=1e-12)
    assert (expected < 1e-12) == (tokens_per_step == 1)


def test_in_confidence_order_it_leaves_out_what_the_selection_does():
    """Independent tokens, .9 and .6 for 0: no trajectory has an error, but one by one the first comes out
    with .99 and together with .9."""
    order = "low_confidence_static"
    alone, together = (chain_of(SURE_THEN_UNSURE, whole_block(order, 2, count)).clean() for count in (1, 2))
    assert float(divergence(alone, together, frozenset({0, 1}))) > 0.05
    network = Network(SURE_THEN_UNSURE)
    for tokens in itertools.product((0, 1), repeat=2):
        for steps in ((1, 2), (2, 1)):
            record = trajectory(tokens, steps, visible_length=2, block_size=2)
            scores = score_trajectory(network, record, 0, tokens_per_step=[2], block_size=2)
            assert [score.error(2) for score in scores] == pytest.approx([0, 0], abs=1e-12)


def test_a_token_is_scored_in_the_recorded_order_and_by_its_place(model):
    """Commits 2, 0, 3, 1; the last token is not visible and not scored, but was read by none before it."""
    record = trajectory((0, 1, 1, 0), (2, 4, 1, 3), visible_length=3)
    scores = score_trajectory(Network(model), record, 5, tokens_per_step=[2], block_size=LENGTH)
    assert [(score.trajectory, score.offset) for score in scores] == [(5, 2), (5, 0), (5, 1)]
    assert [score.together[2][0] for score in scores] == [4, 4, 2]
    assert [score.masks_left for score in scores] == [4, 3, 1]
    states = [(2, 2, 2, 2), (2, 2, 1, 2), (0, 2, 1, 0)]
    rows = [model.table[state][i] for state, i in zip(states, (2, 0, 1), strict=True)]
    assert [score.alone for score in scores] == pytest.approx(
        [float(row[token].log()) for row, token in zip(rows, (1, 0, 1), strict=True)]
    )
    assert scores[1].together[2][1] == pytest.approx(float(model.table[2, 2, 2, 2, 0, 0].log()))
    assert scores[2].together[2][1] == pytest.approx(float(model.table[0, 2, 1, 2, 1, 1].log()))
    assert [score.agrees for score in scores] == [
        bool(row.argmax() == token) for row, token in zip(rows, (1, 0, 1), strict=True)
    ]
    assert scores[0].entropy == pytest.approx(float(torch.special.entr(rows[0]).sum()))


def test_means_are_over_trajectories_and_every_token_is_in_one_place(model):
    records = [trajectory((0, 1, 1, 0), (1, 2, 3, 4), visible_length=length) for length in (4, 1)]
    scores = [
        score
        for number, record in enumerate(records)
        for score in score_trajectory(
            Network(model), record, number, tokens_per_step=[1, 4], block_size=LENGTH
        )
    ]
    report = summary(scores, [1, 4])
    assert report["num_tokens"] == 5
    by_hand = [sum(score.error(4) for score in scores[:4]) / 4, scores[4].error(4)]
    whole = report["factorisation_error"]["4"]
    assert whole["all"]["mean"] == pytest.approx(sum(by_hand) / 2) and whole["all"]["num_trajectories"] == 2
    assert list(whole["by_masks_left"]) == ["4"] and list(whole["by_offset"]) == ["0", "1", "2", "3"]
    assert report["factorisation_error"]["1"]["all"]["mean"] == 0
    for name, value in (
        ("entropy", lambda score: score.entropy),
        ("agreement", lambda score: float(score.agrees)),
        ("negative_log_likelihood", lambda score: -score.alone),
    ):
        found = report[name]
        first = [value(scores[0]), value(scores[4])]  # left to right: at offset 0 nothing is committed yet
        assert found["by_offset"]["0"]["mean"] == pytest.approx(sum(first) / 2)
        assert found["by_masks_left"]["4"] == found["by_offset"]["0"]
        assert found["by_masks_left"]["2"]["mean"] == pytest.approx(value(scores[2]))
        assert list(found["by_masks_left"]) == ["1", "2", "3", "4"]
    assert mean_of(scores[:4], lambda score: 1.0) == {"mean": 1.0, "half_width": 0.0, "num_trajectories": 1}

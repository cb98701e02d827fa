"""Certainty forcing (dParallel)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t3d.objectives.certainty_forcing import certainty_forcing_loss

LN2 = math.log(2)


def loss_of(log_prob, entropy, is_correct, copy, *, num_copies, entropy_weight=2.0, num_samples=1):
    return certainty_forcing_loss(
        student_real_M=torch.as_tensor(log_prob, dtype=torch.float64),
        entropy_M=torch.as_tensor(entropy, dtype=torch.float64),
        is_correct_M=torch.as_tensor(is_correct),
        copy_M=torch.as_tensor(copy),
        num_copies=num_copies,
        entropy_weight=entropy_weight,
        num_samples=num_samples,
    )


def test_one_response_in_two_complementary_states_by_hand():
    """State 0: p = 1/2, 1/4, 1/8, so CE = 2 ln 2; right at the first two, entropies 0.2 and 0.4: H = 0.3.

    State 1: p = 1/16, CE = 4 ln 2, not right: H = 0. Loss with beta = 2: 6 ln 2 + 2 * 0.3.
    """
    output = loss_of(
        [-LN2, -4 * LN2, -2 * LN2, -3 * LN2],
        [0.2, 9.0, 0.4, 7.0],
        [True, False, True, False],
        [0, 1, 0, 0],
        num_copies=2,
    )
    assert output.loss.item() == pytest.approx(6 * LN2 + 0.6)
    assert output.metrics["loss/cross_entropy"].item() == pytest.approx(6 * LN2)
    assert output.metrics["loss/entropy"].item() == pytest.approx(0.3)
    assert not any(value.requires_grad for value in output.metrics.values())


def test_responses_are_averaged_not_tokens():
    """Copies of 1 and of 3 positions weigh the same: (ln 2 + 3 ln 2) / 2."""
    output = loss_of(
        [-LN2, -3 * LN2, -3 * LN2, -3 * LN2],
        [0.0] * 4,
        [False] * 4,
        [0, 1, 1, 1],
        num_copies=2,
        num_samples=2,
    )
    assert output.loss.item() == pytest.approx(2 * LN2)


def test_without_entropy_weight_it_is_the_mean_cross_entropy():
    log_prob = -torch.rand(7, dtype=torch.float64)
    output = loss_of(log_prob, torch.rand(7), [True] * 7, [0] * 7, num_copies=1, entropy_weight=0.0)
    torch.testing.assert_close(output.loss, -log_prob.mean())


def test_no_position_gives_no_loss():
    empty = torch.empty(0, dtype=torch.bool)
    output = loss_of(empty.double(), empty.double(), empty, empty.long(), num_copies=3)
    assert output.loss.item() == 0


def of_logits(logits, label, copy, *, temperature, num_copies, num_samples):
    log_q = (logits / temperature).log_softmax(-1)
    return certainty_forcing_loss(
        student_real_M=logits.log_softmax(-1).gather(1, label[:, None])[:, 0],
        entropy_M=-(log_q.exp() * log_q).sum(-1),
        is_correct_M=logits.argmax(-1) == label,
        copy_M=copy,
        num_copies=num_copies,
        entropy_weight=2.0,
        num_samples=num_samples,
    ).loss


def case(seed, count=6, vocab=4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, vocab, dtype=torch.float64, generator=generator, requires_grad=True)
    label = torch.randint(vocab, (count,), generator=generator)
    label[::2] = logits[::2].argmax(-1)
    return logits, label


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_gradient_by_the_logits_passes_the_numerical_check(temperature):
    logits, label = case(0)
    copy = torch.tensor([0, 0, 1, 1, 1, 2])

    def loss(logits):
        return of_logits(logits, label, copy, temperature=temperature, num_copies=3, num_samples=2)

    assert torch.autograd.gradcheck(loss, (logits,))


@given(st.integers(0, 99), st.integers(1, 5))
def test_micro_batches_of_whole_responses_sum_to_the_large_batch(seed, cut):
    """The means are inside a copy, so only the count of responses is global."""
    logits, label = case(seed)
    copy = torch.arange(6)
    settings = {"temperature": 0.5, "num_copies": 6, "num_samples": 6}
    whole = of_logits(logits, label, copy, **settings)
    parts = [
        of_logits(logits[part], label[part], copy[part], **settings) for part in (slice(cut), slice(cut, 6))
    ]
    torch.testing.assert_close(parts[0] + parts[1], whole)


def test_the_entropy_falls_only_where_the_student_is_right():
    """Gradient by the entropies: beta / (right positions of the copy) there, 0 elsewhere."""
    entropy = torch.rand(4, dtype=torch.float64, requires_grad=True)
    certainty_forcing_loss(
        student_real_M=torch.zeros(4, dtype=torch.float64),
        entropy_M=entropy,
        is_correct_M=torch.tensor([True, True, False, False]),
        copy_M=torch.tensor([0, 0, 0, 1]),
        num_copies=2,
        entropy_weight=3.0,
        num_samples=1,
    ).loss.backward()
    assert entropy.grad.tolist() == [1.5, 1.5, 0, 0]

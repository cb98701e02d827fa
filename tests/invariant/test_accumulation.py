"""Micro-batches with global counts sum to the loss and the gradient of the large batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packing_helpers import loss_logits
from torch.nn import functional

from t3d.objectives.cross_entropy import cross_entropy_loss
from t3d.objectives.ddo import ddo_loss
from t3d.objectives.logprobs import reduce_by_sample
from t3d.objectives.path_consistency import path_loss
from t3d.objectives.t3d import t3d_loss
from t3d.training.block_grid import TrainingExample, lay_on_grid
from t3d.training.packing import pack_copies

MASK = 37


def losses(logits, reference_logits, batch, rows, counts, reduction):
    """All objectives on the positions of these rows, normalised by the global counts."""
    num_trajectories, num_tokens = counts
    chosen = torch.isin(batch["row"], rows)
    logits, reference = logits[chosen], reference_logits[chosen]
    real, fake, weight = batch["real"][chosen], batch["fake"][chosen], batch["weight"][chosen]
    local_row = torch.searchsorted(rows, batch["row"][chosen])

    def sequence(log_prob):
        return reduce_by_sample(log_prob, local_row, len(rows), reduction)

    real_log_prob = -functional.cross_entropy(logits, real, reduction="none")
    ddo = ddo_loss(
        student_real_N=sequence(real_log_prob),
        reference_real_N=sequence(-functional.cross_entropy(reference, real, reduction="none")),
        student_fake_N=sequence(-functional.cross_entropy(logits, fake, reduction="none")),
        reference_fake_N=sequence(-functional.cross_entropy(reference, fake, reduction="none")),
        beta=0.5,
        alpha=0.5,
        num_samples=num_trajectories,
    )
    path = path_loss(student_real_M=real_log_prob, weight_M=weight, normaliser=num_tokens)
    cross_entropy = cross_entropy_loss(student_real_M=real_log_prob, num_tokens=num_tokens)
    return torch.stack([ddo.loss, path.loss, cross_entropy.loss, t3d_loss(ddo, path, path_weight=0.2).loss])


@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=6),
    st.integers(1, 5),
    st.sampled_from(["mean", "sum"]),
    st.integers(0, 99),
)
def test_objectives_of_micro_batches_sum_to_the_large_batchs(lengths, cut, reduction, seed):
    """Ragged rows, cut anywhere: the loss values and the gradients of the logits."""
    generator = torch.Generator().manual_seed(seed)
    num_tokens, num_rows = sum(lengths), len(lengths)
    cut = min(cut, num_rows - 1)
    batch = {
        "row": torch.repeat_interleave(torch.arange(num_rows), torch.tensor(lengths)),
        "real": torch.randint(9, (num_tokens,), generator=generator),
        "fake": torch.randint(9, (num_tokens,), generator=generator),
        "weight": torch.rand(num_tokens, dtype=torch.float64, generator=generator),
    }
    logits = torch.randn(num_tokens, 9, dtype=torch.float64, generator=generator, requires_grad=True)
    reference = torch.randn(num_tokens, 9, dtype=torch.float64, generator=generator)
    counts, everyone = (num_rows, num_tokens), torch.arange(num_rows)
    large = losses(logits, reference, batch, everyone, counts, reduction)
    small = [
        losses(logits, reference, batch, rows, counts, reduction) for rows in (everyone[:cut], everyone[cut:])
    ]
    torch.testing.assert_close(small[0] + small[1], large)
    (expected,) = torch.autograd.grad(large.sum(), logits)
    gradients = [torch.autograd.grad(part.sum(), logits)[0] for part in small]
    torch.testing.assert_close(gradients[0] + gradients[1], expected)


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_model_gradients_of_micro_batches_sum_to_the_large_batchs(make_model, micro_batch):
    """The same through the model, with each micro-batch collated on its own."""
    model = make_model()
    lengths = [(5, 6), (2, 9), (8, 4), (3, 1), (1, 11), (7, 7)]
    examples = [
        TrainingExample(
            sample_key=row,
            epoch=0,
            prompt_ids=torch.randint(40, (prompt,)).tolist(),
            response_ids=torch.randint(40, (response,)).tolist(),
            step_map=[1] * response,
            token_weight=[1.0] * response,
            num_loss_tokens=response,
        )
        for row, (prompt, response) in enumerate(lengths)
    ]
    num_tokens = sum(response for _, response in lengths)

    def gradient(size):
        model.zero_grad()
        for first in range(0, len(examples), size):
            grid = lay_on_grid(examples[first : first + size], 4, 0)
            batch = pack_copies(grid, grid.ids_RKS.masked_fill(grid.valid_RKS, MASK), grid.valid_RKS)
            log_prob = -functional.cross_entropy(loss_logits(model, batch), batch["labels"], reduction="none")
            cross_entropy_loss(student_real_M=log_prob, num_tokens=num_tokens).loss.backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    torch.testing.assert_close(gradient(micro_batch), gradient(6), rtol=1e-5, atol=1e-7)

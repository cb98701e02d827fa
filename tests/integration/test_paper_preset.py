"""Preset ``paper`` as the trainer computes it, against Eq. 7 to 10 worked out slowly, state by state."""

import math

import pytest
import torch
from packing_helpers import loss_logits
from torch.nn.functional import logsigmoid
from training_helpers import config, logged, trainer

from t3d.models.loading import load_model
from t3d.training.lora import add_adapter
from t3d.training.presets import preset_fields
from t3d.training.trainer import T3DTrainer


def batch_of(run):
    return run.data_collator([run.train_dataset[row] for row in range(len(run.train_dataset))])


def disturb(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))


def slow_loss(student_logits, reference_logits, batch, num_responses, *, path_weight=0.2):
    """Eq. 10: Eq. 7 for one state after the other, token by token over the whole vocabulary; Eq. 8."""
    log_p, log_q = student_logits.double().log_softmax(-1), reference_logits.double().log_softmax(-1)
    block = [
        (row, position // 8)
        for row, position in zip(
            batch["loss_copy"].tolist(), batch["loss_position_ids"].tolist(), strict=True
        )
    ]
    terms = []
    for state in dict.fromkeys(block):
        real = fake = torch.zeros((), dtype=torch.float64)
        for at in [index for index, own in enumerate(block) if own == state]:
            label = batch["labels"][at]
            real = real + log_p[at, label] - log_q[at, label]
            for token in range(log_p.shape[1]):  # E_{x0 ~ p_ref(. | x_t)}[log p_theta - log p_ref]
                fake = fake + log_q[at, token].exp() * (log_p[at, token] - log_q[at, token])
        terms.append(-logsigmoid(real) - torch.log(1 - torch.sigmoid(fake)))  # Eq. 7
    nll = -log_p.gather(-1, batch["labels"][:, None])[:, 0]
    path = (batch["token_weight"] * nll).sum() / num_responses  # Eq. 8
    return torch.stack(terms).mean() + path_weight * path  # Eq. 10


@pytest.fixture
def run(checkpoint, trajectories, tmp_path):
    """A student that is no longer its reference."""
    made = trainer(checkpoint, trajectories[:3], tmp_path, **preset_fields("paper"))
    disturb(made.model)
    made.model.eval()
    return made


def test_loss_and_gradients_are_those_of_the_slow_formula(run):
    batch = batch_of(run)
    assert batch["is_masked"].all()
    assert len(set(batch["loss_state"].tolist())) == batch["num_states"] > len(batch["sample_key"])
    with run.reference.active() as reference:
        reference_logits = loss_logits(reference, batch)
    student_logits = loss_logits(run.model, batch)
    expected = slow_loss(student_logits, reference_logits, batch, 3)
    loss = run.compute_loss(run.model, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    weights = list(run.model.parameters())
    mine = torch.autograd.grad(loss, weights)
    theirs = torch.autograd.grad(expected, weights)
    assert max(gradient.abs().max() for gradient in theirs) > 1e-3
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_no_position_by_vocabulary_tensor_is_made(run, monkeypatch):
    """The loss sees log-probabilities and divergences, [M]; what the reference hands over is [M, width]."""
    seen = []
    real = run.reference.head

    def head(hidden):
        seen.append(hidden.shape)
        return real(hidden)

    monkeypatch.setattr(run.reference, "head", head)
    batch = batch_of(run)
    run.compute_loss(run.model, batch)
    assert seen == [(len(batch["labels"]), run.model.config.hidden_size)]


def test_at_the_reference_the_fake_term_is_ln_2_and_pushes_nowhere(checkpoint, trajectories, tmp_path):
    """-KL is 0 there, its largest value, so its gradient is 0: Eq. 7's fake term alone is flat."""
    fields = preset_fields("paper") | {"path_weight": 0.0}
    run = trainer(checkpoint, trajectories, tmp_path, **fields, max_steps=1)
    batch = batch_of(run)
    grads = []
    for alpha in (1.0, 0.0):
        run.args.ddo_alpha = alpha
        loss = run.compute_loss(run.model.eval(), batch)
        assert loss.item() == pytest.approx((1 + alpha) * math.log(2), abs=1e-6)
        grads.append(torch.autograd.grad(loss, list(run.model.parameters())))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "placement", [{"reference_placement": "device"}, {"reference_placement": "cpu"}, {"lora_rank": 2}]
)
def test_it_trains_with_the_reference_wherever_it_is(checkpoint, trajectories, tmp_path, placement):
    settings = config(tmp_path, **preset_fields("paper"), **placement)
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    model = add_adapter(loaded.model, 2) if "lora_rank" in placement else loaded.model
    run = T3DTrainer(model, settings, trajectories, loaded.tokenizer)
    run.train()
    assert logged(run, "margin/fake")[0] == pytest.approx(0, abs=1e-6)
    assert logged(run, "margin/fake")[-1] < 0  # minus a divergence
    assert logged(run, "margin/real")[-1] > 0


@pytest.mark.parametrize("has_evaluator", [False, True])
def test_the_reference_is_the_best_student_where_students_are_scored(
    checkpoint, trajectories, tmp_path, has_evaluator
):
    """Scores 1, .5, .5: with an evaluator the untouched student stays the reference, else the latest is."""
    scores = iter([1.0, 0.5, 0.5])

    def evaluator(_model):
        return {"few_step_accuracy": next(scores)}

    settings = config(tmp_path, **preset_fields("paper"), max_steps=2, refresh_every=1)
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    before = [weight.detach().clone() for weight in loaded.model.parameters()]
    run = T3DTrainer(
        loaded.model,
        settings,
        trajectories,
        loaded.tokenizer,
        evaluator=evaluator if has_evaluator else None,
    )
    run.train()
    with run.reference.active() as reference:
        kept = all(torch.equal(one, other) for one, other in zip(before, reference.parameters(), strict=True))
    assert kept == has_evaluator

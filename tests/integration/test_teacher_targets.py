"""Soft targets of a block-diffusion teacher, on states that a rollout in few steps visited."""

from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from model_fixtures import exact
from next_token_helpers import predict_next
from soft_target_helpers import checked_logits, gradient, losses, masked_logits
from training_helpers import config

from t3d.errors import InputError
from t3d.models.loading import LoadedModel
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import Trajectory

SIZE = 4
LENGTHS = [(5, 15, 13), (8, 8, 8), (3, 9, 9)]
"""(prompt, response, of it visible) of rollouts in blocks of 4."""
FIELDS = {
    "objective": "cross_entropy",
    "state_source": "on_policy",
    "mask_ratio_power": 0.0,
    "path_weight": 0.0,
    "random_token_prob": 0.0,
    "block_size": SIZE,
    "soft_target_weight": 0.7,
}


def rollout(index, prompt, response, visible, mask):
    """Random letters; of each block the later half of the places in a second step."""
    generator = torch.Generator().manual_seed(index)
    ids = torch.randint(1, 200, (prompt + response,), generator=generator).tolist()
    places = range(prompt, prompt + response)
    return Trajectory(
        id=str(index),
        prompt_ids=tuple(ids[:prompt]),
        response_ids=tuple(ids[prompt:]),
        step_map=tuple(2 * (place // SIZE - prompt // SIZE) + 1 + (place * 7 % 5 > 2) for place in places),
        visible_length=visible,
        finish_reason="length",
        block_size=SIZE,
        mask_token_id=mask,
        decode_params={"remasking": "low_confidence_static", "steps_per_block": 2},
    )


@pytest.fixture
def rollouts(tiny_tokenizer):
    return [rollout(index, *lengths, tiny_tokenizer.mask_token_id) for index, lengths in enumerate(LENGTHS)]


@pytest.fixture
def network(make_model, tiny_tokenizer):
    """A new one for each call, in float64: by its seed the student or the teacher."""
    ids = {name: getattr(tiny_tokenizer, name) for name in ("mask_token_id", "eos_token_id", "pad_token_id")}
    return lambda seed, **fields: exact(
        make_model(**{"seed": seed, "vocab_size": len(tiny_tokenizer)} | ids | fields)
    )


@pytest.fixture
def teacher(network, tiny_tokenizer):
    def load(**fields):
        model = network(7, hidden_size=24, **fields)
        return LoadedModel(
            model=model,
            tokenizer=tiny_tokenizer,
            mask_token_id=tiny_tokenizer.mask_token_id,
            stop_token_ids=(tiny_tokenizer.eos_token_id,),
            vocab_size=model.config.vocab_size,
            source="teacher",
            weights_hash="of the teacher",
            checkpoint_dtype=torch.float64,
        )

    return load


@pytest.fixture
def learner(network, teacher, rollouts, tiny_tokenizer, tmp_path):
    def make(told=None, records=rollouts, student_rows=None, **fields):
        args = config(tmp_path, **FIELDS | fields)
        rows = {} if student_rows is None else {"vocab_size": student_rows}
        student = network(0, **rows)
        return T3DTrainer(student, args, records, tiny_tokenizer, soft_target_model=told or teacher())

    return make


def divergence(log_p, log_q, args):
    """One entry after the other: of the teacher's p and the student's q, in the direction of the settings."""
    if args.soft_target_top_k is not None:
        kept = sorted(range(len(log_p)), key=lambda v: -log_p[v].item())[: args.soft_target_top_k]
        rest = [v for v in range(len(log_p)) if v not in kept]
        log_p, log_q = (
            [*(values[v] for v in kept), sum(values[v].exp() for v in rest).log()]
            for values in (log_p, log_q)
        )
    pairs = list(zip(log_p, log_q, strict=True))
    if args.soft_target_direction == "reverse":
        return sum(q.exp() * (q - p) for p, q in pairs)
    return sum(p.exp() * (p - q) for p, q in pairs)


def written_out(model, told, run, batch):
    """(loss, how many positions are soft), position by position."""
    args, masked = run.args, defaultdict(set)
    for copy, place in zip(batch["loss_copy"].tolist(), batch["loss_position_ids"].tolist(), strict=True):
        masked[copy].add(place)
    total, num_soft = 0.0, 0
    for copy, places in masked.items():
        record = run.train_dataset.trajectories[copy]
        tokens, end = (
            [*record.prompt_ids, *record.response_ids],
            len(record.prompt_ids) + record.visible_length,
        )
        filler = set(range(end, len(tokens)))  # is masked with the last block, and takes no loss
        state = places | {place for place in filler if any(place // SIZE == one // SIZE for one in places)}
        said = masked_logits(model, record, state, SIZE, args.grid_origin)
        taught = masked_logits(told, record, state, SIZE, args.grid_origin)
        for place in sorted(places):
            log_q = said[place].log_softmax(-1)
            if args.soft_target_context == "before":
                taught[place] = checked_logits(told, record, place, SIZE, args.grid_origin)
            log_p = taught[place].log_softmax(-1).detach()
            own, below = log_p[tokens[place]].exp().item(), args.soft_target_below
            is_soft = own < below or below == 1
            share, num_soft = args.soft_target_weight * is_soft, num_soft + is_soft
            soft = divergence(log_p, log_q, args)
            total = total - (1 - share) * log_q[tokens[place]] + share * soft
    return total / len(batch["labels"]), num_soft


CASES = [
    {},
    {"soft_target_context": "state"},
    {"soft_target_direction": "reverse", "soft_target_weight": 1.0},
    {"soft_target_top_k": 3, "soft_target_context": "state"},
    {"soft_target_top_k": 5, "soft_target_direction": "reverse"},
    {"soft_target_below": 0.004},
    {"max_length": 32},
    {"state_source": "trajectory", "attention": "dense", "soft_target_context": "state"},
]


@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(fields) or "plain")
def test_the_loss_is_that_of_a_loop_over_positions_and_tokens(learner, teacher, network, fields):
    """Its value and its gradient, in float64; the teacher has none, and stays as it is."""
    told = teacher()
    run = learner(told, **fields)
    loss, found, (batch,) = losses(run, range(len(LENGTHS)))
    model = network(0)
    expected, num_soft = written_out(model, teacher().model, run, batch)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(found, gradient(model), rtol=1e-7, atol=1e-9)
    if "soft_target_below" in fields:
        assert 0 < num_soft < len(batch["labels"])
    kept = zip(told.model.parameters(), teacher().model.parameters(), strict=True)
    assert all(torch.equal(now, before) and not now.requires_grad for now, before in kept)


def test_micro_batches_sum_to_the_large_batch(learner):
    run = learner()
    (expected, large, _), (loss, small, _) = (losses(run, range(len(LENGTHS)), many) for many in (None, 1))
    assert loss == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(small, large, rtol=1e-8, atol=1e-9)


def test_a_rollout_teaches_left_to_right_of_an_autoregressive_model_on_its_own_states_only(learner, teacher):
    told = teacher()
    told = replace(told, model=predict_next(told.model))
    run = learner(told)
    assert "positions" in run.data_collator([run.train_dataset[0]])["soft_targets"]
    with pytest.raises(InputError, match="learns from texts, but trajectory '0' is a rollout"):
        learner(told, state_source="trajectory")


REFUSED = {
    "rows": ({"student_rows": 1000, "soft_target_direction": "reverse"}, "so it is infinite"),
    "top k": ({"soft_target_top_k": 10_000}, r"soft_target_top_k=10000: teacher has \d+ tokens"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked_is_refused(learner, name):
    fields, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        learner(**fields)
    if name == "rows":
        learner(**fields, soft_target_top_k=3)


def test_a_teacher_with_another_mask_or_the_student_itself_is_refused(learner, teacher):
    told = teacher()
    with pytest.raises(InputError, match="has mask token 5, trajectory '0'"):
        learner(replace(told, mask_token_id=5))
    run = learner(told)
    fields = {"processing_class": told.tokenizer, "soft_target_model": told}
    with pytest.raises(InputError, match="soft_target_model='teacher': is the student itself"):
        T3DTrainer(told.model, run.args, run.selection.kept, **fields)
    assert all(weight.requires_grad for weight in run.model.parameters())


@pytest.mark.parametrize(("field", "value"), [("below", 0.0), ("below", 1.5), ("top_k", 0)])
def test_numbers_that_cannot_be_are_refused(tmp_path, field, value):
    with pytest.raises(InputError, match=f"soft_target_{field}"):
        config(tmp_path, **FIELDS | {f"soft_target_{field}": value})

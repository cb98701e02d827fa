"""Soft targets of a block-diffusion teacher, or of the student itself, on states that a rollout visited."""

from dataclasses import replace

import pytest
import torch
from model_fixtures import exact
from next_token_helpers import predict_next
from soft_target_helpers import SIZE, gradient, losses, rollout, written_out
from training_helpers import config

from t3d.errors import InputError
from t3d.models.loading import LoadedModel
from t3d.training.lora import add_adapter, merge_adapter
from t3d.training.trainer import T3DTrainer

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
    def make(told=None, records=rollouts, student_rows=None, student=None, **fields):
        args = config(tmp_path, **FIELDS | fields)
        rows = {} if student_rows is None else {"vocab_size": student_rows}
        if told is None and args.soft_target_source == "teacher":
            told = teacher()
        student = network(0, **rows) if student is None else student
        return T3DTrainer(student, args, records, tiny_tokenizer, soft_target_model=told)

    return make


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


LATER = {"soft_target_context": "later_state"}
OWN = {"soft_target_source": "student"}
OF_LATER_STATES = [
    LATER,
    LATER | OWN,
    LATER | OWN | {"state_source": "trajectory"},
    LATER | {"state_source": "trajectory", "mask_ratios": (1.0, 0.5), "attention": "dense"},
    LATER | {"soft_target_top_k": 3, "max_length": 32},
    LATER | OWN | {"soft_target_direction": "reverse", "soft_target_weight": 1.0},
    OWN,
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


@pytest.fixture
def slow_rollouts(tiny_tokenizer):
    """Each token in a step of its own; no filler."""
    lengths = [(5, 15), (8, 8), (2, 10)]
    mask = tiny_tokenizer.mask_token_id
    return [rollout(number, *pair, pair[1], mask, num_steps=SIZE) for number, pair in enumerate(lengths)]


@pytest.mark.parametrize("fields", OF_LATER_STATES, ids=lambda fields: "-".join(map(str, fields.values())))
def test_targets_of_a_later_state_are_those_of_a_forward_of_it(
    learner, teacher, network, slow_rollouts, fields
):
    """No gradient flows into the student's own; places shown in it, and states without one, have none."""
    run = learner(records=slow_rollouts, **fields)
    loss, found, (batch,) = losses(run, range(len(LENGTHS)))
    model = network(0)
    told = network(0) if run.args.soft_target_source == "student" else teacher().model
    expected, num_soft = written_out(model, told, run, batch)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(found, gradient(model), rtol=1e-7, atol=1e-9)
    assert num_soft == batch["soft_targets"]["is_soft"].sum()
    is_later = run.args.soft_target_context == "later_state"
    assert 0 < num_soft < len(batch["labels"]) if is_later else num_soft == len(batch["labels"])


def test_a_rollout_of_one_step_has_no_later_states_and_learns_its_tokens(learner, slow_rollouts):
    """Beside others that have some; alone it is refused."""
    one = slow_rollouts[1]  # its prompt ends a block
    quick = replace(one, step_map=tuple(1 + place // SIZE for place in range(len(one.step_map))))
    records = [quick, slow_rollouts[0]]
    with pytest.raises(InputError, match="'later_state': every block of these rollouts was committed in one"):
        learner(records=records[:1], **LATER)
    (soft, _, (batch,)), (plain, _, _) = (
        losses(learner(records=records, **LATER | {"soft_target_weight": weight}), [0])
        for weight in (0.7, 1e-9)
    )
    assert not batch["soft_targets"]["is_soft"].any() and soft == pytest.approx(plain, rel=1e-7)


@pytest.mark.parametrize("fields", [{}, LATER | OWN], ids=["teacher", "student"])
def test_micro_batches_sum_to_the_large_batch(learner, fields):
    run = learner(**fields)
    (expected, large, _), (loss, small, _) = (losses(run, range(len(LENGTHS)), many) for many in (None, 1))
    assert loss == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(small, large, rtol=1e-8, atol=1e-9)


def adapted(model):
    """With an adapter that changes what it says, and drops half of its inputs in training."""
    torch.manual_seed(3)
    model = add_adapter(model, 2, dropout=0.5)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    return model


@pytest.mark.parametrize("fields", [{"lora_rank": 2}, {"bf16": True}], ids="-".join)
def test_the_student_s_targets_are_those_of_a_frozen_copy_of_it_as_it_is(learner, teacher, network, fields):
    """With its adapter, without its dropout, drawing no random number; under autocast, too."""
    found = []
    for source in ("teacher", "student"):
        told, student, copy = None, network(0), network(0)
        if "lora_rank" in fields:
            student, copy = adapted(student), merge_adapter(adapted(copy))
        else:
            student, copy = student.float(), copy.float()
        if source == "teacher":
            told = replace(teacher(), model=copy)
        run = learner(told, student=student, soft_target_source=source, **LATER | fields)
        run.model.train()
        torch.manual_seed(0)
        loss, slope, _ = losses(run, range(len(LENGTHS)))
        assert all(module.training for module in run.model.modules())
        found.append((torch.tensor(loss), slope))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-8)
    assert found[0][1].norm() > 0


def test_a_rollout_teaches_left_to_right_of_an_autoregressive_model_on_its_own_states_only(learner, teacher):
    told = teacher()
    told = replace(told, model=predict_next(told.model))
    run = learner(told)
    assert "positions" in run.data_collator([run.train_dataset[0]])["soft_targets"]
    with pytest.raises(InputError, match="learns from texts, but trajectory '0' is a rollout"):
        learner(told, state_source="trajectory")


REFUSED = {
    "rows": ({"student_rows": 1000, "soft_target_direction": "reverse"}, "so it is infinite"),
    "top k of its own": (OWN | {"soft_target_top_k": 10_000}, "soft_target_top_k=10000: the student has"),
    "a teacher beside": (
        OWN | {"told": True},
        "soft_target_model='teacher': ignored: soft_target_source='student' asks the student itself",
    ),
    "top k": ({"soft_target_top_k": 10_000}, r"soft_target_top_k=10000: teacher has \d+ tokens"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked_is_refused(learner, teacher, name):
    fields, message = REFUSED[name]
    if "told" in fields:
        fields = fields | {"told": teacher()}
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

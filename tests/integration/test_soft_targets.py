"""Soft targets: of a masked token, what an autoregressive model says there behind all tokens before it."""

import json
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from model_fixtures import exact, load_copy
from next_token_helpers import next_logits, predict_next
from safetensors import safe_open
from soft_target_helpers import gradient, losses, masked_logits
from training_helpers import config, logged, weights

from t3d.errors import InputError
from t3d.models.loading import LoadedModel
from t3d.training.presets import PRESETS, preset_fields
from t3d.training.run import distil
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import Trajectory
from t3d.work.checkpoints import checkpoints

pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
SFT, WEIGHT, SIZE = preset_fields("sft"), 0.7, 4
LENGTHS = [(5, 23, 21), (7, 5, 5), (3, 9, 6), (1, 8, 7), (2, 10, 10)]
"""(prompt, response, of it visible) of texts in blocks of 4. The last two end inside a block."""
ROWS = 64
"""Tokens that only the student has rows for."""


@pytest.fixture(scope="module")
def texts(tiny_tokenizer):
    """Random letters, and pads behind the end: nobody decoded them."""

    def text(index, prompt, response, visible):
        generator = torch.Generator().manual_seed(index)
        ids = torch.randint(1, 200, (prompt + visible,), generator=generator).tolist()
        ids += [tiny_tokenizer.pad_token_id] * (response - visible)
        return Trajectory(
            id=str(index),
            prompt_ids=tuple(ids[:prompt]),
            response_ids=tuple(ids[prompt:]),
            step_map=tuple(range(1, response + 1)),
            visible_length=visible,
            finish_reason="length",
            block_size=SIZE,
            mask_token_id=tiny_tokenizer.mask_token_id,
            terminal_complete=(prompt + response) % SIZE == 0,
            decode_params={"source": "texts"},
        )

    return [text(index, *lengths) for index, lengths in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def ids(tiny_tokenizer):
    names = ("mask_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(tiny_tokenizer, name) for name in names}


@pytest.fixture
def student(make_model, tiny_tokenizer, ids):
    """A new one for each call, in float64, with rows to spare."""
    return lambda: exact(make_model(vocab_size=len(tiny_tokenizer) + ROWS, **ids))


@pytest.fixture
def source(make_model, tiny_tokenizer, ids):
    """An autoregressive model of another width and fewer rows, in float64."""

    def load(rows=None, model=predict_next, **changes):
        rows = rows or len(tiny_tokenizer)
        network = exact(make_model(seed=7, vocab_size=rows, hidden_size=24, **ids))
        loaded = LoadedModel(
            model=model(network),
            tokenizer=tiny_tokenizer,
            mask_token_id=tiny_tokenizer.mask_token_id,
            stop_token_ids=(tiny_tokenizer.eos_token_id,),
            vocab_size=rows,
            source="source",
            weights_hash="of the source",
            checkpoint_dtype=torch.float64,
        )
        return replace(loaded, **changes)

    return load


@pytest.fixture
def learner(student, source, texts, tiny_tokenizer, tmp_path):
    def make(told="its source", records=texts, **fields):
        args = config(tmp_path, **SFT | {"block_size": SIZE, "soft_target_weight": WEIGHT} | fields)
        told = source() if told == "its source" else told
        return T3DTrainer(student(), args, records, tiny_tokenizer, soft_target_model=told)

    return make


def written_out(model, told, run, batch):
    """(the loss with soft targets, the cross-entropy, the divergence), summed over positions and divided."""
    args, masked = run.args, defaultdict(set)
    where = zip(*(batch[name].tolist() for name in ("loss_copy", "loss_position_ids")), strict=True)
    for copy, place in where:
        masked[copy].add(place)
    inverse_prob = iter((1 / batch["mask_prob"]).tolist())
    total = hard = soft = 0.0
    for copy in sorted(masked):
        record = run.train_dataset.trajectories[copy % len(LENGTHS)]
        tokens = [*record.prompt_ids, *record.response_ids]
        visible = len(record.prompt_ids) + record.visible_length
        said = masked_logits(model, record, masked[copy], SIZE, args.grid_origin)
        for place in sorted(masked[copy]):
            weight = next(inverse_prob)
            log_q = said[place].log_softmax(-1)
            cross_entropy = -log_q[tokens[place]]
            divergence, share = 0.0, 0.0
            if place < visible:
                log_p = next_logits(told.model, tokens[:place])[-1].log_softmax(-1)
                divergence = sum(log_p[v].exp() * (log_p[v] - log_q[v]) for v in range(len(log_p)))
                share = args.soft_target_weight
            total = total + weight * ((1 - share) * cross_entropy + share * divergence)
            hard, soft = hard + weight * cross_entropy, soft + weight * divergence
    count = batch["num_response_tokens"]
    return total / count, hard / count, soft / count


CASES = [
    {},
    {"max_length": 32, "soft_target_weight": 1.0},
    {"grid_origin": "response"},
    {"complementary_states": True, "attention": "dense"},
    {"gradient_checkpointing": True},
]


@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(fields) or "plain")
def test_the_loss_is_that_of_a_forward_per_token(learner, source, student, fields):
    """Its value, its parts and its gradient, in float64; filler keeps the cross-entropy."""
    run = learner(**fields)
    loss, found, (batch,) = losses(run, range(len(LENGTHS)))
    assert not batch["soft_targets"]["is_soft"].all()
    model = student()
    expected, hard, soft = written_out(model, source(), run, batch)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(found, gradient(model), rtol=1e-7, atol=1e-9)
    logs = run.metric_log.collect(1, lambda values: values)
    assert logs["loss/cross_entropy"] == pytest.approx(hard.item(), rel=1e-6)
    assert logs["loss/soft_targets"] == pytest.approx(soft.item(), rel=1e-6)


@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_sum_to_the_large_batch(learner, size):
    """A text alone has the targets that it has beside longer ones."""
    run = learner()
    (expected, large, _), (loss, small, _) = (losses(run, range(len(LENGTHS)), many) for many in (None, size))
    assert loss == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(small, large, rtol=1e-8, atol=1e-9)


def test_it_learns_them_and_leaves_the_model_alone(learner, source, tmp_path):
    """The divergence falls; the model is as it was, without gradients, and no part of a checkpoint."""
    told = source()
    fields = {"noise_refresh": "once", "per_device_train_batch_size": len(LENGTHS), "max_steps": 8}
    fields |= {"soft_target_weight": 1.0, "learning_rate": 3e-3}
    run = learner(told, **fields, save_strategy="steps", save_steps=8)
    run.train()
    first, *_, last = logged(run, "loss/soft_targets")
    assert last < 0.8 * first
    kept = zip(told.model.parameters(), source().model.parameters(), strict=True)
    assert all(torch.equal(now, before) and not now.requires_grad for now, before in kept)
    (folder,) = checkpoints(tmp_path)
    with safe_open(folder / "model.safetensors", framework="pt") as saved:
        assert set(saved.keys()) == set(run.model.state_dict())
    assert not list(folder.glob("reference*"))


def test_without_a_weight_the_batch_and_the_weights_are_the_same_to_the_last_bit(learner):
    results = []
    for field in ({"soft_target_weight": 0.0}, {"soft_target_weight": 0}, {"soft_target_weight": 0.5}):
        has_targets = field["soft_target_weight"] > 0
        run = learner("its source" if has_targets else None, max_steps=2, **field)
        assert ("soft_targets" in run.data_collator([run.train_dataset[0]])) is has_targets
        run.train()
        assert bool(logged(run, "loss/soft_targets")) is has_targets
        results.append(weights(run))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_a_run_with_another_model_is_not_continued(checkpoint, source, texts, tmp_path):
    fields = SFT | {"block_size": SIZE, "max_steps": 1}
    for weight, changes, expected in (
        (0.5, {}, None),
        (0.5, {}, None),
        (
            0.5,
            {"weights_hash": "of another"},
            r"soft_target_model\.weights was of the source, now of another",
        ),
        (0.25, {}, r"soft_target_weight was 0\.5, now 0\.25"),
        (0, None, r"soft_target_model\.\w+ was .*, now not given"),
    ):
        told = None if changes is None else source(**changes)
        loaded = load_copy(checkpoint)
        args = config(tmp_path / "run", soft_target_weight=weight, **fields)
        if expected is None:
            distil(loaded, texts, args, tmp_path / "student", soft_target_model=told)
            continue
        with pytest.raises(InputError, match=expected):
            distil(loaded, texts, args, tmp_path / "student", soft_target_model=told)


def test_a_run_on_its_own_soft_targets_is_not_continued_on_a_teacher_s(checkpoint, source, texts, tmp_path):
    fields = SFT | {"block_size": SIZE, "max_steps": 1, "soft_target_weight": 0.5}
    for told_by in ("student", "student", "teacher"):
        args = config(tmp_path / "run", soft_target_source=told_by, **fields)
        how = {"soft_target_model": source()} if told_by == "teacher" else {}
        line = load_copy(checkpoint), texts, args, tmp_path / "student"
        if told_by == "student":
            plan = json.loads((distil(*line, **how) / "training.json").read_text())["plan"]
            assert plan["soft_target_source"] == "student" and "soft_target_model" not in plan
            continue
        with pytest.raises(InputError, match=r"soft_target_model\.\w+ was not given"):
            distil(*line, **how)


REFUSED = {
    "no model": (None, {}, r"soft_target_weight=0\.7: no model gives such targets"),
    "no weight": ({}, {"soft_target_weight": 0}, "soft_target_model='source': ignored: soft_target_weight=0"),
    "a state": (
        {},
        {"soft_target_context": "state"},
        "soft_target_context='state': source predicts the next",
    ),
    "rows": ({"rows": 1000}, {}, "soft_target_model='source': has rows for 1000 tokens, the student for "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_and_a_weight_that_do_not_fit_are_refused(learner, source, name):
    changes, fields, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        learner(None if changes is None else source(**changes), **fields)


def test_a_model_of_other_tokens_is_refused(learner, source, tiny_tokenizer):
    """One with fewer is not: the student may have some that its conversion added."""
    added = type(tiny_tokenizer)(tokenizer_object=tiny_tokenizer.backend_tokenizer)
    added.add_tokens(["<|more|>"])
    message = r"soft_target_model='source': its tokenizer is another one.*no token '<\|more\|>' of that id"
    with pytest.raises(InputError, match=message):
        learner(source(tokenizer=added))


def test_records_that_the_model_cannot_read_are_refused(learner, source, texts, tiny_tokenizer):
    more = replace(texts[0], response_ids=(len(tiny_tokenizer), *texts[0].response_ids[1:]))
    with pytest.raises(InputError, match=f"has no token {len(tiny_tokenizer)}, which is in trajectory '0'"):
        learner(records=[more])
    told = source()
    told.model.config.max_position_embeddings = 20
    with pytest.raises(InputError, match="reads 20 tokens, but trajectory '0' has 26"):
        learner(told)
    rollout = replace(texts[0], decode_params={"remasking": "low_confidence_static"})
    with pytest.raises(InputError, match="learns from texts, but trajectory '0' is a rollout"):
        learner(records=[rollout])


@pytest.mark.parametrize("preset", PRESETS)
def test_only_cross_entropy_has_them(tmp_path, preset):
    fields = preset_fields(preset) | {"soft_target_weight": 0.1}
    if fields.get("objective") == "cross_entropy":
        assert config(tmp_path, **fields).soft_target_weight == 0.1
        return
    with pytest.raises(InputError, match=r"soft_target_weight=0.1: a term of the cross-entropy, with object"):
        config(tmp_path, **fields)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_weight_is_a_share(tmp_path, value):
    with pytest.raises(InputError, match="soft_target_weight"):
        config(tmp_path, **SFT | {"soft_target_weight": value})

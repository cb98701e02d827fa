"""The cross-entropy of tokens as ``left_to_right`` decoding draws them, as a term of training."""

from collections import Counter

import pytest
import torch
from model_fixtures import exact
from training_helpers import config, logged, trainer, weights

from t3d.attention.forward import block_forward
from t3d.errors import InputError
from t3d.models.adopted import T3DLlamaConfig, T3DLlamaForCausalLM
from t3d.models.loading import load_model
from t3d.training.presets import PRESETS, preset_fields
from t3d.training.run import distil
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
SFT, WEIGHT = preset_fields("sft"), 0.7
LENGTHS = [(5, 22), (7, 3), (3, 9), (2, 10)]
"""(prompt, response) of some texts in blocks of 4: none begins with a block, and the first two end inside
one, whose rest nobody knows."""


def text(index, prompt, response, tokenizer):
    """Random letters; the last token of a response takes no loss, as filler behind a stop token."""
    generator = torch.Generator().manual_seed(index)
    ids = torch.randint(1, 200, (prompt + response,), generator=generator).tolist()
    return Trajectory(
        id=str(index),
        prompt_ids=tuple(ids[:prompt]),
        response_ids=tuple(ids[prompt:]),
        step_map=tuple(range(1, response + 1)),
        visible_length=response - 1,
        finish_reason="length",
        block_size=4,
        mask_token_id=tokenizer.mask_token_id,
        terminal_complete=(prompt + response) % 4 == 0,
    )


@pytest.fixture
def texts(tiny_tokenizer):
    return [text(index, *pair, tiny_tokenizer) for index, pair in enumerate(LENGTHS)]


@pytest.fixture(scope="session")
def make_student(make_model, tiny_tokenizer):
    """Tiny models in float64 by their kind, norms included; a new one for each call."""

    def make(kind="sdar"):
        names = {"mask": "mask_token_id", "eos": "eos_token_id", "pad": "pad_token_id"}
        ids = {name: getattr(tiny_tokenizer, name) for name in names.values()}
        sdar = make_model(vocab_size=len(tiny_tokenizer), **ids)
        if kind == "sdar":
            return exact(sdar)
        names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "initializer_range")
        names += ("num_attention_heads", "num_key_value_heads", *ids)
        fields = sdar.config.to_dict()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = T3DLlamaForCausalLM(T3DLlamaConfig(**{name: fields[name] for name in names}))
        return exact(model.double().eval())

    return make


def written_out(model, texts, block_size, origin="prompt"):
    """(-log p of all tokens that take loss, how many): one forward for each token, ended by one mask."""
    total, count = 0.0, 0
    for record in texts:
        tokens, num_prompt = [*record.prompt_ids, *record.response_ids], len(record.prompt_ids)
        shift = num_prompt if origin == "response" else 0
        for position in range(num_prompt, num_prompt + record.visible_length):
            block = [(place - shift) // block_size for place in range(position + 1)]
            sees = [
                [
                    block[key] <= block[query] if block[query] < block[position] else key <= query
                    for key in range(position + 1)
                ]
                for query in range(position + 1)
            ]
            ids = torch.tensor([[*tokens[:position], record.mask_token_id]])
            places = torch.arange(position + 1)[None]
            logits = block_forward(model, ids, places, torch.tensor([sees]))[0, -1]
            total = total - logits.log_softmax(-1)[tokens[position]]
            count += 1
    return total, count


def learner(model, texts, tokenizer, folder, **fields):
    """A trainer of these texts, without filler among what takes loss."""
    fields = SFT | {"terminal_filler_loss": False} | fields
    return T3DTrainer(model, config(folder, **fields), texts, processing_class=tokenizer)


def losses(run, indices, size=None):
    """Loss and gradient of an accumulated batch, in micro-batches of ``size`` texts."""
    size = size or len(indices)
    chunks = [indices[first : first + size] for first in range(0, len(indices), size)]
    batches = [run.data_collator([run.train_dataset[index] for index in chunk]) for chunk in chunks]
    counts = run._get_num_items_in_batch(batches, torch.device("cpu"))
    run.model.zero_grad()
    if run.args.gradient_checkpointing:  # as Trainer.train does
        run.model.activation_checkpointing_enable({"use_reentrant": False})
        assert run.model.is_gradient_checkpointing
    loss = sum(run.training_step(run.model, batch, counts).item() for batch in batches)
    return loss, torch.cat([weight.grad.flatten() for weight in run.model.parameters()]).clone()


CASES = [
    {},
    {"max_length": 30},
    {"grid_origin": "response"},
    {"attention": "dense", "max_length": 40},
    {"complementary_states": True},
    {"path_weight": 0.2, "random_token_prob": 0.1},
    {"gradient_checkpointing": True},
]


@pytest.mark.parametrize(
    ("kind", "block_size"),
    [
        ("sdar", 4),
        ("llama", 1),
        pytest.param("sdar", 1, marks=pytest.mark.slow),
        pytest.param("llama", 4, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("fields", CASES, ids=lambda fields: "-".join(fields) or "plain")
def test_the_term_is_that_of_a_forward_per_token(
    make_student, texts, tiny_tokenizer, tmp_path, kind, block_size, fields
):
    """Its loss and its gradient, which are what a weight adds to those without it, in float64."""
    found = []
    for weight in (WEIGHT, 0.0):
        run = learner(
            make_student(kind),
            texts,
            tiny_tokenizer,
            tmp_path,
            block_size=block_size,
            left_to_right_weight=weight,
            **fields,
        )
        found.append(losses(run, range(len(texts))))
    model = make_student(kind)
    total, count = written_out(model, texts, block_size, fields.get("grid_origin", "prompt"))
    expected = WEIGHT * total / count
    expected.backward()
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    (loss, summed), (plain_loss, plain) = found
    assert loss - plain_loss == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(summed - plain, gradient, rtol=1e-8, atol=1e-9)


def test_rows_are_as_long_as_asked_for_and_a_block_of_masks(make_student, texts, tiny_tokenizer, tmp_path):
    """A response that is cut is cut at its check masks, too; each of its tokens takes loss once."""
    fields = {"block_size": 4, "max_length": 30, "left_to_right_weight": WEIGHT}
    run = learner(make_student(), texts, tiny_tokenizer, tmp_path, **fields)
    batch = run.data_collator([run.train_dataset[index] for index in range(len(texts))])
    checks = batch["checks"]
    assert len(batch["documents"]) > len(texts) and len(checks["documents"]) > len(texts)
    assert checks["input_ids"].shape[1] <= 34
    expected = Counter(token for record in texts for token in record.response_ids[: record.visible_length])
    assert Counter(checks["labels"].tolist()) == expected
    is_mask = checks["input_ids"].flatten()[checks["loss_positions"]] == tiny_tokenizer.mask_token_id
    assert is_mask.all()


@pytest.mark.parametrize("size", [1, 3])
def test_micro_batches_sum_to_the_large_batch(make_student, texts, tiny_tokenizer, tmp_path, size):
    fields = {"block_size": 4, "left_to_right_weight": WEIGHT}
    run = learner(make_student(), texts, tiny_tokenizer, tmp_path, **fields)
    expected_loss, expected = losses(run, range(len(texts)))
    loss, gradient = losses(run, range(len(texts)), size)
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-9)


def test_it_makes_the_student_better_left_to_right(make_student, texts, tiny_tokenizer, tmp_path):
    """A few steps on four texts with and without it: the loss of a forward per token, before and after."""
    after = {}
    for weight in (0.0, 1.0):
        fields = {"block_size": 4, "left_to_right_weight": weight, "max_steps": 6}
        run = learner(make_student(), texts, tiny_tokenizer, tmp_path, **fields)
        run.train()
        with torch.no_grad():
            total, count = written_out(run.model.eval(), texts, 4)
        after[weight] = (total / count).item()
    with torch.no_grad():
        total, count = written_out(make_student(), texts, 4)
    before = (total / count).item()
    assert before - after[1.0] > 1.5 * (before - after[0.0])
    first, *_, last = logged(run, "loss/left_to_right")
    assert first == pytest.approx(before, rel=1e-6) and last < first
    total = logged(run, "loss/cross_entropy")[0] + first
    assert logged(run, "loss/total")[0] == pytest.approx(total)


def test_without_a_weight_there_is_neither_a_forward_nor_a_batch_more(
    checkpoint, trajectories, tmp_path, monkeypatch
):
    """And the weights are, bit for bit, those of a configuration that does not name it."""
    results, forwards = [], Counter()
    for weight in ({}, {"left_to_right_weight": 0}, {"left_to_right_weight": 0.5}):
        run = trainer(checkpoint, trajectories, tmp_path, max_steps=2, **SFT | weight)
        name = str(weight)
        run.model.register_forward_hook(lambda *_, name=name: forwards.update([name]))
        batch = run.data_collator([run.train_dataset[0]])
        assert ("checks" in batch) is (weight.get("left_to_right_weight", 0) > 0)
        run.train()
        assert bool(logged(run, "loss/left_to_right")) is ("checks" in batch)
        results.append(weights(run))
    assert list(forwards.values()) == [2, 2, 4]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_an_adapter_learns_it_too(checkpoint, trajectories, tmp_path):
    fields = SFT | {"left_to_right_weight": 1.0, "lora_rank": 4, "learning_rate": 0.01, "max_steps": 8}
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    distil(loaded, trajectories, config(tmp_path / "run", **fields), tmp_path / "student")
    before, after = (
        written_out(load_model(folder, device="cpu", dtype="float64").model, trajectories[:2], 8)[0]
        for folder in (checkpoint, tmp_path / "student")
    )
    assert after < before


def test_a_run_with_another_weight_is_not_continued(checkpoint, trajectories, tmp_path):
    for weight, expected in ((0.5, None), (0.5, None), (0.25, "left_to_right_weight was 0.5, now 0.25")):
        loaded = load_model(checkpoint, device="cpu")
        fields = SFT | {"max_steps": 1, "left_to_right_weight": weight}
        args = config(tmp_path / "run", **fields)
        if expected is None:
            distil(loaded, trajectories, args, tmp_path / "student")
        else:
            with pytest.raises(InputError, match=expected):
                distil(loaded, trajectories, args, tmp_path / "student")


@pytest.mark.parametrize("preset", PRESETS)
def test_only_cross_entropy_has_it(tmp_path, preset):
    fields = preset_fields(preset) | {"left_to_right_weight": 0.1}
    if fields.get("objective") == "cross_entropy":
        assert config(tmp_path, **fields).left_to_right_weight == 0.1
        return
    with pytest.raises(InputError, match=r"left_to_right_weight=0.1: a term of the cross-entropy, with obj"):
        config(tmp_path, **fields)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_weight_is_a_number_of_zero_or_more(tmp_path, value):
    with pytest.raises(InputError, match="left_to_right_weight"):
        config(tmp_path, **SFT | {"left_to_right_weight": value})

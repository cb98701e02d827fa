"""Noisy tokens alone behind kept clean keys: the losses and gradients of the forward over both copies."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from grid_helpers import PAD, examples_of
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import exact

from t3d.attention.packed_forward import arrange, packed_forward
from t3d.attention.two_passes import noisy_alone
from t3d.models.adopted import T3DLlamaConfig, T3DLlamaForCausalLM, T3DQwen2Config, T3DQwen2ForCausalLM
from t3d.models.gated import add_gated_adapter
from t3d.training.config import T3DConfig
from t3d.training.presets import preset_fields
from t3d.training.states import TrajectoryCollator

MASK = 39
LENGTHS = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=6)
ADOPTED = {"llama": (T3DLlamaForCausalLM, T3DLlamaConfig), "qwen2": (T3DQwen2ForCausalLM, T3DQwen2Config)}
KINDS = ["sdar", "moe", *ADOPTED]


@pytest.fixture(scope="session")
def make_base(make_model, make_moe_model, tiny_config):
    """Frozen tiny models in float64 by their kind; a new one for each call."""

    def make(kind):
        if kind in ("sdar", "moe"):
            model = {"sdar": make_model, "moe": make_moe_model}[kind]()
        else:
            names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "pad_token_id")
            names += ("num_attention_heads", "num_key_value_heads", "initializer_range", "eos_token_id")
            fields = tiny_config().to_dict()
            model_class, config_class = ADOPTED[kind]
            model = model_class(config_class(**{name: fields[name] for name in names})).double().eval()
        return exact(model).requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def make_drafter(make_base):
    """One adapter with random weights for each kind."""

    @cache
    def make(kind, mask_token_id=MASK):
        adapter = add_gated_adapter(make_base(kind), 2, mask_token_id=mask_token_id)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(3)
            for weight in adapter.parameters():
                weight.copy_(0.2 * torch.randn_like(weight))
        return adapter

    return make


@cache
def config(folder, **options):
    return T3DConfig(output_dir=folder, use_cpu=True, **(preset_fields("drafter") | options))


def drafts(lengths, folder, **options):
    """A batch of the trainer's collator, of responses of which every other is cut."""
    examples = examples_of(lengths)
    examples = [replace(example, is_cut=index % 2 == 0) for index, example in enumerate(examples)]
    args = config(folder, **options)
    return TrajectoryCollator(config=args, pad_token_id=PAD, mask_token_id=MASK, vocab_size=40)(examples)


def scored(adapter, batch, *, alone):
    """(log-probabilities of the labels, gradients of all weights of the adapter of a weighted sum)."""
    adapter.zero_grad()
    arrangement, positions = arrange(batch, "documents"), batch
    if alone:
        positions, arrangement = noisy_alone(adapter.base, batch, arrangement)
        assert positions["input_ids"].numel() == int(batch["is_noisy"].sum())
    options = {name: positions[name] for name in ("loss_positions", "gated_positions")}
    scores = packed_forward(adapter, positions, arrangement, targets=batch["labels"][None], **options)
    log_prob_M = scores.log_probs[0]
    (log_prob_M * torch.linspace(-1, 2, len(log_prob_M))).sum().backward()
    return [log_prob_M.detach(), *(weight.grad.clone() for weight in adapter.parameters())]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@settings(max_examples=5)
@given(LENGTHS, st.sampled_from([1, 4, 8]), st.sampled_from([None, 56]), st.integers(0, 3))
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_those_of_both_copies(
    make_drafter, tmp_path_factory, kind, lengths, block_size, max_length, seed
):
    """Ragged groups, responses cut into pieces, rows with padding; an embedding of its own for masks."""
    folder = str(tmp_path_factory.getbasetemp() / "drafts")
    options = {"block_size": block_size, "max_length": max_length, "seed": seed}
    batch, adapter = drafts(lengths, folder, **options), make_drafter(kind)
    assert_same(*(scored(adapter, batch, alone=alone) for alone in (True, False)))


@pytest.fixture
def folder(tmp_path_factory):
    return str(tmp_path_factory.getbasetemp() / "drafts")


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(make_drafter, folder, kind):
    """So that equal gradients are not those of nothing."""
    batch = drafts([(5, 30), (12, 19), (3, 9)], folder, block_size=4)
    assert all(one.abs().max() > 1e-3 for one in scored(make_drafter(kind), batch, alone=True))


@pytest.mark.parametrize("kind", ["sdar", "llama"])
def test_layers_that_a_backward_runs_again_have_the_same_clean_keys(make_base, folder, kind):
    """Though a forward of another batch came between."""
    batch = drafts([(5, 30), (12, 19), (3, 9)], folder, block_size=4)
    other = drafts([(8, 8)], folder, block_size=4)
    adapter = add_gated_adapter(make_base(kind), 2, mask_token_id=MASK)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(0.2 * torch.randn_like(weight))
    expected = scored(adapter, batch, alone=False)
    adapter.train()
    adapter.activation_checkpointing_enable({"use_reentrant": False})
    assert_same(scored(adapter, batch, alone=True), expected)
    adapter.zero_grad()
    noisy, arrangement = noisy_alone(adapter.base, batch, arrange(batch, "documents"))
    options = {name: noisy[name] for name in ("loss_positions", "gated_positions")}
    scores = packed_forward(adapter, noisy, arrangement, targets=batch["labels"][None], **options)
    noisy_alone(adapter.base, other, arrange(other, "documents"))
    log_prob_M = scores.log_probs[0]
    (log_prob_M * torch.linspace(-1, 2, len(log_prob_M))).sum().backward()
    assert_same([weight.grad for weight in adapter.parameters()], expected[1:])


@pytest.mark.parametrize("lengths", [[(2, 2)], [(2, 2), (3, 1)], [(2, 2), (9, 9)], [(7, 2), (1, 3), (6, 2)]])
def test_a_first_block_has_no_clean_token_before_it(make_drafter, folder, lengths):
    """Documents of noisy tokens alone: all of them, or some of a group."""
    batch = drafts(lengths, folder, block_size=4)
    assert (batch["documents"][:, 1] == 0).any()
    adapter = make_drafter("sdar")
    assert_same(*(scored(adapter, batch, alone=alone) for alone in (True, False)))


def test_the_base_runs_each_clean_token_once_and_no_padding(make_drafter, folder):
    batch = drafts([(5, 30), (12, 19), (3, 9)], folder, block_size=4, max_length=64)
    adapter = make_drafter("sdar")
    seen = []
    handle = adapter.base.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((kwargs["input_ids"].numel(), torch.is_grad_enabled())),
        with_kwargs=True,
    )
    scored(adapter, batch, alone=True)
    handle.remove()
    _, clean_D, noisy_D = batch["documents"].unbind(1)
    assert seen == [(int(clean_D.sum()), False), (int(noisy_D.sum()), True)]
    assert sum(size for size, _ in seen) < batch["input_ids"].numel()


def test_one_document_and_equal_ones_are_read_in_place(make_base, folder):
    base = make_base("sdar")
    for lengths in ([(8, 100)], [(8, 40)] * 3, [(8, 40), (8, 80), (8, 40)]):
        batch = drafts(lengths, folder, block_size=4)
        _, arrangement = noisy_alone(base, batch, arrange(batch, "documents"))
        plan = arrangement.arguments["document_plan"]
        assert plan.place_T is None
        assert all(isinstance(group.tokens, slice) for group in plan.groups)


def test_other_attention_runs_both_copies(make_base, folder):
    batch = drafts([(5, 30)], folder, block_size=4)
    arrangement = arrange(batch, "dense")
    assert noisy_alone(make_base("sdar"), batch, arrangement) == (batch, arrangement)


def test_under_autocast_both_are_as_near_as_bfloat16_is(make_model, folder):
    """Norms give float32 there, and values come narrow."""
    batch = drafts([(5, 30), (12, 19)], folder, block_size=4)
    adapter = add_gated_adapter(make_model(dtype=torch.float32).requires_grad_(False), 2)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.copy_(0.1 * torch.randn_like(weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = (scored(adapter, batch, alone=alone) for alone in (True, False))
    torch.testing.assert_close(ours[0], theirs[0], atol=0.15, rtol=0.1)

"""The exact parts of a plan's memory: parameters, optimizer, references, activations, head, cache."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from t3d.attention.slots import SlotCache
from t3d.models.head import head_scores
from t3d.models.linear_layers import TARGET_MODULES
from t3d.models.sdar import SDARConfig, SDARForCausalLM, SDARMoeConfig, SDARMoeForCausalLM
from t3d.planning.known import PUBLISHED, published_shape
from t3d.planning.memory import (
    Decoding,
    Step,
    head_bytes,
    layer_bytes_per_token,
    optimizer_bytes,
    position_bytes,
    rollout_bytes,
    training_bytes,
)
from t3d.planning.shape import Shape, shape_of
from t3d.training.lora import add_adapter

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
from training_sides import Setting, make_side

TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 256,
}
MIXTURE = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}


def shape(**changes) -> Shape:
    return shape_of(SDARConfig(**TINY | changes))


def step(**changes) -> Step:
    fields = {"shape": shape(), "num_trajectories": 2, "prompt_tokens": 16, "response_tokens": 24}
    return Step(**fields | changes)


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_as_the_model_has_them(tied):
    config = SDARConfig(**TINY, tie_word_embeddings=tied)
    model, found = SDARForCausalLM(config), shape_of(config)
    assert found.num_parameters == sum(weight.numel() for weight in model.parameters())
    assert found.num_tensors == len(list(model.parameters()))
    tables = found.table_parameters * (1 if tied else 2)
    assert found.visited_parameters == found.num_parameters - tables
    assert found.layer_parameters == sum(weight.numel() for weight in model.model.layers[0].parameters())


def test_a_token_visits_its_experts_and_no_others():
    config = SDARMoeConfig(**TINY, **MIXTURE, tie_word_embeddings=False)
    model, found = SDARMoeForCausalLM(config), shape_of(config)
    experts = sum(weight.numel() for name, weight in model.named_parameters() if ".experts." in name)
    assert found.num_parameters == sum(weight.numel() for weight in model.parameters())
    assert found.visited_parameters == found.num_parameters - 2 * found.table_parameters - experts // 2
    assert (found.mlp_width, found.experts_per_token) == (48, 2)


def test_an_adapter_has_the_parameters_that_peft_gives_it():
    pytest.importorskip("peft")
    adapted = add_adapter(SDARForCausalLM(SDARConfig(**TINY)), 4)
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert shape().adapter_parameters(4, TARGET_MODULES) == trained


def test_the_optimizer_takes_what_adamw_keeps():
    model = SDARForCausalLM(SDARConfig(**TINY))
    optimizer = torch.optim.AdamW(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    kept = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    found = shape()
    assert optimizer_bytes(found.num_parameters, found.num_tensors) == kept


def test_the_published_4b_model_has_as_many_parameters_as_its_files():
    assert published_shape("JetLM/SDAR-4B-Chat").num_parameters == pytest.approx(4.4e9, rel=0.005)
    assert all(name.startswith("JetLM/SDAR-") for name in PUBLISHED)


def saved_bytes(length: int, num_layers: int, *, autocast: bool, rank: int) -> int:
    """Of all tensors that autograd keeps of a micro-batch of two trajectories."""
    model = {**TINY, "num_hidden_layers": num_layers}
    how = {"has_autocast": autocast, "lora_rank": rank, "micro_batch": 2}
    side = make_side("ours", Setting(model=model, lengths=[(16, length)] * 2, **how))
    weights = {weight.untyped_storage().data_ptr() for weight in side.student.parameters()}
    kept, sizes = [], {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        side.accumulate(range(2))
    return sum(sizes.values())


@pytest.mark.parametrize(
    ("autocast", "rank"),
    [
        (False, 0),
        (True, 4),
        pytest.param(True, 0, marks=pytest.mark.slow),
        pytest.param(False, 4, marks=pytest.mark.slow),
    ],
)
def test_a_layer_keeps_what_autograd_saves_of_a_token(autocast, rank):
    pytest.importorskip("peft")
    how = {"autocast": autocast, "rank": rank}
    # Casts of weights do not grow with the text, the ends of the network not with its layers.
    grown = saved_bytes(40, 2, **how) - saved_bytes(24, 2, **how)
    grown -= saved_bytes(40, 1, **how) - saved_bytes(24, 1, **how)
    adapter = shape().adapter_parameters(rank, TARGET_MODULES)
    found = step(autocast=autocast, adapter_parameters=adapter, adapter_rank=rank)
    num_tokens = 2 * 2 * 16
    assert layer_bytes_per_token(found) == pytest.approx(grown / num_tokens, rel=0.05)


def test_a_tile_of_the_head_holds_the_logits_of_all_positions(monkeypatch):
    sizes = []
    fitted = step(device_type="cpu", num_trajectories=1)
    hidden, weight = torch.randn(24, 32, requires_grad=True), torch.randn(256, 32, requires_grad=True)
    real = torch.Tensor.logsumexp
    monkeypatch.setattr(
        torch.Tensor, "logsumexp", lambda self, *a: sizes.append(self.nbytes) or real(self, *a)
    )
    head_scores(hidden, weight, torch.zeros(1, 24, dtype=torch.int64))
    tile, hidden_bytes = max(sizes), 2 * hidden.nbytes
    assert head_bytes(fitted) == 2 * tile + hidden_bytes


def test_the_cache_is_as_large_as_the_engines():
    decoding = Decoding(
        shape=shape(), batch_size=3, prompt_tokens=20, max_new_tokens=8, block_size=4, bytes_per_weight=4
    )
    cache = SlotCache(3, 32)
    for layer in range(2):
        cache.layer(layer, torch.zeros(1, 2, 8))
    assert rollout_bytes(decoding).cache == cache.num_bytes == 3 * 32 * position_bytes(shape(), 4)


def test_sharding_divides_what_is_kept_and_ddp_adds_its_buckets():
    whole = step(accumulation=2)
    alone = training_bytes(whole)
    sharded = training_bytes(replace(whole, num_devices=4, parallel="fsdp2"))
    for part in ("weights", "gradients", "optimizer", "reference"):
        assert getattr(sharded, part) == pytest.approx(getattr(alone, part) / 4)
    spread = training_bytes(replace(whole, num_devices=4, parallel="ddp"))
    assert spread.exchange == alone.gradients and spread.weights == alone.weights


def test_the_reference_is_where_it_was_asked_for():
    parameters = shape().num_parameters
    assert training_bytes(step(reference="device")).reference == 4 * parameters
    assert training_bytes(step(reference=None)).reference == 0
    assert 0 < training_bytes(step(reference="cpu")).reference < 4 * parameters
    adapted = step(reference="adapter", adapter_parameters=100, adapter_rank=1)
    assert training_bytes(adapted).reference == 400


def test_checkpointing_keeps_one_layer():
    deep = step(shape=shape(num_hidden_layers=8))
    found = training_bytes(replace(deep, checkpointing=True)).activations
    assert found < training_bytes(deep).activations / 3

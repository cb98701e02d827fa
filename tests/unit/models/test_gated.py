"""A gated adapter acts where the gate is and nowhere else, and is what PEFT's adapter is where it acts."""

import copy
import threading

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from t3d.attention.masks import block_causal_mask
from t3d.errors import InputError
from t3d.models.gated import add_gated_adapter, attached, gated_positions
from t3d.training.lora import add_adapter, merge_adapter

MASK = 37
IDS = (torch.arange(24).reshape(2, 12) * 5 + 3) % 37
POSITIONS = torch.arange(12).expand(2, 12)
GATE = torch.zeros(2, 12, dtype=torch.bool)
GATE[:, 8:] = True
EVERYWHERE = torch.ones_like(GATE)


def forward(model, gate=None, ids=IDS, sees=None, **further):
    """Logits under the block-causal mask of four, or under ``sees``."""
    mask = block_causal_mask(POSITIONS, POSITIONS, EVERYWHERE, 4) if sees is None else sees
    gated = {} if gate is None else {"gated_positions": gated_positions(gate)}
    options = {"attention": sdpa_attention_forward, "attention_mask": mask[:, None], "use_cache": False}
    return model(input_ids=ids, position_ids=POSITIONS, **options, **gated, **further).logits


def learnt(adapter):
    """Weights as training gives them: a new adapter adds nothing."""
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.normal_(std=0.2)
    return adapter


@pytest.mark.parametrize("make", ["make_model", "make_moe_model"])
def test_without_a_gate_the_logits_are_those_of_the_base(make, request):
    model = request.getfixturevalue(make)()
    base = forward(model)
    adapter = learnt(add_gated_adapter(model, 4, mask_token_id=MASK))
    assert torch.equal(forward(model), base)
    assert torch.equal(forward(model, torch.zeros_like(GATE)), base)
    assert (forward(model, GATE) - base).abs().max() > 0.01
    assert torch.equal(forward(model), base)
    adapter.detach()
    assert torch.equal(forward(model, GATE), base)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_new_adapter_adds_nothing(make_model, dtype):
    """To masks: their embedding of its own begins as the base's."""
    model, masked = make_model(dtype=dtype), torch.where(GATE, MASK, IDS)
    base = forward(model, None, masked)
    add_gated_adapter(model, 4, mask_token_id=MASK)
    assert torch.equal(forward(model, GATE, masked), base)


@pytest.mark.parametrize("make", ["make_model", "make_moe_model"])
@pytest.mark.parametrize("has_embedding", [False, True])
def test_with_the_gate_everywhere_the_logits_are_pefts(make, has_embedding, request):
    ids = torch.where(GATE, MASK, IDS)
    model = request.getfixturevalue(make)()
    options = {"mask_token_id": MASK} if has_embedding else {}
    adapter = learnt(add_gated_adapter(model, 4, alpha=16.0, **options))
    if has_embedding:  # PEFT's row is that of masks: elsewhere the gate would replace others
        adapter.mask_embedding.data.copy_(model.get_input_embeddings().weight[MASK])
        ids = torch.full_like(IDS, MASK)
    ours = forward(model, EVERYWHERE, ids)
    adapter.detach()
    theirs = add_adapter(model, 4, alpha=16.0, target_modules=adapter.target_modules)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if ".lora_" in name:
                key, _, rest = name.removeprefix("base_model.model.").partition(".lora_")
                own = adapter.layers[key.replace(".", "/")]
                weight.copy_(getattr(own, f"lora_{rest[0]}"))
    torch.testing.assert_close(ours, forward(theirs.eval(), None, ids), rtol=1e-11, atol=1e-11)


def test_tokens_that_are_not_gated_are_bit_for_bit_the_bases_in_the_same_pattern(make_model):
    """They see no gated token, as in decoding, so that their keys and values are the base's, too."""
    for dtype in (torch.float64, torch.float32):
        model = make_model(dtype=dtype)
        base, keys = forward(model), keys_of(model, None)
        learnt(add_gated_adapter(model, 4, mask_token_id=MASK))
        mixed = forward(model, GATE)
        assert torch.equal(mixed[~GATE], base[~GATE])
        assert ((mixed - base)[GATE].abs().amax(-1) > 0.001).all()
        for before, after in zip(keys, keys_of(model, GATE), strict=True):
            assert torch.equal(before[~GATE], after[~GATE])


def keys_of(model, gate):
    found = []
    hooks = [
        layer.self_attn.k_proj.register_forward_hook(lambda *call: found.append(call[2].detach()))
        for layer in model.model.layers
    ]
    forward(model, gate)
    for hook in hooks:
        hook.remove()
    return found


def test_tokens_that_are_not_gated_are_the_bases_in_a_mixture(make_moe_model):
    model = make_moe_model()
    base = forward(model)
    adapter = learnt(add_gated_adapter(model, 4))
    assert {key.rpartition("/")[2] for key in adapter.layers} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    torch.testing.assert_close(forward(model, GATE)[~GATE], base[~GATE], rtol=1e-11, atol=1e-11)


def gradients(adapter):
    adapter.zero_grad()
    forward(adapter, GATE).logsumexp(-1).sum().backward()
    return [weight.grad.clone() for weight in adapter.parameters()]


def test_layers_that_a_backward_runs_again_have_the_gate(make_model):
    model = make_model()
    adapter = learnt(add_gated_adapter(model, 4, mask_token_id=MASK))
    model.requires_grad_(False)
    expected = gradients(adapter)
    adapter.train()
    model.activation_checkpointing_enable()
    for ours, theirs in zip(gradients(adapter), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert all(gradient.abs().max() > 0 for gradient in expected)


def test_its_state_is_the_adapters_alone_and_the_base_keeps_its_names(make_model):
    model = make_model()
    names = list(model.state_dict())
    adapter = add_gated_adapter(model, 3)
    assert list(model.state_dict()) == names
    assert all(".lora_" in name for name in adapter.state_dict())
    assert sum(weight.numel() for weight in adapter.parameters()) == sum(
        3 * sum(dict(model.named_modules())[key.replace("/", ".")].weight.shape) for key in adapter.layers
    )


def test_a_gate_of_one_thread_is_not_that_of_another(make_model):
    model = make_model()
    learnt(add_gated_adapter(model, 4))
    expected = {True: forward(model, GATE), False: forward(model)}
    wrong = []

    def run(is_gated):
        for _ in range(20):
            if not torch.equal(forward(model, GATE if is_gated else None), expected[is_gated]):
                wrong.append(is_gated)

    threads = [threading.Thread(target=run, args=(index % 2 == 0,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_forward_that_fails_leaves_no_gate_behind(make_model):
    model = make_model()
    base = forward(model)
    learnt(add_gated_adapter(model, 4))
    with pytest.raises(RuntimeError):
        forward(model, GATE, sees=torch.ones(2, 3, 3, dtype=torch.bool))
    assert torch.equal(forward(model), base)


def test_a_copy_of_the_model_has_an_adapter_of_its_own(make_model):
    model = make_model()
    adapter = learnt(add_gated_adapter(model, 4))
    twin = copy.deepcopy(model)
    expected = forward(twin, GATE)
    assert attached(twin) is not adapter
    assert torch.equal(expected, forward(model, GATE))


def test_it_is_never_merged_and_a_model_has_one(make_model):
    model = make_model()
    adapter = add_gated_adapter(model, 2)
    for one in (model, adapter):
        with pytest.raises(InputError, match="cannot be merged"):
            merge_adapter(one)
    with pytest.raises(InputError, match="cannot be adapted once more"):
        add_adapter(model, 2)
    with pytest.raises(InputError, match="detach that one first"):
        add_gated_adapter(model, 2)
    adapter.detach()
    assert attached(model) is None
    assert attached(add_gated_adapter(model, 2).base) is not None


def test_unknown_layers_and_ranks_are_refused(make_moe_model):
    with pytest.raises(InputError, match="no linear layer up_proj"):
        add_gated_adapter(make_moe_model(), 2, target_modules=("q_proj", "up_proj"))
    with pytest.raises(InputError, match="rank"):
        add_gated_adapter(make_moe_model(), 0)

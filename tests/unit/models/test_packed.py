import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from t3d.models import packed
from t3d.models.head import ScoringHead
from t3d.models.packed import (
    MIN_ELEMENTS,
    PackableLinear,
    Packs,
    can_pack,
    forget_packs_of,
    packs_of,
)

pytestmark = pytest.mark.skipif(not can_pack(), reason="no oneDNN products on this machine")

WIDTH, OUT = 256, MIN_ELEMENTS // 256
PRECISIONS = pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        pytest.param(
            torch.bfloat16,
            marks=pytest.mark.skipif(not can_pack(torch.bfloat16), reason="no bfloat16 on this CPU"),
        ),
    ],
)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.large, self.small = nn.Linear(WIDTH, OUT), nn.Linear(WIDTH, 8, bias=False)
        self.head = ScoringHead(WIDTH, OUT, bias=False)

    def forward(self, given):
        return self.large(given), self.small(given), self.head(given)


def packed_two(dtype=torch.float32):
    torch.manual_seed(0)
    model, packs = Two().to(dtype), Packs()
    packs.refresh(model)
    return model, packs


@torch.no_grad()
def products(model, packs, given):
    with packs.in_use():
        return model(given)


@PRECISIONS
@pytest.mark.parametrize("num_rows", [1, 2, 9, 70])
def test_copies_multiply_as_the_weights_do(num_rows, dtype):
    model, packs = packed_two(dtype)
    given = torch.randn(num_rows, WIDTH, dtype=dtype)
    plain, within = model(given), TOLERANCE[dtype]
    for ours, theirs in zip(products(model, packs, given), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=within, atol=within)
    assert type(model.large) is PackableLinear
    assert type(model.small) is (nn.Linear if dtype == torch.float32 else PackableLinear)
    assert packs.copy_of(model.large) is not None and packs.copy_of(model.head) is not None


@PRECISIONS
def test_a_row_is_the_same_bits_beside_any_others(dtype):
    """In bfloat16 beside 31 others at most: more are multiplied in another order."""
    model, packs = packed_two(dtype)
    given = torch.randn(40 if dtype == torch.float32 else 32, WIDTH, dtype=dtype)
    for whole, alone in zip(products(model, packs, given), products(model, packs, given[7:8]), strict=True):
        if whole.shape[1] == OUT:
            assert torch.equal(whole[7], alone[0])


@PRECISIONS
@pytest.mark.parametrize("change", ["in place", "optimizer", "another tensor", "load", "grown", "unseen"])
def test_a_changed_weight_is_never_multiplied_as_it_was(change, dtype):
    model, packs = packed_two(dtype)
    given = torch.randn(3, WIDTH, dtype=dtype)
    layer = model.large
    before = products(model, packs, given)[0]
    if change == "in place":
        with torch.no_grad():
            layer.weight.mul_(2)
    elif change == "optimizer":
        layer(given).sum().backward()
        torch.optim.AdamW(model.parameters(), lr=0.1).step()
    elif change == "another tensor":
        layer.weight.data = layer.weight.data * 2
    elif change == "unseen":
        layer.weight.data += 0.1
    elif change == "load":
        model.load_state_dict({name: weight + 1 for name, weight in model.state_dict().items()})
    else:
        layer.weight = nn.Parameter(torch.randn(OUT + 1, WIDTH, dtype=dtype))
        layer.bias = nn.Parameter(torch.zeros(OUT + 1, dtype=dtype))
    with torch.no_grad():
        expected = model(given)[0]
    if change != "unseen":  # PyTorch tells nobody of it
        assert packs.copy_of(layer) is None
        assert torch.equal(products(model, packs, given)[0], expected)
    packs.refresh(model)
    assert packs.copy_of(layer) is not None
    after = products(model, packs, given)[0]
    torch.testing.assert_close(after, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert after.shape != before.shape or not torch.allclose(after, before, atol=1e-3)


@PRECISIONS
@pytest.mark.parametrize("change", ["a row", "an element", "all but a column", "fused optimizer"])
def test_the_next_run_sees_what_pytorch_does_not_tell(change, dtype):
    """Whichever elements they are; of one the smallest step there is, but for numbers near zero."""
    model, packs = packed_two(dtype)
    given, before = torch.randn(3, WIDTH, dtype=dtype), packs.copy_of(model.large)
    if change == "a row":
        model.large.weight.data[7] = 3
    elif change == "an element":
        model.large.weight.data[7, 9] = 0.03125
        packs.refresh(model)
        before = packs.copy_of(model.large)
        model.large.weight.data[7, 9] *= 1 + (1e-3 if dtype == torch.float32 else 2**-7)
    elif change == "all but a column":
        model.large.weight.data[:, 1:] *= 2
    else:
        model(given)[0].sum().backward()
        torch.optim.AdamW(model.parameters(), lr=0.1, fused=True).step()
    packs.refresh(model)
    assert packs.copy_of(model.large) is not before
    with torch.no_grad():
        expected = model(given)[0]
    within = 10 * TOLERANCE[dtype]
    torch.testing.assert_close(products(model, packs, given)[0], expected, rtol=within, atol=within)


def test_a_refresh_copies_nothing_that_did_not_change():
    model, packs = packed_two()
    before = packs.copy_of(model.large)
    packs.refresh(model)
    assert before is not None and packs.copy_of(model.large) is before


@pytest.mark.parametrize("change", ["fewer rows", "other strides", "another parameter", "of inference"])
def test_another_weight_on_the_same_memory_is_not_the_one_that_was_copied(change):
    torch.manual_seed(0)
    layer, packs = nn.Linear(512, 512, bias=False), Packs()
    packs.refresh(nn.ModuleList([layer]))
    if change == "fewer rows":
        layer.weight.data = layer.weight.data[:500]
    elif change == "other strides":
        layer.weight.data = layer.weight.data.t()
    elif change == "another parameter":
        layer.weight = nn.Parameter(layer.weight.data)
        with torch.no_grad():
            layer.weight.mul_(2)  # the first write to the one as to the other
    else:
        with torch.inference_mode():
            layer.load_state_dict({"weight": layer.weight + 1}, assign=True)
    given = torch.randn(3, 512)
    with torch.no_grad(), packs.in_use():
        assert torch.equal(layer(given), torch.nn.functional.linear(given, layer.weight))


def test_under_autocast_products_have_its_dtype():
    model, packs = packed_two()
    with torch.autocast("cpu", torch.bfloat16):
        assert products(model, packs, torch.randn(3, WIDTH))[0].dtype == torch.bfloat16


def test_a_packed_layer_is_compiled_in_one_graph():
    model, _ = packed_two()
    compiled = torch.compile(model.large.forward, backend="eager", fullgraph=True)
    given = torch.randn(3, WIDTH)
    assert torch.equal(compiled(given), model.large(given))


def test_no_row_multiplies_to_none():
    model, packs = packed_two()
    assert products(model, packs, torch.randn(0, WIDTH))[0].shape == (0, OUT)


def test_outside_and_in_a_copy_of_the_model_the_weights_themselves_multiply():
    model, packs = packed_two()
    given = torch.randn(3, WIDTH)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.large.weight.mul_(3)
    plain = torch.nn.functional.linear(given, other.large.weight, other.large.bias)
    assert torch.equal(products(other, packs, given)[0], plain)
    assert torch.equal(
        model(given)[0], torch.nn.functional.linear(given, model.large.weight, model.large.bias)
    )
    doubled = given.double()
    assert products(model.double(), packs, doubled)[0].dtype == torch.float64


@PRECISIONS
def test_bfloat16_products_of_a_small_model_have_few_numbers_of_rows(monkeypatch, dtype):
    model, packs = packed_two(dtype)
    assert packs.copy_of(model.large) is not None
    found = {count: packs.num_rows(count) for count in range(1025)}
    if dtype == torch.bfloat16:
        assert all(count <= rows <= 1.125 * count + 1 for count, rows in found.items())
        assert len({rows for count, rows in found.items() if count > 64}) == 8 * 4
        assert packs.num_rows(found[700]) == found[700]
        monkeypatch.setattr(packed, "MAX_BYTES_ROUNDED", packs.num_bytes - 1)
    assert [packs.num_rows(count) for count in (0, 1, 64, 65, 700)] == [0, 1, 64, 65, 700]
    assert Packs().num_rows(100) == 100


def test_no_copy_is_made_where_all_would_be_too_large():
    model, packs = packed_two()
    packs.refresh(model, max_bytes=model.large.weight.nbytes)
    assert packs.num_bytes == 0 and packs.copy_of(model.large) is None
    packs.refresh(model, max_bytes=None)
    assert packs.num_bytes == 2 * model.large.weight.nbytes


def test_engines_share_copies_that_go_with_the_model():
    """Also of a model that its layers know."""
    model = Two()
    vars(model.large)["owner"] = model
    packs_of(model).refresh(model)
    assert packs_of(model) is packs_of(model) and packs_of(model).num_bytes
    gone = weakref.ref(packs_of(model))
    del model
    gc.collect()
    assert gone() is None


def test_copies_that_are_forgotten_are_let_go():
    model = Two()
    packs_of(model).refresh(model)
    gone = weakref.ref(packs_of(model))
    forget_packs_of(model)
    assert gone() is None and packs_of(model).num_bytes == 0


def test_layers_that_left_take_their_copies_along():
    model, packs = packed_two()
    model.large = nn.Linear(WIDTH, 8)
    packs.refresh(model)
    assert packs.num_bytes == model.head.weight.nbytes

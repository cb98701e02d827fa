"""Both ways to attend to clean keys give one softmax's part, forwards and backwards."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.attention import clean_keys

SIZES = st.tuples(*[st.integers(1, 3)] * 3, st.integers(1, 40), st.integers(0, 40))
"""Documents, key heads, query heads of each, queries, clean keys."""


def drawn(sizes, dtype, seed, hidden_share=0.3):
    """Queries, keys and values as views of longer rows, what is hidden, and a gradient."""
    documents, heads, shared, queries, keys = sizes
    draw = torch.Generator().manual_seed(seed)
    query = torch.randn(documents, heads, shared, queries, 16, generator=draw, dtype=torch.float64) / 4
    both = torch.randn(2, documents, keys + 5, heads, 16, generator=draw, dtype=torch.float64)
    key, value = both.to(dtype).transpose(2, 3)[..., :keys, :]
    is_hidden = torch.rand(documents, 1, 1, queries, keys, generator=draw) < hidden_share
    hides = torch.zeros(is_hidden.shape).masked_fill_(is_hidden, -torch.inf)
    grad = torch.randn(query.shape, generator=draw, dtype=torch.float64)
    other = torch.randn(query.shape[:-1], generator=draw, dtype=torch.float64)
    return query.to(dtype), (key, value), hides, grad.to(dtype), other


def part_of_a_softmax(query, clean, hides, grad, other):
    """Both directions of attention whose queries see one more key, of score ``other`` and value 0."""
    mixed, total = clean_keys.attend_clean(query, clean, hides)
    whole = torch.logaddexp(total, other.to(total.dtype))
    joined = (mixed * (total - whole).exp()[..., None]).to(query.dtype)
    return joined, total, clean_keys.attend_clean_backward(grad, query, clean, hides, joined, whole)


def plainly(query, clean, hides, grad, other):
    """The same by autograd, in float64."""
    leaves = [part.double().detach().requires_grad_() for part in (query, *clean)]
    scores = torch.einsum("dhgqe,dhce->dhgqc", leaves[0], leaves[1]) + hides.double()
    weights = torch.cat([scores, other.double()[..., None]], -1).softmax(-1)[..., :-1]
    joined = torch.einsum("dhgqc,dhce->dhgqe", weights, leaves[2])
    joined.backward(grad.double())
    return joined.detach(), scores.detach().logsumexp(-1), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("fused", [True, False])
@settings(max_examples=40)
@given(sizes=SIZES, seed=st.integers(0, 2**31), dtype=st.sampled_from([torch.float64, torch.float32]))
def test_numbers_and_gradients_are_those_of_a_whole_softmax(fused, sizes, seed, dtype):
    """Ragged sizes, heads that share keys, views, queries that see nothing; float64 as exactly as float32."""
    case = drawn(sizes, dtype, seed)
    bound = 1e-10 if dtype == torch.float64 else 2e-4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clean_keys, "has_fused_kernel", lambda device: fused)
        joined, total, gradients = part_of_a_softmax(*case)
    expected = plainly(*case)
    torch.testing.assert_close(joined.double(), expected[0], atol=bound, rtol=bound)
    torch.testing.assert_close(total.double(), expected[1], atol=bound, rtol=bound)
    for ours, theirs in zip(gradients, expected[2], strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=bound, rtol=bound)


def test_bfloat16_is_no_less_exact_by_the_fused_kernel_than_by_plain_products(monkeypatch):
    case = drawn((2, 3, 3, 200, 120), torch.bfloat16, 0)
    expected = plainly(*case)
    errors = {}
    for fused in (True, False):
        monkeypatch.setattr(clean_keys, "has_fused_kernel", lambda device, fused=fused: fused)
        joined, _, gradients = part_of_a_softmax(*case)
        pairs = zip((joined, *gradients), (expected[0], *expected[2]), strict=True)
        errors[fused] = [float((ours.double() - theirs).norm() / theirs.norm()) for ours, theirs in pairs]
    assert max(errors[True]) < 0.01
    assert all(one < 2 * other for one, other in zip(errors[True], errors[False], strict=True))


def test_a_hidden_query_has_zeros_and_gives_no_gradient():
    query, clean, hides, grad, _ = drawn((1, 1, 2, 20, 20), torch.float64, 0, hidden_share=1.1)
    mixed, total = clean_keys.attend_clean(query, clean, hides)
    assert not mixed.any() and total.eq(-torch.inf).all()
    gradients = clean_keys.attend_clean_backward(grad, query, clean, hides, mixed, torch.zeros_like(total))
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("part", ["key", "value"])
def test_keys_that_the_fused_kernel_would_misread_are_refused(part):
    query, (key, value), hides, _, _ = drawn((1, 2, 1, 8, 8), torch.float64, 0)
    strided = torch.stack([key if part == "key" else value] * 2, -1)[..., 0]
    clean = (strided, value) if part == "key" else (key, strided)
    with pytest.raises(AssertionError, match="the kernel takes no others"):
        clean_keys.attend_clean(query, clean, hides)


@pytest.mark.parametrize(("num_keys", "is_wide"), [(40, True), (257, False)])
def test_few_bfloat16_keys_go_backwards_in_float32(num_keys, is_wide, monkeypatch):
    case = drawn((2, 2, 2, 16, num_keys), torch.bfloat16, seed=3)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    seen = []

    def spy(*args, **kwargs):
        seen.append(args[0].dtype)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(
        torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", spy, raising=False
    )
    *_, gradients = part_of_a_softmax(*case)
    assert seen == [torch.float32 if is_wide else torch.bfloat16]
    assert {gradient.dtype for gradient in gradients} == {torch.bfloat16}
    for ours, theirs in zip(gradients, plainly(*case)[2], strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=3e-2, rtol=3e-2)

"""The tiled head against the plain one, which makes all logits at once."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate.utils.operations import convert_outputs_to_fp32
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from t3d.attention.masks import block_causal_mask
from t3d.models import divergence
from t3d.models.divergence import OtherHead, likeliest
from t3d.models.head import HeadScores, ScoringHead, TokenPick, fit_tile, head_scores


def inputs(positions, width, vocab, targets, dtype=torch.float64, scale=1.0):
    hidden = (torch.randn(positions, width, dtype=torch.float64) * scale).to(dtype).requires_grad_()
    weight = torch.randn(vocab, width, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, vocab, (targets, positions))


def plain(hidden, weight, target, temperature=1.0):
    """(log-probabilities of the targets, entropy at the temperature, all log-probabilities)."""
    logits = F.linear(hidden, weight)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    log_p, log_q = logits.log_softmax(-1), (logits / temperature).log_softmax(-1)
    return log_p.gather(1, target.T).T, -(log_q.exp() * log_q).sum(-1), log_p


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


sizes = {
    "positions": st.integers(1, 9),
    "width": st.integers(1, 6),
    "vocab": st.integers(2, 40),
    "targets": st.integers(0, 3),
    "tile": st.integers(1, 45),
    "seed": st.integers(0, 2**16),
    "temperature": st.sampled_from([1.0, 0.5, 2.0]),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@given(**sizes)
def test_values_and_gradients_equal_the_plain_versions(
    dtype, tolerance, positions, width, vocab, targets, tile, seed, temperature
):
    torch.manual_seed(seed)
    hidden, weight, target = inputs(positions, width, vocab, targets, dtype)
    log_prob, entropy, _ = plain(hidden, weight, target, temperature)
    entropy_options = {"entropy_temperature": temperature}
    scores = head_scores(hidden, weight, target, **entropy_options, tile_size=tile)
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(scores.log_probs, log_prob, **close)
    torch.testing.assert_close(scores.entropy, entropy, **close)
    slope, slope_of_entropy = torch.randn_like(log_prob), torch.randn_like(entropy)
    expected = (log_prob * slope).sum() + (entropy * slope_of_entropy).sum()
    actual = (scores.log_probs * slope).sum() + (scores.entropy * slope_of_entropy).sum()
    for mine, theirs in zip(
        gradients(actual, hidden, weight), gradients(expected, hidden, weight), strict=True
    ):
        torch.testing.assert_close(mine, theirs, **close)


@pytest.mark.parametrize("part", ["log_probs", "entropy"])
def test_each_output_alone_has_its_gradient(part):
    hidden, weight, target = inputs(5, 4, 11, 2)
    scores = head_scores(hidden, weight, target, entropy_temperature=1.0, tile_size=3)
    expected = dict(zip(("log_probs", "entropy"), plain(hidden, weight, target)[:2], strict=True))
    for mine, theirs in zip(
        gradients(scores[part].sum(), hidden, weight),
        gradients(expected[part].sum(), hidden, weight),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_gradients_pass_the_numerical_check(temperature):
    hidden, weight, target = inputs(3, 2, 7, 2)

    def outputs(hidden, weight):
        entropy_options = {"entropy_temperature": temperature}
        scores = head_scores(hidden, weight, target, **entropy_options, tile_size=3)
        return scores.log_probs, scores.entropy

    assert torch.autograd.gradcheck(outputs, (hidden, weight))


@given(seed=st.integers(0, 2**16), tile=st.integers(1, 12), excluded=st.sampled_from([None, 0, 4, 9]))
def test_the_likeliest_token_is_the_argmax_of_the_row_ties_included(seed, tile, excluded):
    torch.manual_seed(seed)
    weight = torch.randint(-1, 2, (10, 3)).double()  # many equal logits
    hidden = torch.randint(-2, 3, (20, 3)).double()
    target = torch.zeros(0, 20, dtype=torch.int64)
    pick = TokenPick(excluded_token_id=excluded)
    scores = head_scores(hidden, weight, target, pick=pick, tile_size=tile)
    logits = hidden @ weight.T
    if excluded is not None:
        logits[:, excluded] = -torch.inf
    assert torch.equal(scores.picked, logits.argmax(-1))
    _, _, log_p = plain(hidden, weight, target)
    torch.testing.assert_close(scores.picked_log_probs, log_p.gather(1, scores.picked[:, None])[:, 0])


@pytest.mark.parametrize("tile", [1, 4, 5, 13, 40])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("excluded", [0, 7, 12])
def test_the_excluded_token_is_never_picked_though_the_likeliest(tile, dtype, excluded):
    """Not at the ends of the uniforms either; and its mass counts in the log-probabilities reported."""
    hidden, weight, target = inputs(200, 4, 13, 1, dtype)
    hidden, weight = hidden.detach().clone(), weight.detach().clone()
    hidden[:, 0], weight[:, 0] = 1.0, 0.0
    weight[excluded, 0] = 30.0
    uniform = torch.rand(200, dtype=dtype)
    uniform[:3] = torch.tensor([torch.finfo(dtype).tiny, 1 - torch.finfo(dtype).eps, 1.0])
    _, _, log_p = plain(hidden, weight, target)
    for pick in (
        TokenPick(excluded_token_id=excluded),
        TokenPick(excluded_token_id=excluded, uniform_M=uniform),
    ):
        scores = head_scores(hidden, weight, target, pick=pick, tile_size=tile)
        assert (scores.picked != excluded).all()
        assert (scores.picked_log_probs < -5).all()
        torch.testing.assert_close(
            scores.picked_log_probs, log_p.gather(1, scores.picked[:, None])[:, 0], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("tile", [1, 6, 10, 23, 100])
@pytest.mark.parametrize("excluded", [None, 9])
def test_a_sample_inverts_the_cumulative_distribution_of_the_row(tile, excluded):
    hidden, weight, target = inputs(1, 5, 23, 0)
    hidden = hidden.expand(2000, -1).contiguous()
    uniform = torch.rand(2000, dtype=torch.float64)
    pick = TokenPick(excluded_token_id=excluded, uniform_M=uniform)
    scores = head_scores(hidden, weight, target.expand(0, 2000), pick=pick, tile_size=tile)
    logits = (hidden[0] @ weight.T).detach()
    if excluded is not None:
        logits[excluded] = -torch.inf
    expected = torch.searchsorted(logits.softmax(-1).cumsum(-1), uniform)
    assert torch.equal(scores.picked, expected)
    assert len(scores.picked.unique()) > 10


def test_samples_follow_the_distribution_of_each_position():
    hidden, weight, _ = inputs(4, 3, 9, 0, torch.float32)
    repeats = 20_000
    uniform = (torch.arange(repeats) + 0.5) / repeats
    scores = head_scores(
        hidden.detach().repeat_interleave(repeats, 0),
        weight,
        torch.zeros(0, 4 * repeats, dtype=torch.int64),
        pick=TokenPick(uniform_M=uniform.repeat(4)),
        tile_size=4,
    )
    frequency = F.one_hot(scores.picked.view(4, repeats), 9).double().mean(1)
    torch.testing.assert_close(frequency, (hidden @ weight.T).softmax(-1).double(), rtol=0, atol=2e-4)


def test_a_pick_carries_no_gradient():
    hidden, weight, target = inputs(5, 4, 11, 0)
    scores = head_scores(hidden, weight, target, pick=TokenPick())
    assert not scores.picked.requires_grad and not scores.picked_log_probs.requires_grad


def test_a_frozen_weight_gets_no_gradient():
    hidden, weight, target = inputs(5, 4, 11, 2)
    head_scores(hidden, weight.requires_grad_(False), target).log_probs.sum().backward()
    assert weight.grad is None
    assert hidden.grad is not None


def test_frozen_hidden_states_get_no_gradient():
    hidden, weight, target = inputs(5, 4, 11, 2)
    head_scores(hidden.requires_grad_(False), weight, target).log_probs.sum().backward()
    assert hidden.grad is None
    assert weight.grad is not None


def test_nothing_is_saved_without_gradients():
    hidden, weight, target = inputs(5, 4, 11, 2)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda tensor: tensor):
        with torch.no_grad():
            scores = head_scores(hidden, weight, target, entropy_temperature=1.0, pick=TokenPick())
        assert not saved and not scores.log_probs.requires_grad
        head_scores(hidden, weight, target)
        assert saved  # the hook would have noticed


@pytest.mark.parametrize("tile", [64, 300, None])
def test_bfloat16_weights_round_as_the_plain_version_does(tile):
    """The logits are the plain version's to the bit; gradients are within bfloat16's rounding."""
    hidden, weight, target = inputs(40, 32, 300, 2, torch.bfloat16, scale=0.3)
    scores = head_scores(hidden, weight, target, entropy_temperature=1.0, tile_size=tile)
    log_prob, entropy, _ = plain(hidden, weight, target)
    assert scores.log_probs.dtype == scores.entropy.dtype == torch.float32
    torch.testing.assert_close(scores.log_probs, log_prob, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.entropy, entropy, rtol=1e-5, atol=1e-5)
    mine = gradients(scores.log_probs.sum() + scores.entropy.sum(), hidden, weight)
    theirs = gradients(log_prob.sum() + entropy.sum(), hidden, weight)
    for own, other in zip(mine, theirs, strict=True):
        assert own.dtype == torch.bfloat16
        torch.testing.assert_close(own, other, rtol=2e-2, atol=2e-2 * float(other.abs().max()))


@pytest.mark.parametrize("tile", [64, None])
def test_autocast_is_the_plain_versions(tile):
    """Logits in bfloat16 in the forward pass and where the backward pass computes them again."""
    hidden, weight, target = inputs(40, 32, 300, 2, torch.float32, scale=0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = head_scores(hidden, weight, target, entropy_temperature=1.0, tile_size=tile)
        log_prob, entropy, _ = plain(hidden, weight, target)
    torch.testing.assert_close(scores.log_probs, log_prob, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.entropy, entropy, rtol=1e-5, atol=1e-5)
    exact, _, _ = plain(hidden, weight, target)
    assert (exact - log_prob).abs().max() > 1e-3  # so that the above is not the float32 result
    mine = gradients(scores.log_probs.sum() + scores.entropy.sum(), hidden, weight)
    theirs = gradients(log_prob.sum() + entropy.sum(), hidden, weight)
    for own, other in zip(mine, theirs, strict=True):
        assert own.dtype == torch.float32
        torch.testing.assert_close(own, other, rtol=2e-2, atol=1e-2 * float(other.abs().max()))


def test_float64_stays_so_under_autocast():
    hidden, weight, target = inputs(5, 4, 11, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = head_scores(hidden, weight, target)
    torch.testing.assert_close(scores.log_probs, plain(hidden, weight, target)[0], rtol=1e-12, atol=1e-12)


def test_no_positions_give_empty_scores_and_zero_gradients():
    hidden, weight, target = inputs(0, 4, 11, 2)
    for uniform in (None, torch.rand(0)):
        pick = TokenPick(excluded_token_id=3, uniform_M=uniform)
        scores = head_scores(hidden, weight, target, entropy_temperature=1.0, pick=pick, tile_size=4)
        assert scores.log_probs.shape == (2, 0)
        assert scores.entropy.shape == scores.picked.shape == scores.picked_log_probs.shape == (0,)
        hidden_grad, weight_grad = gradients(scores.log_probs.sum() + scores.entropy.sum(), hidden, weight)
        assert hidden_grad.shape == (0, 4)
        assert torch.equal(weight_grad, torch.zeros(11, 4, dtype=torch.float64))


@pytest.mark.parametrize("tile", [1, 3, 11])
def test_extreme_logits_stay_finite(tile):
    hidden = torch.tensor([[1e4], [-1e4], [0.0]], requires_grad=True)
    weight = torch.linspace(-1, 1, 11)[:, None].requires_grad_()
    target = torch.tensor([[0, 0, 0], [10, 10, 10]])
    pick = TokenPick(excluded_token_id=10, uniform_M=torch.full((3,), 0.45))
    scores = head_scores(hidden, weight, target, entropy_temperature=1.0, pick=pick, tile_size=tile)
    log_prob, entropy, _ = plain(hidden, weight, target)
    torch.testing.assert_close(scores.log_probs, log_prob)
    torch.testing.assert_close(scores.entropy, entropy)
    assert scores.picked.tolist() == [9, 0, 4]
    for grad in gradients(scores.log_probs.sum() + scores.entropy.sum(), hidden, weight):
        assert grad.isfinite().all()


def test_a_target_outside_the_vocabulary_scores_nan():
    hidden, weight, _ = inputs(2, 4, 11, 1)
    scores = head_scores(hidden, weight, torch.tensor([[11, -100], [3, 4]]), tile_size=4)
    assert scores.log_probs[0].isnan().all() and scores.log_probs[1].isfinite().all()


class LargestTensor(TorchDispatchMode):
    """Records the most elements that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.numel = max(self.numel, *sizes, 0)
        return out


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_no_tensor_of_positions_by_vocabulary_is_ever_made(uniform, autocast):
    positions, vocab = 2000, 3000
    hidden, weight, target = inputs(positions, 4, vocab, 2, torch.float32)
    pick = TokenPick(excluded_token_id=7, uniform_M=torch.rand(positions) if uniform else None)
    with LargestTensor() as largest:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            scores = head_scores(hidden, weight, target, entropy_temperature=1.0, pick=pick)
        (scores.log_probs.sum() + scores.entropy.sum()).backward()
    assert vocab * 4 < largest.numel <= 2**20 < positions * vocab / 4


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
@given(positions=st.integers(0, 10**6), vocab=st.integers(1, 200_000))
def test_a_tile_fits_the_memory_unless_it_is_the_least(device_type, positions, vocab):
    tile = fit_tile(positions, vocab, device_type)
    elements = 2**20 if device_type == "cpu" else 2**26
    assert min(vocab, 128) <= tile <= vocab
    assert tile <= 128 or positions * tile <= elements + 128 * positions
    assert tile == vocab or tile % 128 == 0


def in_model(model, **kwargs):
    ids = torch.randint(0, 40, (2, 7), generator=torch.Generator().manual_seed(0))
    position = torch.arange(7).expand(2, 7)
    mask = block_causal_mask(position, position, torch.ones(2, 7, dtype=torch.bool), 4)
    return model(
        input_ids=ids, position_ids=position, attention_mask=mask[:, None], use_cache=False, **kwargs
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("make", ["make_model", "make_moe_model"])
def test_a_models_scores_equal_those_of_its_logits(request, make, tied):
    """Gradients of every weight too; one that is the embedding as well sums both."""
    model = request.getfixturevalue(make)(tie_word_embeddings=tied)
    loss_positions, targets = torch.tensor([13, 2, 2, 5]), torch.randint(0, 40, (2, 4))
    logits = in_model(model, logit_positions=loss_positions).logits
    log_p = logits.log_softmax(-1)
    log_prob = log_p.gather(1, targets.T).T
    log_prob.square().sum().backward()
    expected = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    pick = TokenPick(excluded_token_id=37)
    scores = in_model(
        model, loss_positions=loss_positions, targets=targets, entropy_temperature=1.0, pick=pick
    )
    assert isinstance(scores, HeadScores)
    torch.testing.assert_close(scores.log_probs, log_prob)
    torch.testing.assert_close(scores.entropy, -(log_p.exp() * log_p).sum(-1))
    assert torch.equal(scores.picked, logits[:, :37].argmax(-1)) or (scores.picked > 37).any()
    scores.log_probs.square().sum().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], msg=name)


def test_a_model_picks_without_targets(tiny_model):
    with torch.no_grad():
        scores = in_model(tiny_model, loss_positions=torch.tensor([3, 1]), pick=TokenPick())
        logits = in_model(tiny_model, logit_positions=torch.tensor([3, 1])).logits
    assert scores.log_probs.shape == (0, 2)
    assert torch.equal(scores.picked, logits.argmax(-1))


def test_a_resized_models_head_scores(make_model):
    model = make_model(dtype=torch.float32)
    model.resize_token_embeddings(48, mean_resizing=False)
    assert isinstance(model.lm_head, ScoringHead)
    assert in_model(model, loss_positions=torch.tensor([3]), pick=TokenPick()).picked.shape == (1,)


def test_a_head_with_more_than_its_weight_is_refused(make_model):
    model = make_model()
    model.lm_head = torch.nn.Sequential(model.lm_head)  # as an adapter wraps it
    with pytest.raises(ValueError, match=r"lm_head is a .*Sequential.*leave lm_head out of LoRA's target"):
        in_model(model, loss_positions=torch.tensor([3]), pick=TokenPick())


def test_scores_survive_the_mixed_precision_wrapper_of_accelerate():
    hidden, weight, target = inputs(5, 4, 11, 2)
    scores = head_scores(hidden, weight, target)
    wrapped = convert_outputs_to_fp32(lambda: HeadScores(log_probs=scores.log_probs.bfloat16()))()
    assert isinstance(wrapped, HeadScores)
    assert wrapped.log_probs.dtype == torch.float32 and wrapped.entropy is None


@pytest.fixture
def one_process():
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("group", [["lm_head"], ["model.norm", "lm_head"]])
def test_a_head_that_fsdp2_shards_is_gathered_for_its_scores(one_process, make_model, group):
    """By itself, or with the last norm as accelerate does; in every step, not only the first."""
    model, sharded = make_model(), make_model()
    mesh = init_device_mesh("cpu", (1,))
    fully_shard([sharded.get_submodule(name) for name in group], mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    positions, targets = torch.tensor([13, 2, 5]), torch.randint(0, 40, (2, 3))
    for _ in range(2):
        for each in (model, sharded):
            in_model(each, loss_positions=positions, targets=targets).log_probs.sum().backward()
    torch.testing.assert_close(sharded.lm_head.weight.grad.full_tensor(), model.lm_head.weight.grad)


def test_fsdp2s_mixed_precision_leaves_the_uniforms_of_a_pick_alone(one_process, make_model):
    sharded = make_model(dtype=torch.float32)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)), mp_policy=policy)
    seen = []
    sharded.lm_head.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pick"].uniform_M), with_kwargs=True
    )
    uniform = torch.rand(3, dtype=torch.float64)
    in_model(sharded, loss_positions=torch.tensor([13, 2, 5]), pick=TokenPick(uniform_M=uniform))
    assert torch.equal(seen[0], uniform)


# --- the divergence from another head ------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@given(
    **{name: sizes[name] for name in ("positions", "width", "vocab", "targets", "tile", "seed")},
    num_unknown=st.sampled_from([0, 0, 1, 9, 39]),
)
def test_the_divergence_and_its_gradients_equal_the_plain_ones(
    dtype, tolerance, positions, width, vocab, targets, tile, seed, num_unknown
):
    """sum_v q(v) (log p(v) - log q(v)); together with a gradient through the targets; none into q.

    Tokens that the other head has no row for are none of its distribution's.
    """
    torch.manual_seed(seed)
    known = max(1, vocab - num_unknown)
    hidden, weight, target = inputs(positions, width, vocab, targets, dtype)
    other_hidden, other_weight, _ = inputs(positions, width + 1, known, 0, dtype)
    scores = head_scores(
        hidden, weight, target, against=OtherHead(other_hidden, other_weight), tile_size=tile
    )
    log_prob, _, log_p = plain(hidden, weight, target)
    log_q = F.linear(other_hidden, other_weight).log_softmax(-1).detach()
    expected = (log_q.exp() * (log_p[:, :known] - log_q)).sum(-1)
    close = {"rtol": tolerance, "atol": 10 * tolerance}
    torch.testing.assert_close(scores.minus_kl, expected, **close)
    slope, slope_of_kl = torch.randn_like(log_prob), torch.randn_like(expected)
    actual = (scores.log_probs * slope).sum() + (scores.minus_kl * slope_of_kl).sum()
    wanted = (log_prob * slope).sum() + (expected * slope_of_kl).sum()
    for mine, theirs in zip(
        gradients(actual, hidden, weight), gradients(wanted, hidden, weight), strict=True
    ):
        torch.testing.assert_close(mine, theirs, **close)
    assert not any(part.requires_grad for part in (log_q, scores.hidden) if part is not None)


def test_the_divergence_from_itself_is_zero_and_flat():
    hidden, weight, target = inputs(5, 4, 11, 1)
    scores = head_scores(hidden, weight, target, against=OtherHead(hidden, weight), tile_size=3)
    torch.testing.assert_close(scores.minus_kl, torch.zeros_like(scores.minus_kl))
    for gradient in gradients(scores.minus_kl.sum(), hidden, weight):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_hidden_states_are_kept_on_request_only():
    hidden, weight, target = inputs(5, 4, 11, 1)
    assert head_scores(hidden, weight, target).hidden is None
    kept = head_scores(hidden, weight, target, keeps_hidden=True).hidden
    assert torch.equal(kept, hidden) and not kept.requires_grad


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@given(**{name: sizes[name] for name in ("positions", "width", "vocab", "targets", "tile", "seed")})
def test_the_reverse_divergence_and_its_gradients_equal_the_plain_ones(
    dtype, tolerance, positions, width, vocab, targets, tile, seed
):
    """sum_v p(v) (log q(v) - log p(v)); together with a gradient through the targets; none into q."""
    torch.manual_seed(seed)
    hidden, weight, target = inputs(positions, width, vocab, targets, dtype)
    other_hidden, other_weight, _ = inputs(positions, width + 1, vocab, 0, dtype)
    other = OtherHead(other_hidden, other_weight, is_reverse=True)
    scores = head_scores(hidden, weight, target, against=other, tile_size=tile)
    log_prob, _, log_p = plain(hidden, weight, target)
    log_q = F.linear(other_hidden, other_weight).log_softmax(-1).detach()
    expected = (log_p.exp() * (log_q - log_p)).sum(-1)
    close = {"rtol": tolerance, "atol": 10 * tolerance}
    torch.testing.assert_close(scores.minus_kl, expected, **close)
    slope, slope_of_kl = torch.randn_like(log_prob), torch.randn_like(expected)
    actual = (scores.log_probs * slope).sum() + (scores.minus_kl * slope_of_kl).sum()
    wanted = (log_prob * slope).sum() + (expected * slope_of_kl).sum()
    for mine, theirs in zip(
        gradients(actual, hidden, weight), gradients(wanted, hidden, weight), strict=True
    ):
        torch.testing.assert_close(mine, theirs, **close)


def test_the_likeliest_tokens_of_another_head_are_those_of_its_whole_rows(monkeypatch):
    """A few positions at a time."""
    hidden, weight, _ = inputs(7, 4, 11, 0)
    monkeypatch.setattr(divergence, "_ELEMENTS", 22)
    ids, log_probs = likeliest(OtherHead(hidden, weight), 3)
    expected = F.linear(hidden, weight).log_softmax(-1).topk(3)
    assert torch.equal(ids, expected.indices.T)
    torch.testing.assert_close(log_probs, expected.values.T)

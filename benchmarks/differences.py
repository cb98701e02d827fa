"""Where two decodings of one prompt part, and how close a call that was."""

import math

import torch

from t3d.counter_rng import counter_uniform
from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.sampling import TOKEN_STREAM, sampled_distribution
from t3d.decoding.self_speculation import scratch_of_params
from t3d.decoding.specification import read_scratch


def first_difference(ours: Completion, theirs: Completion) -> float | None:
    """Log-probability of their first different token less that of ours; None where the texts are equal."""
    pairs = zip(ours.response_ids, theirs.response_ids, ours.logprobs, theirs.logprobs, strict=False)
    for our_token, their_token, our_logprob, their_logprob in pairs:
        if our_token != their_token:
            return their_logprob - our_logprob
    return None if len(ours.response_ids) == len(theirs.response_ids) else float("nan")


@torch.no_grad()
def distance_of_draw(
    model: torch.nn.Module, request: DecodeRequest, ours: Completion, theirs: Completion
) -> float:
    """How far the uniform of their first different draw is from drawing the token that it is farther from.

    For tokens drawn left to right. A token is drawn where the uniform lies in its interval of the CDF, and
    the two differ, so the uniform is outside of one of the intervals at least: that is how much rounding must
    have moved an edge. ``model`` reads what both begin with; best in float64. NaN where only the lengths
    differ.
    """
    pairs = list(zip(ours.response_ids, theirs.response_ids, strict=False))
    place = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
    if place is None:
        return float("nan")
    ids, params = [*request.prompt_ids, *ours.response_ids[:place]], ours.params
    scratch = scratch_of_params(len(ids) % params.block_size, 0, (), params)
    logits_1V = read_scratch(model, ids, [], scratch, params, ours.mask_token_id)
    if params.predicts == "self":
        logits_1V[:, ours.mask_token_id] = -torch.inf
    end_V = sampled_distribution(logits_1V, params)[0].cumsum(-1)
    uniform = counter_uniform(params.seed, request.noise_key, torch.tensor([len(ids)]), 0, TOKEN_STREAM)
    target = float(uniform * end_V[-1])
    starts_and_ends = [
        (float(end_V[token - 1]) if token else 0.0, float(end_V[token])) for token in pairs[place]
    ]
    return max(max(start - target, target - end, 0.0) for start, end in starts_and_ends)


def first_parting(ours: Completion, theirs: Completion) -> float | None:
    """How far apart in log-probability the commits are that differ at the first step that differs.

    Up to that step both are in one state, so with greedy decoding by confidence the gap is that of the tie:
    between two tokens of a place, or between two places. Where one commits more than the other, as a
    threshold lets it, the gap is to that threshold. None where the decodings are equal.
    """
    last = max(*ours.step_map, *theirs.step_map, 0)
    for step in range(1, last + 1):
        mine, other = _commits(ours, step), _commits(theirs, step)
        only_mine = sorted(mine[commit] for commit in mine.keys() - other.keys())
        only_other = sorted(other[commit] for commit in other.keys() - mine.keys())
        if len(only_mine) == len(only_other) and only_mine:
            return max(abs(one - two) for one, two in zip(only_mine, only_other, strict=True))
        if only_mine or only_other:
            bound = math.log(ours.params.confidence_threshold)
            return min(abs(logprob - bound) for logprob in only_mine + only_other)
    return None


def _commits(completion: Completion, step: int) -> dict[tuple[int, int], float]:
    """Log-probability of each (place, token) of a denoising step."""
    found = zip(completion.response_ids, completion.step_map, completion.logprobs, strict=True)
    return {
        (place, token): logprob for place, (token, own_step, logprob) in enumerate(found) if own_step == step
    }

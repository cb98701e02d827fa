"""Where two decodings of one prompt part, and how close a call that was."""

import math

from t3d.decoding.completion import Completion


def first_difference(ours: Completion, theirs: Completion) -> float | None:
    """Log-probability of their first different token less that of ours; None where the texts are equal."""
    pairs = zip(ours.response_ids, theirs.response_ids, ours.logprobs, theirs.logprobs, strict=False)
    for our_token, their_token, our_logprob, their_logprob in pairs:
        if our_token != their_token:
            return their_logprob - our_logprob
    return None if len(ours.response_ids) == len(theirs.response_ids) else float("nan")


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

"""What a network loses by drawing tokens together, measured on recorded trajectories.

Each block is replayed in its recorded order, one token at a time: J states of it, S places, V vocabulary. A
token's log-probability with all earlier commits visible, less the one that it has where its step begins, is
its part of the factorisation error at so many tokens per step. Of trajectories that the model itself drew
(one token per step, temperature 1, left to right) its mean over blocks estimates KL(one by one || together).
By confidence that lacks what the choice of places does, and of another's trajectories it says how well the
model would have drawn these tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from t3d.attention.forward import block_forward
from t3d.attention.masks import block_causal_mask
from t3d.errors import InputError
from t3d.evaluation.intervals import t_half_width
from t3d.models.loading import LoadedModel
from t3d.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenScore:
    """One visible token of a trajectory under a model; nats."""

    trajectory: int
    offset: int
    """Place in its block, from 0."""
    masks_left: int
    """In its block at its own turn, itself included."""
    alone: float
    """Log-probability with all tokens committed before it visible."""
    together: dict[int, tuple[int, float]]
    """By tokens per step: masks left in the block where the token's step begins, and its log-probability
    there."""
    entropy: float
    """Of the model's prediction at its own turn."""
    agrees: bool
    """Whether it is then the model's likeliest token."""

    def error(self, tokens_per_step: int) -> float:
        """Its part of the factorisation error; negative where later tokens spoke against it."""
        return self.alone - self.together[tokens_per_step][1]


def check_fit(loaded: LoadedModel, trajectories: Sequence[Trajectory]) -> None:
    """Raise :class:`InputError` unless the model has the records' mask and tokens, and fills masks at all."""
    if loaded.predicts != "self":
        fix = "adopt it first with t3d convert"
        raise InputError("models", loaded.source, "predicts the next token, and fills no masks", fix)
    vocab = loaded.model.config.vocab_size
    for trajectory in trajectories:
        has_mask = trajectory.mask_token_id == loaded.mask_token_id
        if not has_mask or max((*trajectory.prompt_ids, *trajectory.response_ids)) >= vocab:
            problem = f"record {trajectory.id!r} has another mask token, or ids that {loaded.source} has not"
            raise InputError("trajectories", trajectory.id, problem, "use a model of the same tokenizer")


def score_trajectory(
    model: torch.nn.Module,
    trajectory: Trajectory,
    number: int,
    *,
    tokens_per_step: Sequence[int],
    block_size: int,
) -> list[TokenScore]:
    """Score the visible tokens of one trajectory, which gets this number."""
    scores, done = [], 0
    blocks = trajectory.blocks(trajectory.response_ids, block_size)
    steps = trajectory.blocks(trajectory.step_map, block_size)
    for block, step in zip(blocks, steps, strict=True):
        before = [*trajectory.prompt_ids, *trajectory.response_ids[:done]]
        order = sorted(range(len(block)), key=lambda place, step=step: (step[place], place))
        logprob_JSV = replay(model, before, block, order, trajectory.mask_token_id, block_size)
        for turn, place in enumerate(order):
            if done + place < trajectory.visible_length:
                starts = {count: turn // count * count for count in tokens_per_step}
                scores.append(
                    TokenScore(
                        trajectory=number,
                        offset=(len(before) + place) % block_size,
                        masks_left=len(block) - turn,
                        alone=float(logprob_JSV[turn, place, block[place]]),
                        together={
                            count: (len(block) - start, float(logprob_JSV[start, place, block[place]]))
                            for count, start in starts.items()
                        },
                        entropy=float(torch.special.entr(logprob_JSV[turn, place].exp()).sum()),
                        agrees=int(logprob_JSV[turn, place].argmax()) == block[place],
                    )
                )
        done += len(block)
    return scores


@torch.no_grad()
def replay(
    model: torch.nn.Module,
    before: Sequence[int],
    block: Sequence[int],
    order: Sequence[int],
    mask_token_id: int,
    block_size: int,
) -> Float[Tensor, "J S V"]:
    """Log-probabilities at every place of a block after 0, 1, ... of its commits; the mask is never drawn.

    ``before``: all tokens in front of it, a prompt's tail in the same block included. The J states are one
    batch.
    """
    states = []
    for turn in range(len(order)):
        open_places = set(order[:turn])
        states.append(
            [*before, *(token if i in open_places else mask_token_id for i, token in enumerate(block))]
        )
    device = next(model.parameters(), torch.empty(0)).device
    ids_RQ = torch.tensor(states, device=device)
    position_RQ = torch.arange(ids_RQ.shape[1], device=device).expand_as(ids_RQ)
    is_real_RQ = torch.ones_like(ids_RQ, dtype=torch.bool)
    mask_RQN = block_causal_mask(position_RQ, position_RQ, is_real_RQ, block_size)
    logits_JSV = block_forward(model, ids_RQ, position_RQ, mask_RQN)[:, len(before) :].double().cpu()
    logits_JSV[..., mask_token_id] = -torch.inf
    return logits_JSV.log_softmax(-1)


def mean_of(scores: Iterable[TokenScore], value: Callable[[TokenScore], float]) -> dict[str, float]:
    """Mean over trajectories of each one's mean over its tokens, and half its 95 % interval."""
    values = defaultdict(list)
    for score in scores:
        values[score.trajectory].append(value(score))
    means = [mean(one) for one in values.values()]
    return {"mean": mean(means), "half_width": t_half_width(means), "num_trajectories": len(means)}


def summary(scores: Sequence[TokenScore], tokens_per_step: Sequence[int]) -> dict[str, Any]:
    """The means of one model: nats per token, and shares; keys of counts are text, as in JSON.

    Of a token itself by the masks left at its own turn, and of the error by those where its step begins.
    """

    def own_turn(score: TokenScore) -> int:
        return score.masks_left

    values: dict[str, Callable[[TokenScore], float]] = {
        "negative_log_likelihood": lambda score: -score.alone,
        "entropy": lambda score: score.entropy,
        "agreement": lambda score: float(score.agrees),
    }
    report: dict[str, Any] = {"num_tokens": len(scores), "factorisation_error": {}}
    for name, value in values.items():
        report[name] = mean_of(scores, value) | _by_place(scores, value, own_turn)
    for count in tokens_per_step:

        def error(score: TokenScore, count: int = count) -> float:
            return score.error(count)

        def its_step(score: TokenScore, count: int = count) -> int:
            return score.together[count][0]

        of_count = {"all": mean_of(scores, error)} | _by_place(scores, error, its_step)
        report["factorisation_error"][str(count)] = of_count
    return report


def _by_place(
    scores: Sequence[TokenScore],
    value: Callable[[TokenScore], float],
    masks_left: Callable[[TokenScore], int],
) -> dict[str, dict[str, dict[str, float]]]:
    """The means by masks left in the block, and by place in it."""
    found = {}
    for name, key in (("by_masks_left", masks_left), ("by_offset", lambda score: score.offset)):
        groups = defaultdict(list)
        for score in scores:
            groups[key(score)].append(score)
        found[name] = {str(place): mean_of(groups[place], value) for place in sorted(groups)}
    return found

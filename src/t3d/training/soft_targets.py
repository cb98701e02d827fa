"""Soft targets: what a model says of each masked token, which the student learns beside the token.

It is a frozen one, or the student itself as it is (``soft_target_source``), which gets no gradient from that.
``soft_target_context`` says what it reads of the record. ``before``: all clean tokens before the masked
one. An autoregressive model is asked in one forward over the record, whichever of its tokens are masked;
tokens behind the end of a response, which fill its last block, have no such distribution and keep plain
cross-entropy. A block-diffusion model is asked at check masks (:mod:`t3d.training.drafts`), as
``left_to_right`` decoding asks it. ``state``: the student's own state, random tokens included.
``later_state``: that state with the tokens that the trajectory commits until a later one; they, and states
without a later one, keep plain cross-entropy.

Of states that the student itself visited the targets ``before`` correct it: each is conditional on the
tokens that the student committed together with it, which it could not see.

Shape letters: E examples, L tokens of the longest record, M loss positions, k tokens of a distribution.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from t3d.attention.packed_forward import Arrangement, arrange, packed_forward
from t3d.errors import InputError
from t3d.models.divergence import OtherHead, likeliest
from t3d.models.head import HeadScores, head_scores
from t3d.models.loading import LoadedModel
from t3d.models.token_ids import token_of_another_id
from t3d.objectives.kl import kl_divergence, with_rest
from t3d.training.block_grid import TrainingExample
from t3d.training.config import T3DConfig
from t3d.training.selection import is_rollout
from t3d.trajectory import Trajectory

_GIVE_SOURCE = "give the checkpoint that the student was converted from, or its teacher"


class SoftTargets(NamedTuple):
    """What that model says at a batch's loss positions."""

    head: OtherHead
    is_soft_M: Bool[Tensor, "M"]
    """Where it counts."""
    top_ids_kM: Int[Tensor, "k M"] | None = None
    """Its likeliest tokens, where these and the rest as one bucket are the targets."""
    top_log_probs_kM: Float[Tensor, "k M"] | None = None

    def asked_of_student(self, label_M: Int[Tensor, "M"]) -> dict[str, Any]:
        """What the student's head has to say for :meth:`divergence`; the labels are its first targets."""
        if self.top_ids_kM is None:
            return {"targets": label_M[None], "against": self.head}
        return {"targets": torch.cat([label_M[None], self.top_ids_kM])}

    def divergence(self, student: HeadScores, args: T3DConfig) -> Float[Tensor, "M"]:
        """Of each position, in the direction that the settings name."""
        if self.top_log_probs_kM is None:
            assert student.minus_kl is not None
            return -student.minus_kl
        assert student.log_probs is not None
        target_Mk, student_Mk = self.top_log_probs_kM.T, student.log_probs[1:].T
        return kl_divergence(with_rest(target_Mk), with_rest(student_Mk), args.soft_target_direction)


def pack_soft_targets(
    examples: Sequence[TrainingExample], example_M: Int[Tensor, "M"], position_M: Int[Tensor, "M"]
) -> dict[str, Tensor]:
    """The batch that a model which predicts the next token is asked with, for loss positions of a batch.

    ``input_ids`` [E, L], right-padded, where no token before looks; ``positions`` [M], the token before each
    loss position in the flattened E x L; ``is_soft`` [M], False for filler and for a text's first token,
    where the first token of all stands in.
    """
    records = [[*one.prompt_ids, *one.response_ids] for one in examples]
    num_visible = [len(record) - one.num_filler_tokens for record, one in zip(records, examples, strict=True)]
    ids_EL = pad_sequence(
        [torch.tensor(record[:count]) for record, count in zip(records, num_visible, strict=True)],
        batch_first=True,
    )
    is_soft_M = (position_M > 0) & (position_M < torch.tensor(num_visible)[example_M])
    before_M = example_M * ids_EL.shape[1] + position_M - 1
    return {"input_ids": ids_EL, "positions": torch.where(is_soft_M, before_M, 0), "is_soft": is_soft_M}


@torch.no_grad()
def ask_soft_targets(
    model: Any, batch: Mapping[str, Any], arrangement: Arrangement, args: T3DConfig
) -> SoftTargets:
    """What a model in evaluation mode says at a batch's loss positions, under the settings' switches."""
    asked = batch["soft_targets"]
    is_reverse = args.soft_target_direction == "reverse"
    hidden_MD = _hidden(model, batch, arrangement, args)
    head = OtherHead(hidden_MD, model.get_output_embeddings().weight, is_reverse=is_reverse)
    is_soft_M = asked["is_soft"]
    if args.soft_target_below < 1:
        said = head_scores(head.hidden_MD, head.weight_VD, batch["labels"][None])
        assert said.log_probs is not None
        is_soft_M = is_soft_M & (said.log_probs[0].exp() < args.soft_target_below)
    if args.soft_target_top_k is None:
        return SoftTargets(head, is_soft_M)
    return SoftTargets(head, is_soft_M, *likeliest(head, args.soft_target_top_k))


def _hidden(
    model: Any, batch: Mapping[str, Any], arrangement: Arrangement, args: T3DConfig
) -> Float[Tensor, "M D"]:
    asked = batch["soft_targets"]
    if "positions" in asked:  # an autoregressive model
        # Without a mask and without positions the layers of transformers read causally, from the first on.
        hidden_ELD = model.base_model(input_ids=asked["input_ids"], use_cache=False).last_hidden_state
        return hidden_ELD.flatten(0, 1)[asked["positions"]]
    if "documents" in asked:  # at check masks
        arrangement = arrange(asked, args.attention)
    batch = {**batch, **asked}
    no_targets = batch["labels"].new_zeros(0, len(batch["labels"]))
    how = {"loss_positions": batch["loss_positions"], "targets": no_targets, "keeps_hidden": True}
    return packed_forward(model, batch, arrangement, **how).hidden


def check_both(args: T3DConfig, name: str, source: str | None, fix: str) -> None:
    """Raise InputError for a ``soft_target_weight`` without a model, and for a model that is not asked.

    ``name``: what the model is given as; ``fix``: how.
    """
    weight, asks_student = args.soft_target_weight, args.soft_target_source == "student"
    if asks_student and source is not None:
        fix = "leave it out, or use soft_target_source='teacher'"
        raise InputError(name, source, "ignored: soft_target_source='student' asks the student itself", fix)
    if weight > 0 and source is None and not asks_student:
        raise InputError("soft_target_weight", weight, "no model gives such targets", fix)
    if weight == 0 and source is not None:
        fix = "give for example soft_target_weight=0.5, or leave it out"
        raise InputError(name, source, "ignored: soft_target_weight=0", fix)


def check_soft_targets(
    args: T3DConfig,
    told: LoadedModel | None,
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    trajectories: Sequence[Trajectory],
) -> None:
    """Raise InputError unless there is a model where there is a weight, and only there, that says what the
    settings ask, in the student's tokens, of these records.

    The student may have further tokens (a mask that its conversion added), which such targets never are.
    """
    source = None if told is None else told.source
    check_both(args, "soft_target_model", source, "give soft_target_model")
    asks_later = args.soft_target_weight > 0 and args.soft_target_context == "later_state"
    if asks_later and not any(_has_later_state(one, args.block_size) for one in trajectories):
        problem = "every block of these rollouts was committed in one step, so no state has a later one"
        fix = "use rollouts of more steps, or soft_target_context='before'"
        raise InputError("soft_target_context", "later_state", problem, fix)
    if told is None:
        _check_top_k(args, "the student", student.config.vocab_size)
        return
    if told.model is student:
        fix = "load it once more: the student's weights change"
        raise InputError("soft_target_model", told.source, "is the student itself", fix)
    if told.predicts == "next" and args.soft_target_context != "before":
        problem, fix = f"{told.source} predicts the next token, and reads no masks", "use 'before'"
        raise InputError("soft_target_context", args.soft_target_context, problem, fix)
    _check_rows(args, told, student.config)
    other = token_of_another_id(told.tokenizer, tokenizer)
    if other is not None:
        problem = f"its tokenizer is another one: the student's has no token {other!r} of that id"
        raise InputError("soft_target_model", told.source, problem, _GIVE_SOURCE)
    for trajectory in trajectories:
        _check_record(trajectory, told, args)


def _has_later_state(trajectory: Trajectory, block_size: int) -> bool:
    """Whether some block was committed in several steps."""
    start, seen = len(trajectory.prompt_ids), dict[int, int]()
    steps = enumerate(trajectory.step_map, start)
    return any(seen.setdefault(position // block_size, step) != step for position, step in steps)


def _check_rows(args: T3DConfig, told: LoadedModel, student: PreTrainedConfig) -> None:
    rows = told.model.config.vocab_size
    if rows > student.vocab_size:
        problem = f"has rows for {rows} tokens, the student for {student.vocab_size}"
        raise InputError("soft_target_model", told.source, problem, _GIVE_SOURCE)
    _check_top_k(args, told.source, rows)
    is_whole = args.soft_target_top_k is None
    if args.soft_target_direction == "reverse" and is_whole and rows < student.vocab_size:
        problem = f"{told.source} has {rows} tokens of the student's {student.vocab_size}, so it is infinite"
        fix = "use 'forward', or a soft_target_top_k"
        raise InputError("soft_target_direction", "reverse", problem, fix)


def _check_top_k(args: T3DConfig, source: str, rows: int) -> None:
    top_k = args.soft_target_top_k
    if top_k is not None and top_k >= rows:
        fix = "use a smaller number, or None: the whole distribution"
        raise InputError("soft_target_top_k", top_k, f"{source} has {rows} tokens", fix)


def _check_record(trajectory: Trajectory, told: LoadedModel, args: T3DConfig) -> None:
    response = trajectory.response_ids
    if told.predicts == "next":
        if is_rollout(trajectory) and args.state_source != "on_policy":
            problem = f"learns from texts, but trajectory {trajectory.id!r} is a rollout"
            fix = "train on records of t3d data solutions or texts, or on state_source='on_policy'"
            raise InputError("soft_target_model", told.source, problem, fix)
        response = response[: trajectory.visible_length]
    elif trajectory.mask_token_id != told.mask_token_id:
        problem = (
            f"has mask token {told.mask_token_id}, trajectory {trajectory.id!r} {trajectory.mask_token_id}"
        )
        raise InputError("soft_target_model", told.source, problem, _GIVE_SOURCE)
    read = [*trajectory.prompt_ids, *response]
    if max(read) >= told.model.config.vocab_size:
        problem = f"has no token {max(read)}, which is in trajectory {trajectory.id!r}"
        raise InputError("soft_target_model", told.source, problem, "leave that record out")
    positions = told.model.config.max_position_embeddings
    if len(read) > positions:
        problem = f"reads {positions} tokens, but trajectory {trajectory.id!r} has {len(read)}"
        raise InputError("soft_target_model", told.source, problem, "make shorter records")

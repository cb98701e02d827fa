"""Soft targets of continued pretraining: what an autoregressive model says of each token behind all before.

The student that fills masks learns from its autoregressive source, which is frozen: at a masked token its
target is the source's distribution there, given the clean text before. One forward over a record gives all
of them, whichever of its tokens are masked. Tokens behind the end of a response, which fill its last block,
have no such distribution: they keep plain cross-entropy.

Shape letters: E examples, L tokens of the longest record, M loss positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from t3d.errors import InputError
from t3d.models.head import OtherHead
from t3d.models.loading import LoadedModel
from t3d.models.token_ids import tokenizer_hash
from t3d.training.block_grid import TrainingExample
from t3d.training.selection import is_rollout
from t3d.trajectory import Trajectory

_GIVE_SOURCE = "give the autoregressive checkpoint that the student was converted from"


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
def soft_target_head(model: Any, batch: Mapping[str, Any]) -> OtherHead:
    """The distributions that a frozen autoregressive model has at a batch's loss positions."""
    asked = batch["soft_targets"]
    # Without a mask and without positions the layers of transformers read causally, from the first token on.
    hidden_ELD = model.base_model(input_ids=asked["input_ids"], use_cache=False).last_hidden_state
    return OtherHead(hidden_ELD.flatten(0, 1)[asked["positions"]], model.get_output_embeddings().weight)


def check_both(weight: float, name: str, source: str | None, fix: str) -> None:
    """Raise InputError for a ``soft_target_weight`` without a model, and for a model without a weight.

    ``name``: what the model is given as; ``fix``: how.
    """
    if weight > 0 and source is None:
        raise InputError("soft_target_weight", weight, "no model gives such targets", fix)
    if weight == 0 and source is not None:
        fix = "give for example soft_target_weight=0.5, or leave it out"
        raise InputError(name, source, "ignored: soft_target_weight=0", fix)


def check_soft_targets(
    weight: float,
    told: LoadedModel | None,
    student: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    trajectories: Sequence[Trajectory],
) -> None:
    """Raise InputError unless there is a model where there is a weight, and only there, which predicts the
    next token, in the student's tokens, of these records.

    The student may have further tokens (a mask that its conversion added), which such targets never are.
    """
    check_both(weight, "soft_target_model", None if told is None else told.source, "give soft_target_model")
    if told is None:
        return
    if told.predicts != "next":
        problem = "a block-diffusion model, whose logits are not about the next token"
        raise InputError("soft_target_model", told.source, problem, _GIVE_SOURCE)
    rows = told.model.config.vocab_size
    if rows > student.vocab_size:
        problem = f"has rows for {rows} tokens, the student for {student.vocab_size}"
        raise InputError("soft_target_model", told.source, problem, _GIVE_SOURCE)
    other = _token_of_another_id(told.tokenizer, tokenizer)
    if other is not None:
        problem = f"its tokenizer is another one: the student's has no token {other!r} of that id"
        raise InputError("soft_target_model", told.source, problem, _GIVE_SOURCE)
    for trajectory in trajectories:
        _check_record(trajectory, told, rows)


def _token_of_another_id(theirs: PreTrainedTokenizerBase, ours: PreTrainedTokenizerBase) -> str | None:
    """A token of theirs that ours does not have under the same id."""
    if tokenizer_hash(theirs) == tokenizer_hash(ours):
        return None
    known = ours.get_vocab()
    unlike = (token for token, index in theirs.get_vocab().items() if known.get(token) != index)
    return next(unlike, None)


def _check_record(trajectory: Trajectory, told: LoadedModel, rows: int) -> None:
    if is_rollout(trajectory):
        problem = f"learns from texts, but trajectory {trajectory.id!r} is a rollout"
        fix = "train on records of t3d data solutions or texts, or leave it out"
        raise InputError("soft_target_model", told.source, problem, fix)
    read = [*trajectory.prompt_ids, *trajectory.response_ids[: trajectory.visible_length]]
    if max(read) >= rows:
        problem = f"has no token {max(read)}, which is in trajectory {trajectory.id!r}"
        raise InputError("soft_target_model", told.source, problem, "leave that record out")
    positions = told.model.config.max_position_embeddings
    if len(read) > positions:
        problem = f"reads {positions} tokens, but trajectory {trajectory.id!r} has {len(read)}"
        raise InputError("soft_target_model", told.source, problem, "make shorter records")

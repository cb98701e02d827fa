"""From the parts of a foreign record to a trajectory, or to the reason why there is none.

A record whose content does not fit is dropped with a reason, never cut or padded until it fits; one that
is not of the format at all raises InputError, which :mod:`~t3d.interchange.formats.registry` makes a drop
where other records of the file are of the format.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from transformers import PreTrainedTokenizerBase

from t3d.errors import InputError, require_positive
from t3d.problems.prompts import token_ids, token_text
from t3d.trajectory import Trajectory, steps_follow_blocks, visible_length


class DropReason(StrEnum):
    """Why a record was left out; the value is what the command prints."""

    EMPTY_PROMPT = "the prompt is empty"
    EMPTY_RESPONSE = "the response is empty"
    TEXT_CHANGED = "the text does not survive re-tokenisation"
    LENGTH_MISMATCH = "the response has another length than its step map or states"
    NEVER_SET = "a position was never set"
    STEPS_FALL = "steps fall from one block to the next at this block size"
    PROMPT_MISMATCH = "the states do not begin with the prompt"
    TOKEN_CHANGED = "a committed token changes or is masked again"
    NO_STEPS = "the order of the commits was not recorded"
    NO_QUESTION = "the prompt is not one user's turn of the chat template"
    OTHER_SHAPE = "the record is not of the format"


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """A record that was left out."""

    id: str
    reason: DropReason


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """What foreign records do not say about themselves.

    Raises InputError for a block size, step budget, first step or mask id that cannot be.
    """

    block_size: int
    """Block size of the rollout; blocks count from the first prompt token."""
    mask_token_id: int
    stop_token_ids: tuple[int, ...]
    tokenizer: PreTrainedTokenizerBase | None = None
    """Needed by the formats that hold text."""
    tokenizer_hash: str = ""
    steps_per_block: int | None = None
    """Denoising steps that a block was given, if known."""
    first_step: int = 1
    """Number of the first denoising step in the records' step maps: 0 or 1."""
    task: str = ""
    teacher: str = ""

    def __post_init__(self) -> None:
        require_positive(self, "block_size", "steps_per_block")
        if self.steps_per_block is not None and self.steps_per_block > self.block_size:
            fix = f"use at most {self.block_size}"
            raise InputError("steps_per_block", self.steps_per_block, "more steps than tokens", fix)
        if self.first_step not in (0, 1):
            raise InputError("first_step", self.first_step, "not a first step", "use 0 or 1")
        if not 0 <= self.mask_token_id < 2**31:
            raise InputError("mask_token_id", self.mask_token_id, "not a token id", "use 0 to 2**31 - 1")

    @property
    def decode_params(self) -> dict[str, Any]:
        """The decoding settings that are known."""
        return {} if self.steps_per_block is None else {"steps_per_block": self.steps_per_block}


def text_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...] | None:
    """Ids of a text, or None if decoding them does not give it back.

    A replacement character counts as damage: it stands where a token ended inside a character.
    """
    ids = token_ids(tokenizer, text)
    survives = "\ufffd" not in text and token_text(tokenizer, ids, skip_special_tokens=False) == text
    return tuple(ids) if survives else None


def ids_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str | None:
    """Text of ids, special tokens included, or None if tokenising it does not give the ids back."""
    text = token_text(tokenizer, ids, skip_special_tokens=False)
    return text if text_tokens(tokenizer, text) == tuple(ids) else None


def from_text(
    identity: str, prompt: str, response: str, step_map: Sequence[int] | None, settings: ImportSettings
) -> Trajectory | Drop:
    """A trajectory from a prompt and a response as text; no step map means one token per step, in order.

    Raises InputError without a tokenizer.
    """
    if settings.tokenizer is None:
        raise InputError("model", None, "the input holds text, which needs a tokenizer", "set model")
    prompt_ids = text_tokens(settings.tokenizer, prompt)
    response_ids = text_tokens(settings.tokenizer, response)
    if prompt_ids is None or response_ids is None:
        return Drop(id=identity, reason=DropReason.TEXT_CHANGED)
    if step_map is None:
        step_map = range(settings.first_step, settings.first_step + len(response_ids))
    counted_from_one = tuple(step + 1 - settings.first_step for step in step_map)
    return assemble(identity, prompt_ids, response_ids, counted_from_one, settings)


def assemble(
    identity: str,
    prompt_ids: tuple[int, ...],
    response_ids: tuple[int, ...],
    step_map: tuple[int, ...],
    settings: ImportSettings,
) -> Trajectory | Drop:
    """A trajectory from ids and a 1-based step map; a step below 1 stands for "never set".

    The answer ends at the first stop token. A response that ends inside a block is marked as cut.
    """
    problems = {
        DropReason.EMPTY_PROMPT: not prompt_ids,
        DropReason.EMPTY_RESPONSE: not response_ids,
        DropReason.LENGTH_MISMATCH: len(step_map) != len(response_ids),
        DropReason.NEVER_SET: min(step_map, default=1) < 1,
    }
    for reason, holds in problems.items():
        if holds:
            return Drop(id=identity, reason=reason)
    if not steps_follow_blocks(step_map, len(prompt_ids), settings.block_size):
        return Drop(id=identity, reason=DropReason.STEPS_FALL)
    length, finish_reason = visible_length(response_ids, settings.stop_token_ids, len(response_ids))
    return Trajectory(
        id=identity,
        prompt_ids=prompt_ids,
        response_ids=response_ids,
        step_map=step_map,
        visible_length=length,
        finish_reason=finish_reason,
        block_size=settings.block_size,
        mask_token_id=settings.mask_token_id,
        decode_params=settings.decode_params,
        terminal_complete=(len(prompt_ids) + len(response_ids)) % settings.block_size == 0,
        task=settings.task,
        teacher=settings.teacher,
        tokenizer_hash=settings.tokenizer_hash,
    )


def text_drop(trajectory: Trajectory, tokenizer: PreTrainedTokenizerBase) -> Drop | None:
    """Why a trajectory cannot be written as text, or None: its ids must be those of the text."""
    for ids in (trajectory.prompt_ids, trajectory.response_ids[: trajectory.visible_length]):
        if ids_text(tokenizer, ids) is None:
            return Drop(id=trajectory.id, reason=DropReason.TEXT_CHANGED)
    return None

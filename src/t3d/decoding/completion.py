"""What decoding takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.trajectory import FinishReason


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeRequest:
    """One prompt to continue; ``id`` keys the result and the sampling noise."""

    id: str
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One decoded response.

    ``response_ids`` and ``step_map`` hold the whole terminal block; the first ``visible_length``
    tokens, the stop token included, are the answer. ``step_map`` is the denoising step that
    committed each token: 1-based, counted over the whole response.
    """

    id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    step_map: tuple[int, ...]
    visible_length: int
    finish_reason: FinishReason
    num_denoising_steps: int
    num_commit_forwards: int
    """Forwards that only wrote the keys and values of a finished block."""

    @property
    def visible_ids(self) -> tuple[int, ...]:
        """Tokens up to and including the stop token."""
        return self.response_ids[: self.visible_length]

    @property
    def num_forwards(self) -> int:
        """Forwards of this request, commits counted, the prefill of the prompt not counted."""
        return self.num_denoising_steps + self.num_commit_forwards


def visible_length(
    response_ids: Sequence[int], stop_token_ids: Sequence[int], max_new_tokens: int
) -> tuple[int, FinishReason]:
    """Where the answer ends: after the first stop token, and at most at ``max_new_tokens``."""
    for index, token in enumerate(response_ids[:max_new_tokens]):
        if token in stop_token_ids:
            return index + 1, "stop"
    return min(len(response_ids), max_new_tokens), "length"


def check_request(request: DecodeRequest, params: DecodeParams, max_positions: int) -> None:
    """Raise :class:`InputError` for an empty prompt or one that cannot fit the model's positions."""
    if not request.prompt_ids:
        raise InputError(
            "prompt_ids", request.id, "this request has an empty prompt", "give it at least one token"
        )
    length = len(request.prompt_ids) + params.max_new_tokens
    padded = -(-length // params.block_size) * params.block_size
    if padded > max_positions:
        raise InputError(
            "max_new_tokens",
            params.max_new_tokens,
            f"request {request.id!r} has {len(request.prompt_ids)} prompt tokens and would need {padded} "
            f"positions, but the model has {max_positions}",
            "shorten the prompt or lower max_new_tokens",
        )

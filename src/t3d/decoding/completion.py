"""What decoding takes and gives."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from t3d.counter_rng import stable_key
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.trajectory import FinishReason, Trajectory, steps_by_block


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeRequest:
    """One prompt to continue; ``id`` keys the result and the sampling noise."""

    id: str
    prompt_ids: tuple[int, ...]
    noise_id: str | None = None
    """Keys the noise in the place of ``id``: for requests under several ids that are to draw the same."""

    @property
    def noise_key(self) -> int:
        """What the sampling noise depends on besides seed, position and step."""
        return stable_key(self.id if self.noise_id is None else self.noise_id)

    def samples(self, count: int) -> "list[DecodeRequest]":
        """The same prompt ``count`` times, as ``ID#0``, ``ID#1``, ...; once under its own id.

        Sample j has its own noise, which does not depend on how many others there are.
        """
        if count == 1:
            return [self]
        return [dataclasses.replace(self, id=f"{self.id}#{number}") for number in range(count)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One decoded response, or the reason why there is none (``finish_reason`` "error").

    ``response_ids``, ``step_map`` and ``logprobs`` hold the whole terminal block; the first
    ``visible_length`` tokens, the stop token included, are the answer. ``step_map`` is the denoising
    step that committed each token: 1-based, counted over the whole response. A response of ``left_to_right``
    or ``self_speculative`` ends with the answer, inside a block, and its denoising steps are its forwards.
    """

    id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...] = ()
    step_map: tuple[int, ...] = ()
    visible_length: int = 0
    finish_reason: FinishReason | Literal["error"]
    num_denoising_steps: int = 0
    num_commit_forwards: int = 0
    """Forwards that only wrote the keys and values of a finished block; 0 where commits are fused, but for a
    prompt that is read again since drafts gave no numbers."""
    num_drafted: int = 0
    """Draft tokens that forwards checked (``self_speculative``)."""
    num_accepted: int = 0
    """Those of them that were right, together with all before them in their drafts; behind a stop token too,
    which the response does not have. Over an engine's completions both add up to what its stats count."""
    params: DecodeParams
    mask_token_id: int
    logprobs: tuple[float, ...] = field(default=(), compare=False)
    """Log-probability of each response token when it was committed: the model's own, temperature 1."""
    seconds: float = field(default=0.0, compare=False)
    """Time from admission to the last token."""
    text: str = field(default="", compare=False)
    """The visible answer without special tokens; filled in where there is a tokenizer (``t3d.LLM``)."""
    error: str = ""

    @classmethod
    def of_failure(
        cls, request: DecodeRequest, params: DecodeParams, mask_token_id: int, error: str
    ) -> "Completion":
        """That of a request that has no response, for this reason."""
        return cls(
            id=request.id,
            prompt_ids=request.prompt_ids,
            finish_reason="error",
            params=params,
            mask_token_id=mask_token_id,
            error=error,
        )

    @property
    def visible_ids(self) -> tuple[int, ...]:
        """Tokens up to and including the stop token."""
        return self.response_ids[: self.visible_length]

    @property
    def num_forwards(self) -> int:
        """Forwards of this request, commits counted, the prefill of the prompt not counted."""
        return self.num_denoising_steps + self.num_commit_forwards

    @property
    def trajectory(self) -> Trajectory:
        """The response with the order of its commits. Raises InputError if there is no response.

        A forward that fills a block commits a token of the next one too, which comes one step later here.
        """
        if self.finish_reason == "error":
            raise InputError("request", self.id, f"has no response: {self.error}", "drop or repair it")
        length, size = len(self.prompt_ids), self.params.block_size
        step_map = self.step_map
        if self.params.is_left_to_right:
            step_map = steps_by_block(step_map, length, size)
        return Trajectory(
            id=self.id,
            prompt_ids=self.prompt_ids,
            response_ids=self.response_ids,
            step_map=step_map,
            visible_length=self.visible_length,
            finish_reason=self.finish_reason,
            block_size=size,
            terminal_complete=(length + len(self.response_ids)) % size == 0,
            mask_token_id=self.mask_token_id,
            decode_params=self.params.record(),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockUpdate:
    """What a denoising step made of a request's active block."""

    id: str
    response_start: int
    """Index in the response of the first of these tokens."""
    token_ids: tuple[int | None, ...]
    """The block's response tokens; None where still masked."""
    num_visible: int
    """How many of them the answer can have: those behind a stop token, or past its limit, it never has."""
    is_committed: bool
    """Whether the block is finished; otherwise this is a provisional view of it."""
    completion: Completion | None = None
    """The whole completion, with a request's last block or its refusal."""
    step_map: tuple[int, ...] = field(default=(), compare=False)
    """Of each token as in a completion; any number where still masked. So are ``logprobs``."""
    logprobs: tuple[float, ...] = field(default=(), compare=False)
    stop: Sequence[str] = field(default=(), compare=False)
    """The stop texts of its request."""
    text: str = ""
    """What the block adds to the visible answer; filled in where there is a tokenizer (``t3d.LLM``)."""

    @classmethod
    def of_end(cls, completion: Completion) -> "BlockUpdate":
        """That of a request which ends without another block."""
        return cls(
            id=completion.id,
            response_start=0,
            token_ids=(),
            num_visible=0,
            is_committed=True,
            completion=completion,
        )


class DecodingError(RuntimeError):
    """Some requests have no completion; those that have one are in ``completions``, by request id."""

    def __init__(self, problems: dict[str, str], completions: dict[str, Completion]) -> None:
        self.problems, self.completions = problems, completions
        listed = [f"{identity!r}: {problem.rstrip('.')}" for identity, problem in list(problems.items())[:8]]
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        done = f"The other {len(completions)} are finished (.completions of this error)."
        super().__init__(f"{len(problems)} requests failed: {'; '.join(listed)}{more}. {done}")

    @classmethod
    def of_results(cls, lost: dict[str, str], done: Mapping[str, Completion]) -> "DecodingError":
        """The error of requests without any result and of those refused among the ones that are done."""
        refused = {name: completion.error for name, completion in done.items() if completion.error}
        return cls(lost | refused, {name: c for name, c in done.items() if name not in refused})


def completions_of(
    requests: Sequence[DecodeRequest],
    done: Mapping[str, Completion],
    *,
    on_error: Literal["raise", "return"] = "raise",
) -> list[Completion]:
    """The completions of these requests, in their order.

    Raises DecodingError if a request has none, and for refusals unless they are to be returned.
    """
    lost = {r.id: "the engine lost it" for r in requests if r.id not in done}
    if lost or (on_error == "raise" and any(completion.error for completion in done.values())):
        raise DecodingError.of_results(lost, done)
    return [done[request.id] for request in requests]


def num_positions_needed(request: DecodeRequest, params: DecodeParams) -> int:
    """Positions that the request may take: prompt and new tokens, up to the end of the last block."""
    length = len(request.prompt_ids) + params.max_new_tokens
    return -(-length // params.block_size) * params.block_size


def is_too_long(request: DecodeRequest, params: DecodeParams, max_positions: int) -> bool:
    """Whether the request cannot fit into these positions."""
    return num_positions_needed(request, params) > max_positions


def check_request(
    request: DecodeRequest, params: DecodeParams, max_positions: int, whose_limit: str = "the model has"
) -> None:
    """Raise :class:`InputError` for an empty prompt or one that cannot fit into these positions."""
    if not request.prompt_ids:
        raise InputError(
            "prompt_ids", request.id, "this request has an empty prompt", "give it at least one token"
        )
    if is_too_long(request, params, max_positions):
        needed = num_positions_needed(request, params)
        raise InputError(
            "max_new_tokens",
            params.max_new_tokens,
            f"request {request.id!r} has {len(request.prompt_ids)} prompt tokens and would need {needed} "
            f"positions, but {whose_limit} {max_positions}",
            "shorten the prompt or lower max_new_tokens"
            + (", or raise max_model_len" if "max_model_len" in whose_limit else ""),
        )


def check_token_ids(request: DecodeRequest, vocab_size: int) -> None:
    """Raise :class:`InputError` for the first token of a prompt without a row: its forward would fail."""
    for token in request.prompt_ids:
        if not 0 <= token < vocab_size:
            problem = (
                f"request {request.id!r} has this token id, but the model has rows for 0 to {vocab_size - 1}"
            )
            raise InputError(
                "prompt_ids", token, problem, "tokenize the prompt with the model's own tokenizer"
            )


def check_requests(requests: Iterable[DecodeRequest], params: DecodeParams, max_positions: int) -> None:
    """:func:`check_request` for all of them, before any work is done."""
    for request in requests:
        check_request(request, params, max_positions)

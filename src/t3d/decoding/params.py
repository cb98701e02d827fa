"""How to decode: the block schedule, the transfer strategy and the sampling."""

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, fields
from typing import Any, Literal, get_args

from t3d.errors import (
    InputError,
    is_whole_number,
    require_at_least_zero,
    require_choices,
    require_numbers,
    require_positive,
    require_whole,
)
from t3d.predicts import Predicts

StaticRemasking = Literal["low_confidence_static", "sequential", "random"]
"""Strategies that commit exactly as many tokens as the schedule plans."""
AdaptiveRemasking = Literal["low_confidence_dynamic", "entropy_bounded"]
"""Strategies that may commit more where the model is sure."""
LeftToRight = Literal["left_to_right", "self_speculative"]
"""Strategies that draw each token behind all before it; the second drafts, and gives the same tokens."""
Remasking = Literal[StaticRemasking, AdaptiveRemasking, LeftToRight]
"""The rules are in :mod:`t3d.decoding.transfer`, of the last two in :mod:`t3d.decoding.self_speculation`."""
Confidence = Literal["model", "sampled"]
Context = Literal["block", "causal"]
DraftGroups = Literal["last", "all", "auto"]
BATCH_SIZE = 256
"""Requests decoded together where nothing else is said."""
DRAFT_TOKENS = 4
"""Of an autoregressive model, which has no blocks that would end a draft."""
MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-6, 1e6
"""At the first, tokens whose logits differ by more than float32 rounding are drawn as greedily as at 0."""
NOT_LEFT_TO_RIGHT = {
    "confidence": "goes by position",
    "confidence_threshold": "has no threshold",
    "entropy_bound": "has no bound",
}
"""Fields without a meaning for left_to_right and self_speculative, and why."""
OF_DRAFTS = ("draft_groups", "max_draft_tokens")
USED_BY = {
    "confidence_threshold": "low_confidence_dynamic (t3d eval: --dynamic)",
    "entropy_bound": "entropy_bounded (t3d eval: --entropy-bound)",
    **dict.fromkeys(OF_DRAFTS, "self_speculative (t3d eval: --self-speculative)"),
}
"""Of fields that one strategy alone uses, that one."""
_UNSET: dict[str, Any] = {"n": 1, "stop": []}
"""Fields that are written down only where they say something."""
_WHOLE = ("block_size", "steps_per_block", "max_draft_tokens", "top_k", "max_new_tokens", "seed", "n")
_NUMBERS = ("temperature", "top_p", "confidence_threshold", "entropy_bound")
_OF_NEXT = "use left_to_right or self_speculative"
_NO_TEMPERATURE = f"neither 0 nor from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}"


@dataclass(frozen=True, kw_only=True)
class DecodeParams:
    """Settings of block-diffusion decoding. Defaults are the paper's full-step decoding (Table 1)."""

    block_size: int = 4
    """Tokens per diffusion block (paper: BS)."""
    steps_per_block: int = 4
    """Denoising steps per block (paper: DS); block_size / steps_per_block tokens per step."""
    remasking: Remasking = "low_confidence_static"
    """Which masked positions a step commits. Nothing committed is ever masked again."""
    confidence_threshold: float = 0.9
    """low_confidence_dynamic commits all positions above it, and at least the static count."""
    entropy_bound: float = 0.1
    """entropy_bounded commits the surest positions while their entropies (nats) add up to less than it."""
    predicts: Predicts = "self"
    """Of the model, not a choice: ``next`` for an autoregressive one, decoded left to right in blocks of one
    token with causal context."""
    context: Context = "block"
    """left_to_right and self_speculative read a finished block whole, or token by token, causally."""
    draft_groups: DraftGroups = "last"
    """self_speculative drafts behind the whole draft that it checks, behind every part of it, or where that
    pays (:mod:`t3d.decoding.draft_costs`); forwards, not tokens, then depend on what is decoded beside."""
    max_draft_tokens: int = 0
    """self_speculative drafts at most so many tokens at once; 0: the rest of the block, or 4 for an
    autoregressive model."""
    confidence: Confidence = "model"
    """Probability of the drawn token under the model itself, or as sampled (tempered, filtered)."""
    temperature: float = 0.1
    """0 decodes greedily. Otherwise 1e-6 to 1e6, so that no logit divided by it overflows in float32."""
    top_k: int = 0
    """Sample among the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Sample among the likeliest tokens whose probabilities reach top_p; 1 keeps all."""
    max_new_tokens: int = 256
    """Most visible response tokens, the stop token included."""
    seed: int = 0
    """Seed of the sampling noise."""
    n: int = 1
    """Responses to each prompt of ``LLM.generate``, ``stream`` and ``chat``. Those of a prompt with the id ID
    are the ones of the requests ``ID#0``, ``ID#1``, ..., however many there are."""
    stop: Sequence[str] = ()
    """Texts before the first of which the response's text ends; a single text will do. They are looked for
    block by block."""
    tokens_per_step: InitVar[int | None] = None
    """Says ``steps_per_block`` by the tokens that each step commits, which divide the block; that field alone
    is kept."""

    def __new__(cls, **given: Any) -> "DecodeParams":
        """One way alone says the steps of a block."""
        if given.get("tokens_per_step") is not None and "steps_per_block" in given:
            problem = "steps_per_block says the same"
            fix = "give one of the two (steps_per_block where dataclasses.replace changes existing settings)"
            raise InputError("tokens_per_step", given["tokens_per_step"], problem, fix)
        return super().__new__(cls)

    def __post_init__(self, tokens_per_step: int | None) -> None:
        object.__setattr__(self, "stop", stop_texts(self.stop))
        require_whole(self, *_WHOLE)
        for name in _WHOLE:
            object.__setattr__(self, name, int(getattr(self, name)))  # numpy's, too
        require_numbers(self, *_NUMBERS)
        if tokens_per_step is not None:
            require_positive(self, "block_size")
            if self.is_left_to_right:
                problem = f"remasking={self.remasking!r} has no number of steps"
                raise InputError("tokens_per_step", tokens_per_step, problem, "leave it out")
            object.__setattr__(self, "steps_per_block", steps_of(self.block_size, tokens_per_step))
        self._check()
        if self.n > 1:
            self.check_samples("n", self.n)

    def _check(self) -> None:
        require_positive(self, "block_size", "steps_per_block", "max_new_tokens", "n")
        require_choices(self)
        require_at_least_zero(self, "temperature", "entropy_bound", "max_draft_tokens")
        fits, size = self.steps_per_block <= self.block_size, self.block_size
        too_many = f"exceeds block_size={size}, and each step commits at least one token"
        fewer = f"use at most steps_per_block={size}"
        if self.is_left_to_right:
            fits = self.steps_per_block in (DecodeParams.steps_per_block, size)
            too_many, fewer = f"remasking={self.remasking!r} has no number of steps", "leave it out"
        is_threshold, is_int64 = 0 <= self.confidence_threshold <= 1, -(2**63) <= self.seed < 2**63
        has_temperature = self.temperature == 0 or MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE
        is_next, is_causal = self.predicts == "next", self.is_left_to_right and self.context == "causal"
        of_next = "is how an autoregressive model (predicts='next') is decoded"
        greedy_sampled = self.temperature == 0 and self.confidence == "sampled"
        for field, holds, problem, fix in (
            ("steps_per_block", fits, too_many, fewer),
            ("temperature", has_temperature, _NO_TEMPERATURE, "use 0 (greedy) or for example 0.1"),
            ("top_k", self.top_k >= 0, "negative", "use 0 (all) or a positive count"),
            ("top_p", 0 < self.top_p <= 1, "not in (0, 1]", "use 1 to keep all tokens"),
            ("confidence_threshold", is_threshold, "not in [0, 1]", "use for example 0.9"),
            ("seed", is_int64, "not an integer of 64 bits", "use for example 0"),
            ("block_size", size == 1 or not is_next, f"1 {of_next}", "use block_size=1"),
            ("remasking", not is_next or self.is_left_to_right, f"left to right {of_next}", _OF_NEXT),
            ("context", not is_next or is_causal, f"causal {of_next}", "use context='causal'"),
            ("confidence", not greedy_sampled, "always 1 at temperature=0", "use confidence='model'"),
        ):
            if not holds:
                raise InputError(field, getattr(self, field), problem, fix)
        if self.is_left_to_right:
            for name, reason in NOT_LEFT_TO_RIGHT.items():
                if getattr(self, name) != getattr(DecodeParams, name):
                    raise without_effect(name, getattr(self, name), f"remasking={self.remasking!r} {reason}")

    @property
    def samples_differ(self) -> bool:
        """Whether two responses to a prompt may."""
        # The order of remasking "random" is drawn.
        return self.remasking == "random" or (self.temperature > 0 and self.top_k != 1)

    def check_samples(self, field: str, count: int) -> None:
        """Raise InputError for ``field`` where so many responses to a prompt would all be the same."""
        if count == 1 or self.samples_differ:
            return
        for name, greedy in (("temperature", 0), ("top_k", 1)):
            if getattr(self, name) == greedy:
                problem = f"all samples of a prompt are the same at {name}={greedy}"
                fix = f"raise {name}, or draw one sample of each prompt"
                raise InputError(field, count, problem, fix)

    def record(self) -> dict[str, Any]:
        """The settings as they are written down, JSON-ready; without ``n`` and ``stop`` where these are
        unset, so that what was recorded before there were such fields still says the same."""
        told = {item.name: getattr(self, item.name) for item in fields(self)}
        told |= {"stop": list(self.stop)}
        return {name: value for name, value in told.items() if name not in _UNSET or value != _UNSET[name]}

    @property
    def is_left_to_right(self) -> bool:
        """Whether each token is drawn behind all tokens before it."""
        return self.remasking in get_args(LeftToRight)

    @property
    def draft_room(self) -> int:
        """Most tokens that self_speculative drafts at once where nothing ends before."""
        if self.predicts == "next":
            return min(self.max_draft_tokens or DRAFT_TOKENS, self.max_new_tokens)
        return min(self.block_size, self.max_draft_tokens or self.block_size)

    @property
    def schedule(self) -> tuple[int, ...]:
        """Tokens planned for commit at each step of a block; the remainder goes to the first steps.

        A block that starts with prompt tokens has fewer masks: each step then commits
        ``min(planned, masks left)`` and the block ends as soon as no mask is left. ``left_to_right`` and
        ``self_speculative`` have none.
        """
        if self.is_left_to_right:
            return ()
        quotient, remainder = divmod(self.block_size, self.steps_per_block)
        return tuple(quotient + (step < remainder) for step in range(self.steps_per_block))


def stop_texts(stop: Sequence[str]) -> tuple[str, ...]:
    """The stop texts, of which one may stand alone. Raises InputError for what is none, or an empty one."""
    texts = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, Sequence) else (stop,)
    for text in texts:
        if not isinstance(text, str) or not text:
            raise InputError("stop", text, "not a text, or an empty one", 'give texts such as ["\\n\\n"]')
    return texts


def steps_of(block_size: int, tokens_per_step: int) -> int:
    """Steps of a block that commits so many tokens in each. Raises InputError unless they divide it."""
    is_whole = is_whole_number(tokens_per_step)
    if not is_whole or tokens_per_step < 1:
        problem = "not positive" if is_whole else "not a whole number"
        raise InputError("tokens_per_step", tokens_per_step, problem, "use 1 or more")
    if block_size % tokens_per_step:
        problem = f"does not divide block_size={block_size}"
        raise InputError("tokens_per_step", tokens_per_step, problem, f"use divisors of {block_size}")
    return block_size // int(tokens_per_step)


def without_effect(name: str, value: object, reason: str) -> InputError:
    """The error for a field that the others leave without effect."""
    other = f"decode by {USED_BY[name]}" if name in USED_BY else "change the other"
    return InputError(name, value, f"ignored: {reason}", f"leave it out, or {other}")

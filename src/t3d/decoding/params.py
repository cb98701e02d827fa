"""How to decode: the block schedule, the transfer strategy and the sampling."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from t3d.decoding.schedule import check_block_schedule
from t3d.errors import InputError

Remasking = Literal[
    "low_confidence_static", "low_confidence_dynamic", "entropy_bounded", "sequential", "random"
]
Confidence = Literal["model", "sampled"]


def _require(field: str, value: object, holds: bool, problem: str, fix: str) -> None:
    if not holds:
        raise InputError(field, value, problem, fix)


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
    confidence: Confidence = "model"
    """Probability of the drawn token under the model itself, or as sampled (tempered, filtered)."""
    temperature: float = 0.1
    """0 decodes greedily."""
    top_k: int = 0
    """Sample among the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Sample among the likeliest tokens whose probabilities reach top_p; 1 keeps all."""
    max_new_tokens: int = 256
    """Most visible response tokens, the stop token included."""
    seed: int = 0
    """Seed of the sampling noise."""

    def __post_init__(self) -> None:
        check_block_schedule(self.block_size, self.steps_per_block)
        for field, choices in (("remasking", get_args(Remasking)), ("confidence", get_args(Confidence))):
            value = getattr(self, field)
            _require(field, value, value in choices, "not known", f"use one of {', '.join(choices)}")
        finite = 0 <= self.temperature < math.inf
        _require("temperature", self.temperature, finite, "not a number of 0 or more", "use 0 or more")
        _require("top_k", self.top_k, self.top_k >= 0, "negative", "use 0 (all) or a positive count")
        _require("top_p", self.top_p, 0 < self.top_p <= 1, "not in (0, 1]", "use 1 to keep all tokens")
        _require(
            "max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "not positive", "use 1 or more"
        )
        threshold = self.confidence_threshold
        _require(
            "confidence_threshold", threshold, 0 <= threshold <= 1, "not in [0, 1]", "use for example 0.9"
        )
        bound = self.entropy_bound
        _require("entropy_bound", bound, 0 <= bound < math.inf, "not a number of 0 or more", "use 0 or more")
        is_int64 = -(2**63) <= self.seed < 2**63
        _require("seed", self.seed, is_int64, "not an integer of 64 bits", "use for example 0")
        greedy_sampled = self.temperature == 0 and self.confidence == "sampled"
        _require(
            "confidence",
            self.confidence,
            not greedy_sampled,
            "always 1 at temperature=0",
            "use confidence='model'",
        )

"""Flags that say how to decode, and what the checkpoint says where they do not."""

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from t3d.decoding.params import Confidence, Context, DecodeParams, DraftGroups, Remasking
from t3d.predicts import OF_NEXT, Predicts

_SIZES = ("block_size", "steps_per_block", "tokens_per_step")
"""Flags that say how large a block is at least."""


@dataclass(frozen=True, kw_only=True)
class DecodeFlags:
    """How to decode. What is not given is as the checkpoint says of itself (docs/evaluation.md), else as
    DecodeParams has it; a test holds the help to that."""

    block_size: int | None = None
    """Tokens per diffusion block. Default: the checkpoint's, else 4."""
    steps_per_block: int | None = None
    """Denoising steps per block. Default: the checkpoint's at its own block size, else 4."""
    tokens_per_step: int | None = None
    """Tokens committed by a step, in place of steps_per_block: block_size / tokens_per_step steps."""
    remasking: Remasking | None = None
    """Which masked positions a step commits. Default: the checkpoint's, else low_confidence_static."""
    confidence_threshold: float | None = None
    """low_confidence_dynamic commits all positions above it, and at least the static count. Default: the
    checkpoint's, else 0.9."""
    entropy_bound: float | None = None
    """entropy_bounded commits the surest positions while their entropies (nats) add up to less than it.
    Default: the checkpoint's, else 0.1."""
    confidence: Confidence | None = None
    """Probability of the drawn token under the model itself, or as sampled (tempered, filtered). Default:
    the checkpoint's, else model."""
    predicts: Predicts | None = None
    """Of the model, not a choice: next for an autoregressive one. Default: the checkpoint's, else self."""
    context: Context | None = None
    """left_to_right and self_speculative read a closed block whole, or token by token, for models trained so.
    Default: the checkpoint's, else block."""
    draft_groups: DraftGroups | None = None
    """self_speculative drafts behind the whole draft that it checks, behind every part of it, or where the
    processor makes it pay (auto). Default: the checkpoint's, else last."""
    max_draft_tokens: int | None = None
    """self_speculative drafts at most so many tokens at once; 0: the rest of the block, or 4 for an
    autoregressive model. Default: the checkpoint's, else 0."""
    temperature: float | None = None
    """0 decodes greedily. Default: the checkpoint's, else 0.1."""
    top_k: int | None = None
    """Sample among the k likeliest tokens; 0 keeps all. Default: the checkpoint's, else 0."""
    top_p: float | None = None
    """Sample among the likeliest tokens whose probabilities reach top_p; 1 keeps all. Default: the
    checkpoint's, else 1.0."""
    max_new_tokens: int = DecodeParams.max_new_tokens
    """Most visible response tokens, the stop token included."""
    seed: int = DecodeParams.seed
    """Seed of the sampling noise."""

    def __post_init__(self) -> None:
        given = self.given()
        if self.predicts == "next":
            given = OF_NEXT | given
        size = next((given[name] for name in _SIZES if name in given), DecodeParams.block_size)
        steps = {} if "tokens_per_step" in given else {"steps_per_block": size}
        fields: dict[str, Any] = {"block_size": size, **steps} | given
        DecodeParams(**fields)  # raises for what no checkpoint can make right

    def given(self) -> dict[str, Any]:
        """The fields that were given, by flag or config file."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def resolve(self, own: Mapping[str, Any], *, is_told: bool = True) -> "DecodeFlags":
        """All fields: given, else the checkpoint's, which are printed if wanted, else the default."""
        from t3d.decoding.precedence import check_used, resolve_params

        given, resolved = self.given(), resolve_params(own, self.given())
        check_used(given, resolved)
        params = resolved.record()
        if "tokens_per_step" in given:  # which says the steps
            del params["steps_per_block"]
            params["tokens_per_step"] = given["tokens_per_step"]
        told = [
            f"{name}={value}"
            for name, value in params.items()
            if name not in given and value != getattr(DecodeParams, name)
        ]
        if told and is_told:
            print(f"as the checkpoint says: {', '.join(told)}", file=sys.stderr)
        return DecodeFlags(**params)

    def params(self) -> DecodeParams:
        """Of resolved flags."""
        return DecodeParams(**self.given())

    def used(self) -> "DecodeFlags":
        """Resolved flags without those that the others leave without effect, which would be refused."""
        from t3d.decoding.precedence import ignored_fields

        return dataclasses.replace(self, **dict.fromkeys(ignored_fields(self.params())))


Flat = Annotated[DecodeFlags, tyro.conf.arg(name="")]
"""Decoding settings as top-level flags."""

"""Whose token the logits of a position are: its own, as of a block-diffusion model, or the one behind it."""

from typing import Any, Literal, get_args

from t3d.errors import InputError

Predicts = Literal["self", "next"]
"""``next``: an autoregressive model as it is, which sees nothing behind a token either."""
OF_NEXT = {"block_size": 1, "predicts": "next", "context": "causal", "remasking": "left_to_right"}
"""How an autoregressive model is decoded: there is no other way."""


def predicts_of(config: Any) -> Predicts:
    """As a model's config says; one that says nothing is a block-diffusion model.

    Raises InputError for anything else than these two.
    """
    told = getattr(config, "predicts", "self")
    if told not in get_args(Predicts):
        problem = "in config.json: no position whose token the logits are"
        raise InputError("predicts", told, problem, "use self, or next for an autoregressive model")
    return told

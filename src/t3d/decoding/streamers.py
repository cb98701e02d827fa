"""transformers' streamers, told of a response while it is decoded."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from t3d.decoding.completion import BlockUpdate, Completion
from t3d.errors import InputError


@runtime_checkable
class Streamer(Protocol):
    """What transformers' ``generate`` takes as ``streamer``; one with ``put_draft`` is shown steps, too."""

    def put(self, value: Any) -> None:
        """Take tokens for good, the prompt's first: int64 [1, T]."""
        ...

    def end(self) -> None:
        """Nothing comes any more."""
        ...


def check_streamed(num_requests: int) -> None:
    """Raise InputError unless one response is decoded: transformers' streamers have room for no more."""
    if num_requests != 1:
        problem = f"there are {num_requests} responses, and it is told of one"
        raise InputError("streamer", "given", problem, "give one prompt and n=1, or use LLM.stream")


def feed(
    streamer: Streamer, prompt_ids: Sequence[int], updates: Iterator[BlockUpdate], mask_token_id: int
) -> dict[str, Completion]:
    """Tell the streamer of one request's blocks; its completion by its id.

    ``put`` gets the prompt, then the visible tokens of each block as it is committed; ``put_draft``, if there
    is one, the active block as a denoising step left it, with ``mask_token_id`` where nothing is decided.
    ``end`` is called whatever happens.
    """
    done: dict[str, Completion] = {}
    try:
        streamer.put(torch.tensor([list(prompt_ids)], dtype=torch.int64))
        for update in updates:
            visible = update.token_ids[: update.num_visible]
            tokens = [mask_token_id if token is None else token for token in visible]
            if update.completion is not None:
                done[update.id] = update.completion
            if not update.is_committed:
                streamer.put_draft(torch.tensor([tokens]))  # ty: ignore[missing-attribute]
            elif tokens:
                streamer.put(torch.tensor([tokens]))
    finally:
        streamer.end()
    return done

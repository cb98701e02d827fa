"""One of several processes that share a model leads: what it decodes, the others are told and decode, too.

Their forwards need each other, so whoever has followers must decode by :meth:`t3d.decoding.llm.LLM.decode`.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedModel

from t3d.decoding.completion import BlockUpdate, DecodingError
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Job
from t3d.errors import InputError


@dataclass(frozen=True)
class Call:
    """All that another process needs to decode the same."""

    config: EngineConfig
    mask_token_id: int
    stop_token_ids: frozenset[int]
    jobs: Sequence[Job]

    def outcome(self, model: PreTrainedModel) -> str:
        """Decode it by this process's share of the model; how it ended, as :func:`outcome_of` says."""
        stops = tuple(self.stop_token_ids)
        engine = Engine(model, mask_token_id=self.mask_token_id, stop_token_ids=stops, config=self.config)
        try:
            engine.decode(self.jobs)
        except DecodingError as error:
            return outcome_of(error)
        return ""


@runtime_checkable
class Followers(Protocol):
    """The other processes that share a model."""

    def decoding(self, call: Call) -> AbstractContextManager[None]:
        """Inside, this process decodes the call and they do; at the end all must have ended alike."""


_FOLLOWERS: "WeakKeyDictionary[nn.Module, Followers]" = WeakKeyDictionary()


def lead(model: nn.Module, followers: Followers) -> None:
    """From now on they are told what this process decodes with its share of the model."""
    _FOLLOWERS[model] = followers


def check_has_no_followers(model: nn.Module) -> None:
    """Raise InputError where a forward that the others are not told of would wait for them for ever."""
    if model in _FOLLOWERS:
        problem = "other processes share it, and follow LLM.decode alone"
        fix = "use LLM.decode, or LLM.generate without a streamer"
        raise InputError("model", type(model).__name__, problem, fix)


@contextmanager
def followed(engine: Engine, jobs: Sequence[Job]) -> Generator[Iterator[BlockUpdate]]:
    """The engine's updates of the jobs; with followers, all are decoded whatever is raised inside."""
    updates, followers = engine.stream(jobs), _FOLLOWERS.get(engine.model)
    if followers is None:
        yield updates
        return
    with followers.decoding(Call(engine.config, engine.mask_token_id, engine.stop_token_ids, jobs)):
        try:
            yield updates
        finally:
            for _ in updates:  # nobody reads them any more
                pass


def outcome_of(error: DecodingError) -> str:
    """What all processes have to agree on: what was raised, and what was not finished then. Not its message,
    which may name a device."""
    return f"{type(error.__cause__).__name__} at {sorted(error.problems)}"

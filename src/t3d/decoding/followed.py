"""One of several processes that share a model leads: what it decodes, the others are told and decode, too.

Their forwards need each other, so whoever has followers must decode by :meth:`t3d.decoding.llm.LLM.decode`.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from torch import nn
from transformers import PreTrainedModel

from t3d.decoding.completion import BlockUpdate, Completion, DecodingError
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Job
from t3d.errors import InputError
from t3d.work.plan import fingerprint


class Outcome(NamedTuple):
    """How a call ended, in which all processes have to agree."""

    error: str = ""
    """What was raised, and what was not finished then. Not its message, which may name a device."""
    digest: str = ""
    """Of what was decoded."""

    @classmethod
    def of_call(cls, done: Mapping[str, Completion], failed: DecodingError | None) -> "Outcome":
        """Of completions by id, and what ended the call before its end."""
        told = sorted((one.id, one.finish_reason, one.response_ids, one.step_map) for one in done.values())
        if failed is None:
            return cls(digest=fingerprint(told))
        return cls(f"{type(failed.__cause__).__name__} at {sorted(failed.problems)}", fingerprint(told))


@dataclass(frozen=True)
class Call:
    """All that another process needs to decode the same."""

    config: EngineConfig
    mask_token_id: int
    stop_token_ids: frozenset[int]
    jobs: Sequence[Job]

    def outcome(self, model: PreTrainedModel) -> Outcome:
        """Decode it by this process's share of the model; how it ended."""
        stops, done = tuple(self.stop_token_ids), dict[str, Completion]()
        engine = Engine(model, mask_token_id=self.mask_token_id, stop_token_ids=stops, config=self.config)
        return Outcome.of_call(done, _failure_of(_noted(engine.stream(self.jobs), done)))


@runtime_checkable
class Followers(Protocol):
    """The other processes that share a model."""

    def tell(self, what: Call, /) -> None:
        """Have them decode the call, which this process does, too."""
        ...

    def agree(self, outcome: Outcome, /) -> None:
        """Wait until all have ended it; does not return where one ended otherwise than this process."""
        ...


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
    """The engine's updates of the jobs; with followers, all are decoded whatever is raised inside.

    Raises InputError for an engine with CUDA graphs and followers: what they record would be forwards more.
    """
    updates, followers = engine.stream(jobs), _FOLLOWERS.get(engine.model)
    if followers is None:
        yield updates
        return
    if not engine.config.enforce_eager:
        problem = "processes that share a model record no CUDA graphs"
        raise InputError("enforce_eager", False, problem, "leave it out")
    followers.tell(Call(engine.config, engine.mask_token_id, engine.stop_token_ids, jobs))
    done, raised = dict[str, Completion](), None
    noted = _noted(updates, done)
    try:
        yield noted
    except BaseException as error:  # the others decode to the end
        raised = error
    failed = raised if isinstance(raised, DecodingError) else _failure_of(noted)
    followers.agree(Outcome.of_call(done, failed))
    if (error := raised or failed) is not None:
        raise error


def _noted(updates: Iterator[BlockUpdate], done: dict[str, Completion]) -> Iterator[BlockUpdate]:
    """The updates, whose completions are noted by id."""
    for update in updates:
        if update.completion is not None:
            done[update.id] = update.completion
        yield update


def _failure_of(updates: Iterator[BlockUpdate]) -> DecodingError | None:
    """What ends them before their end, if anything does."""
    try:
        for _ in updates:
            pass
    except DecodingError as error:
        return error
    return None

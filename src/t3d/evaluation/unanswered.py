"""Requests of an evaluation for which the model raises: left out, told, and tried again by the next run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.failing import decode_without_failing
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.work.failures import Failures, UnitFailures


@dataclass(frozen=True)
class Unanswered:
    """Those among some requests of a task under a setting, as one attempt sees them."""

    failures: Failures
    chunks: Mapping[str, int]
    """Chunk of each of these requests, by id."""

    def ids(self) -> set[str]:
        """All that have failed and were not answered since."""
        return self._of_these(name for unit in self._units() for name in unit.all())

    def to_try(self) -> set[str]:
        """Those of other attempts."""
        return self._of_these(name for unit in self._units() for name in unit.to_try())

    def decode(
        self,
        llm: LLM,
        params: DecodeParams,
        requests: Sequence[DecodeRequest],
        on_finish: Callable[[Completion], None],
    ) -> None:
        """Answer requests, each by itself: one that fails takes no other with it, though it has its prompt.

        Raises TooManyErrors beyond the bound.
        """
        how = {"max_failed": self.failures.num_left(), "prompt_of": str, "on_finish": on_finish}
        _, failed = decode_without_failing(llm, requests, params, **how)
        asked = {request.id for request in requests}
        for number in sorted({self.chunks[name] for name in asked}):
            self.failures.add(number, [each for each in failed if self.chunks[each.id] == number])
            self.failures.of_unit(number).forget(asked)

    def _units(self) -> list[UnitFailures]:
        return [self.failures.of_unit(number) for number in sorted(set(self.chunks.values()))]

    def _of_these(self, names: Iterable[str]) -> set[str]:
        return {name for name in names if name in self.chunks}

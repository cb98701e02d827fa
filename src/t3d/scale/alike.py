"""Whether workers would make the same: by what the machine that starts them tells, and by one another."""

import socket
from collections.abc import Callable, Mapping
from typing import Any

from t3d.scale.worker import Hello
from t3d.work.plan import described, differences, full_plan

_VERSIONS = ("t3d", "transformers")
"""What its packages must be on the machine that starts them, too. Its torch may be a build for CPUs."""


class Alike:
    """The workers of one run. The first that is as this machine tells says what all others have to make.

    ``told`` gives the part of their plan that this machine can tell.
    """

    def __init__(self, told: Callable[[], Mapping[str, Any]] | None) -> None:
        self._told_by, self._told = told, dict[str, Any]()
        self.first: Hello | None = None

    def ask(self) -> None:
        """What this machine tells; that may take reading a model's files, as long as workers take for it."""
        if self._told_by is not None:
            self._told = {**_own_versions(), **self._told_by()}

    def refusal(self, hello: Hello) -> str:
        """How a worker differs; empty for one that is alike."""
        if found := differences(self._told, as_far_as(self._told, hello.plan)):
            return _differs(socket.gethostname(), hello.host, found)
        if self.first is None:
            self.first = hello
            return ""
        found = differences(self.first.plan, hello.plan)
        return _differs(self.first.host, hello.host, found) if found else ""


def as_far_as(told: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Of a plan the fields that ``told`` has; of those that only that has, nothing."""
    return {
        name: as_far_as(value, plan[name]) if isinstance(value, Mapping) else plan[name]
        for name, value in told.items()
        if name in plan
    }


def _own_versions() -> dict[str, Any]:
    versions = full_plan({})["versions"]
    return {"versions": {name: versions[name] for name in _VERSIONS}}


def _differs(host: str, other: str, found: list[str]) -> str:
    return f"differ between {host} and {other}: {described(found)}"

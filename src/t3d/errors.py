"""The error for input that a user can correct, and checks that many share."""

from collections.abc import Iterable


class InputError(ValueError):
    """A field has a value that cannot be used. The message names the field, the value and the fix.

    The command line prints it without a traceback and exits with status 2; every other exception is
    a bug and keeps its traceback.
    """

    def __init__(self, field: str, value: object, problem: str, fix: str) -> None:
        self.field, self.value, self.problem, self.fix = field, value, problem, fix
        super().__init__(f"{field}={value!r}: {problem}. Fix: {fix}.")


def require_positive(settings: object, *names: str) -> None:
    """Raise :class:`InputError` for the first of these attributes that is a number below 1; None passes."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(name, value, "not positive", "use 1 or more")


def require_unique_ids(ids: Iterable[str], owners: str) -> None:
    """Raise :class:`InputError` for the first id that two of the ``owners`` (requests, ...) share."""
    seen: set[str] = set()
    for identity in ids:
        if identity in seen:
            raise InputError("id", identity, f"used by two {owners}", "give each its own id")
        seen.add(identity)

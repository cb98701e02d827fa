"""Models that come with the package, by name."""

from difflib import get_close_matches
from pathlib import Path

_MINI = Path(__file__).parents[1] / "mini"
BUNDLED_MODELS = {"mini": _MINI / "teacher", "mini-small": _MINI / "teacher_small"}


def meant_model(source: str) -> str | None:
    """The name that was probably meant by one that nothing has."""
    return next(iter(get_close_matches(source, BUNDLED_MODELS, n=1)), None)

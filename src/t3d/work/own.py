"""Whether a file that stands where an output is to be is of the kind that its command writes there.

Files whose plan is compared before they are taken (rollouts, results, students) need none of this.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from t3d.work.files import read_json

SOFTWARE = "t3d"
"""What our pictures name as their software."""


def json_with(*fields: str) -> Callable[[Path], bool]:
    """Of JSON objects that have these fields."""

    def is_own(path: Path) -> bool:
        found = read_json(path)
        return isinstance(found, dict) and set(fields) <= found.keys()

    return is_own


def lines_with(*fields: str) -> Callable[[Path], bool]:
    """Of JSON Lines whose first object has these fields."""

    def is_own(path: Path) -> bool:
        with path.open("rb") as file, suppress(ValueError):
            found = json.loads(file.readline())
            return isinstance(found, dict) and set(fields) <= found.keys()
        return False

    return is_own


def text_from(beginning: str) -> Callable[[Path], bool]:
    """Of texts that begin so."""

    def is_own(path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(len(beginning.encode())) == beginning.encode()

    return is_own


def is_picture(path: Path) -> bool:
    """Of PNG files of ours; earlier versions did not name themselves."""
    with path.open("rb") as file:
        return b"tEXtSoftware\0" + SOFTWARE.encode() in file.read(1024)

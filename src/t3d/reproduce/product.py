"""What takes long to make and is kept: a file or folder, with the configuration that made it beside it.

Its name is the hash, which leaves out defaults, and alone does not tell what was made before one changed.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from t3d.reproduce.resolve import Resolved
from t3d.reproduce.store import is_same
from t3d.work.files import discard, write_errors, write_text


@dataclass(frozen=True, kw_only=True)
class Product:
    """``PATH``, with ``PATH.config.json`` and ``PATH.seconds.json`` beside it."""

    path: Path
    resolved: Resolved
    complete: Path
    """The file that is there once all of it is."""
    unfinished: Path
    """Folder of what a later process goes on from."""

    @property
    def is_made(self) -> bool:
        """Whether it is there, and was made by the present configuration."""
        return self.complete.is_file() and self._is_of_this_configuration

    @property
    def seconds(self) -> float:
        """How long it took; 0 where a kill came before that was written."""
        file = self._beside("seconds")
        return json.loads(file.read_text(encoding="utf-8"))["seconds"] if file.is_file() else 0.0

    def begin(self) -> None:
        """Before the work: remove all that another configuration has left, or one that nothing tells."""
        if self._is_of_this_configuration:
            return
        discard(self.unfinished)
        discard(self.path)
        with write_errors(self.path):
            for file in (self.path, self._beside("seconds")):
                file.unlink(missing_ok=True)
        write_text(self._beside("config"), json.dumps(self.resolved.full, indent=1) + "\n")

    def end(self, started: float) -> None:
        """After the work: keep its seconds since ``started``, of ``time.perf_counter``."""
        seconds = {"seconds": round(time.perf_counter() - started, 1)}
        write_text(self._beside("seconds"), json.dumps(seconds) + "\n")

    @property
    def _is_of_this_configuration(self) -> bool:
        try:
            recorded = json.loads(self._beside("config").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return is_same(recorded, self.resolved.full)

    def _beside(self, kind: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{kind}.json")

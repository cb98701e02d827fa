"""A command that is told to stop: by Ctrl-C, or by SIGTERM, as schedulers and ``kill`` send it."""

import glob
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class Kept:
    """What a cut command keeps."""

    text: str
    units: tuple[str, ...]
    """Patterns of paths, of which one is there as soon as something is finished."""


_OF_CELLS = (
    "{output}/evaluations/*/unfinished/*.jsonl",
    "{output}/evaluations/*/results.json",
    "{output}/records/*.parquet",
    "{output}/records/*.parquet.chunks/chunk-*",
    "{output}/checkpoints/*/checkpoint-*",
    "{output}/students/*/*",
    "{output}/cells/*.*.json",
)
KEPT = {
    "demo": Kept(
        "finished stages in {output}, and the responses or the checkpoint of the one that was cut",
        (
            "{output}/evaluations/*/unfinished/*.jsonl",
            "{output}/evaluations/*/results.json",
            "{output}/trajectories-*.parquet",
            "{output}/trajectories-*.parquet.chunks/chunk-*",
            "{output}/checkpoints-*/checkpoint-*",
        ),
    ),
    "rollout": Kept(
        "finished chunks of {chunk_size} prompts in {output}.chunks", ("{output}", "{output}.chunks/chunk-*")
    ),
    "train": Kept(
        "the newest checkpoint in {output}/checkpoints, of every {save_every} optimizer steps",
        ("{output}/checkpoints/checkpoint-*", "{output}/student", "{output}/drafter"),
    ),
    "distil": Kept(
        "finished rounds in {output}, and the chunks or the newest checkpoint of the one that was cut",
        (
            "{output}/round-*/trajectories.parquet",
            "{output}/round-*/trajectories.parquet.chunks/chunk-*",
            "{output}/round-*/checkpoints/checkpoint-*",
        ),
    ),
    "eval": Kept(
        "finished responses (in bfloat16: chunks of {chunk_size}) in {output}/unfinished",
        ("{output}/unfinished/*.jsonl", "{output}/results.json"),
    ),
    "grade": Kept("finished verdicts beside {output}", ("{output}", "{output}.unfinished/*.jsonl")),
    "reproduce": Kept("finished cells and students in {output}", _OF_CELLS),
    "reproduce cell": Kept("the student, or its newest checkpoint, in {output}", _OF_CELLS),
    "mini pretrain": Kept(
        "the newest checkpoint in {output}", ("{output}/checkpoints/checkpoint-*", "{output}/teacher")
    ),
}
"""By name of the command."""


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt no ``except Exception`` stops it, and what is open is closed."""


@contextmanager
def terminable() -> Generator[None]:
    """Inside, SIGTERM raises Terminated; outside of the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: set by C


def _terminate(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough; a second would cut the clean-up
    raise Terminated


def kept_text(name: str, command: Any) -> str:
    """What the command has kept, and how to go on; empty for one that keeps nothing."""
    if name not in KEPT or command is None:
        return ""
    kept, fields = KEPT[name], vars(command)
    paths = {"output": glob.escape(command.output)}
    if not any(glob.glob(unit.format(**paths)) for unit in kept.units):
        return "; nothing was finished yet, so nothing is kept. The same command begins anew"
    return f"; kept: {kept.text.format(**fields)}. The same command continues there"

"""A command that is told to stop: by Ctrl-C, or by SIGTERM, as schedulers and ``kill`` send it."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

KEPT = {
    "demo": "finished stages in {output}, and the responses or the checkpoint of the one that was cut",
    "rollout": "finished chunks of {chunk_size} prompts in {output}.chunks",
    "train": "the newest checkpoint in {output}/checkpoints, of every {save_every} optimizer steps",
    "eval": "finished responses (in bfloat16: chunks of {chunk_size}) in {output}/unfinished",
    "grade": "finished verdicts beside {output}",
    "reproduce": "finished cells and students in {output}",
    "reproduce cell": "the student, or its newest checkpoint, in {output}",
    "mini pretrain": "the newest checkpoint in {output}",
}
"""What a cut command keeps, by name."""


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
    """What the command keeps, and how to go on; empty for one that keeps nothing."""
    if name not in KEPT or command is None:
        return ""
    return f"; kept: {KEPT[name].format(**vars(command))}. The same command continues there"

"""Whose turn it is: threads that share a model, through one engine or several, run their forwards in turn.

Forwards of one model share more than its weights (buffers of the rotary embedding, recorded CUDA graphs,
the device itself), and each fills the device that it runs on. A turn is one forward and what follows from
it, so a stream that nobody reads on with holds none.
"""

import threading
from weakref import WeakKeyDictionary

from torch import nn

_GUARD = threading.Lock()
_TURNS: "WeakKeyDictionary[nn.Module, threading.Lock]" = WeakKeyDictionary()


def turns_of(model: nn.Module) -> threading.Lock:
    """The lock that a thread holds during its turn: one for each model in memory."""
    with _GUARD:
        return _TURNS.setdefault(model, threading.Lock())


def share_turns(first: nn.Module, second: nn.Module) -> None:
    """Let two models take turns with each other, so that one forward runs at a time and neither slows the
    other's. Before engines are made of them."""
    turns = turns_of(first)
    with _GUARD:
        _TURNS[second] = turns

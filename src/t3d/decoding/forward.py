"""The record of one forward of the engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from t3d.attention.slots import Spans
from t3d.decoding.decide import MaskedPositions


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """One forward of all rows: what it reads and writes, and what may be decided after it.

    R rows, T tokens, M places where logits are asked for: masked positions of active blocks first.
    """

    spans: Spans
    ids_T: np.ndarray
    row_M: np.ndarray
    position_M: np.ndarray
    """The positions that are decided there."""
    place_M: np.ndarray
    """Where they are among the tokens."""
    masked: list[MaskedPositions]
    """The same places, by group of rows."""
    checked: Mapping[int, slice] = field(default_factory=dict)
    """By row that is decoded left to right: which of the places are its own."""
    drafting_G: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Which of the tokens are masks of draft groups: a drafter acts on these alone."""
    written_R: np.ndarray
    """Clean tokens that each row writes."""
    denoises_R: np.ndarray
    """Whether its active block rides along."""
    is_commit_R: np.ndarray
    """Whether it only writes a finished block."""
    writes_prompt: bool

"""What became of the rows of a forward."""

from typing import NamedTuple

import numpy as np

from t3d.decoding.drafting import Checked


class Committed(NamedTuple):
    """What a forward left."""

    clean: np.ndarray
    """Rows whose block is clean now, or whose response ends."""
    num_finished_blocks: int
    """Blocks that are complete now: a row that drafts may finish two at once."""
    broken: np.ndarray
    """Rows whose logits are not numbers."""
    unread: np.ndarray
    """The same of rows that had drafts: they read it again without, before it is the model that is broken."""
    checked: list[Checked]
    """What became of the drafts."""

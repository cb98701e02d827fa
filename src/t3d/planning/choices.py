"""What a plan may be asked for."""

from typing import Literal

Parallel = Literal["ddp", "fsdp2"]
"""``ddp``: each process holds everything. ``fsdp2``: weights, gradients, moments and reference are cut up."""

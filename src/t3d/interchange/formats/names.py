"""The names of the formats."""

from typing import Literal

FormatName = Literal["t3d", "authors", "dllm_rl", "d3llm"]
"""``t3d`` is the Parquet file of this library; the others are in FOREIGN_FORMATS of the registry."""

# /// script
# requires-python = ">=3.11"
# dependencies = ["t3d"]
#
# [tool.uv.sources]
# t3d = { path = "../.." }
# ///
"""Put files of rollouts together: python join.py OUTPUT.parquet INPUT.parquet [INPUT.parquet ...].

Of an input with a slice behind its name, as in ``rollouts.parquet[24:48]``, these records.
"""

import re
import sys

from t3d.trajectory import Trajectory, read_trajectories, write_trajectories


def records_of(text: str) -> list[Trajectory]:
    """Of a file, or of a part of it."""
    name, first, last = re.fullmatch(r"(.*?)(?:\[(\d*):(\d*)\])?", text).groups()
    return read_trajectories(name)[int(first or 0) : int(last) if last else None]


output, *inputs = sys.argv[1:]
write_trajectories(output, [record for text in inputs for record in records_of(text)])

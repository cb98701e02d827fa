"""What tests of the page of t3d view share: small sources and the data that a page holds."""

import json
import re
from pathlib import Path
from typing import Any

from t3d.trajectory import Trajectory, write_trajectories

TITLES = (
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "\u202egnp.exe",
    "مرحبا بالعالم",
    "🧑‍🚀",
    "\ud800 lone",
)
"""Texts that a page could break at."""


def trajectory(
    identity: str = "a", *, steps: tuple[int, ...] = (1, 2, 2, 3, 4, 5, 5, 5), **fields: Any
) -> Trajectory:
    """Eight tokens in two blocks of four behind a prompt of four."""
    return Trajectory(
        **{
            "id": identity,
            "prompt_ids": (5, 6, 7, 8),
            "response_ids": tuple(range(20, 20 + len(steps))),
            "step_map": steps,
            "visible_length": len(steps) - 1,
            "finish_reason": "stop",
            "block_size": 4,
            "mask_token_id": 1,
            "task": "chain",
            **fields,
        }
    )


def write_rollout(path: Path, *trajectories: Trajectory) -> Path:
    """A Parquet file."""
    write_trajectories(path, trajectories)
    return path


def graded(identity: str, *, correct: bool, **fields: Any) -> dict[str, Any]:
    """A line of samples.jsonl."""
    costs = {"num_tokens": 3, "num_denoising_steps": 4, "num_forwards": 5, "finish_reason": "stop"}
    row = {"setting": "B4-T1", "task": "chain", "id": identity, "question": "how many?", "answer": "7"}
    row |= {
        "response": "so 7",
        "correct": correct,
        "extracted": None,
        "reason": "passed" if correct else "different",
    }
    return {**row, **costs, **fields}


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    """JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def embedded_text(page: str) -> str:
    """The data block of a page, as a browser finds its end."""
    return page.partition('id="data">')[2].partition("</script")[0]


def data_of(page: str) -> dict[str, Any]:
    """What a page holds."""
    return json.loads(embedded_text(page))


def css_pairs(style: str) -> dict[str, tuple[str, str]]:
    """Colours by name: light and dark."""
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", style)
    return {name: (light, dark) for name, light, dark in found}

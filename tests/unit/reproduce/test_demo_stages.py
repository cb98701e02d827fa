"""What the demo says of the time that is left is near what it took."""

import re
from pathlib import Path

import pytest

from t3d.reproduce.demo_config import DemoConfig
from t3d.reproduce.demo_stages import demo_stages
from t3d.work.progress import Stage, seconds_left

DEMO = Path(__file__).parents[3] / "docs" / "results" / "demo.md"


def measured() -> list[dict[str, float]]:
    """Seconds of each seed, by kind of stage."""
    lines = [line for line in DEMO.read_text().splitlines() if line.startswith("Seconds: ")]
    return [{name: float(text) for name, text in re.findall(r"(\w+) (\d+)", line)} for line in lines]


def committed_stages() -> list[Stage]:
    """Those of the committed runs."""
    return demo_stages(DemoConfig(output="x", limit=512))


def test_the_stages_begin_with_the_seconds_that_the_page_says():
    (said,) = re.findall(r"limit of 192 prompts the demo took (\d+) s", DEMO.read_text())
    assert seconds_left(demo_stages(DemoConfig(output="x")), {}) == pytest.approx(int(said), abs=1)


@pytest.mark.parametrize("seconds", measured())
def test_the_first_stage_tells_the_rest_within_a_third(seconds):
    """The machine grew slower during these runs."""
    stages = committed_stages()
    assert len(stages) == 7
    first = seconds["evaluate_teacher"]
    assert seconds_left(stages, {stages[0].name: first}) == pytest.approx(seconds["total"] - first, rel=1 / 3)


def test_a_drafter_adds_one_stage_beside_that_of_the_same_text():
    names = [stage.name for stage in demo_stages(DemoConfig(output="x", drafter="y"))]
    assert names[:3] == [
        f"evaluate {name}" for name in ("teacher", "teacher-left-to-right", "teacher-drafter")
    ]
    assert len(names) == 8

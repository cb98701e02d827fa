"""docs/theory.md's table on networks is that of the committed measures, which the code measures again."""

import json
import re
import runpy
from pathlib import Path
from statistics import mean

import pytest

from t3d.evaluation.intervals import t_half_width
from t3d.models.loading import load_model

ROOT = Path(__file__).parents[3]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "theory_networks.py"))
TASKS = json.loads((ROOT / BENCHMARK["OUTPUT"]).read_text(encoding="utf-8"))["tasks"]
PAGE = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")


def test_the_page_has_the_committed_table():
    for row in BENCHMARK["rows"](TASKS):
        assert f"| {' | '.join(row)} |" in PAGE
    sizes = {len(values) for found in TASKS.values() for one in found.values() for values in one.values()}
    (num_prompts,) = sizes
    assert f"The bundled teacher, {num_prompts} prompts of each task" in PAGE


def test_the_teacher_loses_what_its_posterior_loses_to_within_a_quarter():
    """And where the difference is outside its interval, over the same tokens of the same trajectories."""
    outside = []
    for task, found in TASKS.items():
        for count, one in found.items():
            difference = mean(one["difference"])
            assert abs(difference) < 0.25 * mean(one["posterior"])
            if abs(difference) > t_half_width(one["difference"]):
                outside.append((task, int(count), difference > 0))
    assert outside == [("make", 4, True), ("make", 8, True), *(("code", count, False) for count in (2, 4, 8))]
    listed = [round(100 * mean(found["8"]["listed"])) for found in TASKS.values()]
    assert "for {}, {} and {} % of the tokens".format(*listed) in re.sub(r"\s+", " ", PAGE)


@pytest.mark.many_inputs
@pytest.mark.parametrize("task", TASKS)
def test_prompts_measured_again_have_the_committed_numbers(task):
    found = BENCHMARK["measured"](load_model("mini", device="cpu"), task, num_prompts=1)
    for count, one in found.items():
        for name, values in one.items():
            assert values == pytest.approx(TASKS[task][count][name][:1], abs=1e-4)

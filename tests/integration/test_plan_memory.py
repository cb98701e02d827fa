"""``t3d plan``'s memory against what training steps take, on configurations that nothing was fitted on."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["checkpointed", "adapter", "tied, long", "no reference"])
def test_the_predicted_peak_is_within_a_fifth_of_the_measured_one(name, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    plan = importlib.import_module("plan")
    assert name in plan.VERIFIED
    measured = plan.measure_apart(name)
    assert plan.predicted(plan.CONFIGURATIONS[name])["total"] == pytest.approx(measured, rel=0.2)

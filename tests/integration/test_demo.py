"""The demo end to end at a toy budget, with the bundled teacher."""

import json

import pytest

from t3d.demo import SETTINGS, DemoConfig, run_demo
from t3d.models.loading import load_model
from t3d.trajectory import read_trajectories

NAMES = ["B4-T1", "B4-T2", "B4-T4", "B8-T1", "B8-T2", "B8-T4", "B8-T8", "B4-dynamic"]


def test_demo_writes_summary_plot_student_and_trajectories(tmp_path):
    sizes = {"num_prompts": 16, "num_optimizer_steps": 2, "train_batch_size": 8, "limit": 8}
    runs = []
    for name in ("first", "second"):
        config = DemoConfig(output=str(tmp_path / name), device="cpu", show_progress=False, **sizes)
        runs.append(run_demo(config))
        written = json.loads((tmp_path / name / "summary.json").read_text())
        assert written["models"] == runs[-1]["models"]
    summary = runs[0]
    assert list(SETTINGS) == NAMES
    for model in ("teacher", "student"):
        cells = summary["models"][model]
        assert list(cells) == NAMES
        for cell in cells.values():
            low, high = cell["ci95"]["mean"]
            assert 0 <= low <= cell["accuracy"]["mean"] <= high <= 100
            assert cell["accuracy"]["mean"] == pytest.approx(cell["accuracy"]["chain"])
            assert cell["n"] == 8
    assert summary["models"]["teacher"]["B4-T1"]["tokens_per_step"] == pytest.approx(1.0)
    assert summary["models"] == runs[1]["models"]  # same seed, same table
    files = [tmp_path / name / "trajectories.parquet" for name in ("first", "second")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(read_trajectories(files[0])) == 16
    assert (tmp_path / "first" / "plot.png").stat().st_size > 10_000
    load_model(tmp_path / "first" / "student", device="cpu")

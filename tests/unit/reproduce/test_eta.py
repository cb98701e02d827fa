"""Estimates before the work: by what finished cells took; what is missing counts, what is there does not."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from reproduce_helpers import record

from t3d.reproduce import eta
from t3d.reproduce.recipes import StudentSpec, demands
from t3d.reproduce.runner import ReproduceConfig, Reproduction
from t3d.reproduce.store import CellStore
from t3d.reproduce.study import read_study
from t3d.reproduce.study_run import StudyRun
from t3d.reproduce.suites import MINI
from t3d.work.progress import duration

CELLS = Path(__file__).parents[3] / "docs" / "results" / "cells"
TWO_CORES = 2**eta.PARALLEL_POWER
T3D = StudentSpec(teacher="mini", method="t3d", seed=0, learning_rate=5e-4)


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


def measure(folder, method, settings, *, training=0.0, teacher="mini", device="cpu", num_threads=1):
    """A finished cell of 100 responses: ``settings`` in seconds of each, a fifth of them grading, and the
    training in seconds of each of 10 trajectories."""
    costs = ("distinct_answers_per_prompt", "latency", "tokens_per_forward", "tokens_per_second")
    costs += ("mean_denoising_steps", "mean_length")
    rows = [
        {
            "setting": name,
            "task": task,
            "n": share,
            "seconds": 0.8 * seconds * share,
            "num_prompts": share,
            "num_correct": 0,
            **dict.fromkeys(costs, 1.0),
        }
        for name, seconds in settings.items()
        for task, share in (("chain", 20), ("make", 80))
    ]
    content = {
        "config_hash": "0",
        "command": "t3d",
        "teacher": teacher,
        "method": method,
        "results": rows,
        "seconds": sum(100 * seconds for seconds in settings.values()),
        "training_seconds": 10 * training,
        "num_threads": num_threads,
        "model": {"device": device},
        "config": {
            "training": {
                "max_steps": 5,
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 2,
            }
        },
    }
    folder.mkdir(exist_ok=True)
    name = "-".join([method, *settings])
    (folder / f"{name}.{len(list(folder.iterdir()))}.json").write_text(json.dumps(content))


def plan(folder, table, *, cells=None, **fields) -> eta.Plan:
    cells = None if cells is None else str(cells)
    config = ReproduceConfig(output=str(folder), cells=cells, device="cpu", **fields)
    return Reproduction(config, (table,)).plan()


def speeds(folder, kind="cpu", earlier=None) -> eta.Speeds:
    return eta.Speeds((folder, earlier), kind)


def test_a_quick_table_5_is_promised_in_a_quarter_of_an_hour_on_two_cores(tmp_path):
    quick = plan(tmp_path, 5, quick=True, cells=CELLS)
    assert sum(line.num_students for line in quick.lines.values()) == 9
    assert sum(line.num_done for line in quick.lines.values()) == 1, "the original's, which has no budget"
    assert sum(line.num_missing for line in quick.lines.values()) == 9
    assert 60 < quick.seconds <= 15 * 60


def test_by_hand_for_one_method(tmp_path):
    """Table 4 without a grid: three T3D students and the rollouts of 3072 prompts.

    Grid: 3 rates, each a student and 450 responses in three settings. Table: two further students (lambda 0.2
    is the grid's) and six settings of 3 x 512 responses for each of three.
    """
    seconds = {"B4-T1": 0.15, "B8-T1": 0.18, "B8-T2": 0.13, "B4-T4": 0.08, "B8-T4": 0.07, "B8-T8": 0.06}
    measure(tmp_path / "cells", "original", {"B4-T1": 0.1})
    measure(tmp_path / "cells", "t3d", seconds, training=0.03)
    training = 0.03 * 32 * 150
    grid = 3 * (training + 450 * (0.15 + 0.13 + 0.07))
    table = 2 * training + 3 * 1536 * sum(seconds.values())
    assert plan(tmp_path, 4).seconds == pytest.approx((0.1 * 3072 + grid + table) / TWO_CORES)


def test_finished_cells_take_no_time(tmp_path):
    measure(tmp_path / "cells", "original", {"B4-T1": 0.15})
    before = plan(tmp_path, 2).lines["mini", "original"]
    assert before.seconds == pytest.approx(0.15 * 1536 / TWO_CORES)
    (original, *_) = demands(MINI, [2], 1, MINI.full)
    (cell,) = original.cells(None)
    CellStore(tmp_path / "cells").write(cell.label, record(cell, lambda *_: 1))
    line = plan(tmp_path, 2).lines["mini", "original"]
    assert (line.num_done, line.num_missing, line.seconds) == (1, 0, 0.0)


def test_a_teacher_without_measurements_has_no_estimate(tmp_path):
    measure(tmp_path / "cells", "original", {"B4-T1": 0.1})
    measure(tmp_path / "cells", "t3d", {"B4-T1": 0.1}, training=0.1)
    found = plan(tmp_path, 5, quick=True, teachers=("mini-small",))
    assert found.num_rollouts == 1 and math.isnan(found.seconds)
    assert {duration(line.seconds) for line in found.lines.values()} == {"unknown"}


def test_what_was_not_measured_is_taken_to_be_as_slow_as_the_slowest(tmp_path):
    measure(tmp_path, "sft", {"B4-T1": 0.4, "B4-T2": 0.9}, training=2.0, num_threads=2)
    measure(tmp_path, "dparallel", {"B4-T1": 0.6}, training=3.0, num_threads=2)
    found, newest = speeds(tmp_path), dataclasses.replace(T3D, method="newest")
    assert found.seconds(newest, eta.TRAINING, 10) == pytest.approx(30.0)
    assert found.seconds(newest, "B4-T1", 10) == pytest.approx(6.0)
    assert found.seconds(newest, "B4-T4", 10) == pytest.approx(9.0), "of any setting"
    sft = dataclasses.replace(T3D, method="sft", overrides=(("weight_decay", 0.1),))
    assert found.seconds(sft, "B4-T1", 10) == pytest.approx(4.0)
    measure(tmp_path, "original", {"B4-T1": 0.4}, teacher="org/untrained", num_threads=2)
    untrained = dataclasses.replace(T3D, teacher="org/untrained")
    assert math.isnan(speeds(tmp_path).seconds(untrained, eta.TRAINING, 1))


def test_threads_count_on_a_cpu_and_other_devices_do_not(tmp_path):
    measure(tmp_path, "t3d", {"B4-T1": 0.5}, num_threads=4)
    measure(tmp_path, "t3d", {"B4-T1": 0.01}, device="cuda:0", num_threads=1)
    assert speeds(tmp_path).seconds(T3D, "B4-T1", 1) == pytest.approx(0.5 * TWO_CORES)
    assert speeds(tmp_path, "cuda").seconds(T3D, "B4-T1", 1) == pytest.approx(0.01)


def test_cells_of_the_output_tell_more_than_earlier_ones(tmp_path):
    measure(tmp_path / "earlier", "t3d", {"B4-T1": 5.0, "B4-T2": 3.0}, num_threads=2)
    measure(tmp_path / "own", "t3d", {"B4-T1": 1.0}, num_threads=2)
    found = speeds(tmp_path / "own", earlier=tmp_path / "earlier")
    assert found.seconds(T3D, "B4-T1", 1) == pytest.approx(1.0)
    assert found.seconds(T3D, "B4-T2", 1) == pytest.approx(3.0)


def test_a_file_that_cannot_be_read_measures_nothing(tmp_path):
    (tmp_path / "a.0.json").write_text("{")
    (tmp_path / "b.0.json").write_text('{"teacher": "mini"}')
    (tmp_path / "c.0.json").write_text('{"teacher": "mini", "model": 5, "results": [1]}')
    measure(tmp_path, "t3d", {"B4-T1": 0.0}, training=1.0)
    measure(tmp_path, "sft", {"B4-T1": math.nan})
    (path,) = tmp_path.glob("t3d-*.json")
    record = json.loads(path.read_text())
    record["config"]["training"]["max_steps"] = 0
    path.write_text(json.dumps(record))
    assert math.isnan(speeds(tmp_path).seconds(T3D, "B4-T1", 1))


def test_a_study_adds_up_the_time_of_every_budget_and_round(tmp_path, monkeypatch):
    """By hand, at 0.1 s a response and 0.03 s a trajectory of a step: T3D of two rounds, and one of another
    budget, each with full-step rollouts of its own and 3 x 4 answers."""
    monkeypatch.chdir(tmp_path)  # away from the cells of the repository
    one = {"settings": {"B4-T1": 0.1}, "training": 0.03, "num_threads": 2}
    measure(tmp_path / "cells", "t3d", **one)
    measure(tmp_path / "cells", "original", **one)
    rows = [
        f"      - {{name: {name}, method: t3d, {flags}}}"
        for name, flags in (
            ("twice", "num_prompts: 30, num_rounds: 2, num_optimizer_steps: 10"),
            ("once", "num_prompts: 40, num_optimizer_steps: 5"),
        )
    ]
    common = "common: {settings: [B4-T1], learning_rate: 1e-3, limit: 4, device: cpu}"
    lines = ["title: x", common, "groups:", "  - title: y", "    rows:", *rows]
    (tmp_path / "study.yaml").write_text("\n".join(lines))
    study = read_study(tmp_path / "study.yaml")
    found = StudyRun(study, tmp_path / "out", tmp_path / "cells").plan()
    assert (found.num_rollouts, sum(line.num_students for line in found.lines.values())) == (3, 2)
    assert found.rollout_seconds == pytest.approx(0.1 * (2 * 30 + 40))
    assert found.seconds == pytest.approx(0.1 * (100 + 2 * 12) + 0.03 * 32 * (2 * 10 + 5))

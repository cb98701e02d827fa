"""Estimates before the work: what is missing counts, what is there does not."""

import dataclasses

import pytest
from reproduce_helpers import record

from t3d.reproduce import eta
from t3d.reproduce.recipes import StudentSpec, demands, trained_methods
from t3d.reproduce.store import CellStore
from t3d.reproduce.students import Workshop
from t3d.reproduce.suites import MINI
from t3d.training.presets import PRESETS

TWO_CORES = 2**eta.PARALLEL_POWER


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr(eta, "speed", lambda: TWO_CORES)


def plan(folder, table, *, quick, seeds=1, suite=MINI):
    workshop = Workshop(suite=suite, quick=quick, output=folder)
    found = demands(suite, [table], seeds, suite.budget(quick=quick))
    rates = dict.fromkeys(trained_methods(found), suite.middle_learning_rate if quick else None)
    return eta.make_plan(workshop, CellStore(folder / "cells"), found, rates)


def test_a_quick_table_5_is_promised_in_a_quarter_of_an_hour_on_two_cores(tmp_path):
    quick = plan(tmp_path, 5, quick=True)
    assert sum(line.num_students for line in quick.lines.values()) == 9
    assert sum(line.num_missing for line in quick.lines.values()) == 10
    assert 60 < quick.seconds <= 15 * 60


def test_by_hand_for_one_method(tmp_path):
    """Table 4 without a grid: three T3D students and the rollouts of 3072 prompts.

    Grid: 3 rates, each a student and 450 responses in three settings. Table: two further students (lambda 0.2
    is the grid's) and six settings of 3 x 512 responses for each of three.
    """
    training = 1.9 / 2 * 150
    grid = 3 * (training + 0.45 * (15 + 13 + 8))
    table = 2 * training + 3 * 1.536 * (15 + 18 + 13 + 8 + 8 + 6)
    expected = (15.0 * 3.072 + grid + table) / TWO_CORES
    assert plan(tmp_path, 4, quick=False).seconds == pytest.approx(expected)


def test_finished_cells_take_no_time(tmp_path):
    store = CellStore(tmp_path / "cells")
    before = plan(tmp_path, 2, quick=False)
    (original, *_) = demands(MINI, [2], 1, MINI.full)
    (cell,) = original.cells(None)
    store.write(cell.label, record(cell, lambda *_: 1))
    after = plan(tmp_path, 2, quick=False)
    line = after.lines["mini", "original"]
    assert (line.num_done, line.num_missing, line.seconds) == (1, 0, 0.0)
    assert before.seconds - after.seconds == pytest.approx(15 * 1.536 / TWO_CORES)


def test_a_suite_without_measurements_has_no_estimate(tmp_path):
    suite = dataclasses.replace(MINI, teachers={"org/model": MINI.teachers["mini"]})
    assert plan(tmp_path, 5, quick=True, suite=suite).seconds == 0.0


def test_an_objective_without_measurements_is_taken_to_be_as_slow_as_the_slowest(tmp_path, monkeypatch):
    workshop = Workshop(suite=MINI, quick=False, output=tmp_path)
    slowest = StudentSpec(teacher="mini", method="dparallel", seed=0, learning_rate=5e-4)
    expected = eta.student_seconds(workshop, slowest)
    monkeypatch.setitem(PRESETS, "newest", {"objective": "newest"})
    newest = dataclasses.replace(slowest, method="newest")
    assert eta.student_seconds(workshop, newest) == expected > 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (119, "2 min"), (3599, "1 h 0 min"), (4800, "1 h 20 min")]
)
def test_durations_are_short_texts(seconds, text):
    assert eta.duration(seconds) == text

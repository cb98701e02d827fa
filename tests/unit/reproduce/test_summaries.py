"""From cells to numbers: averages with their intervals, improvement, retention, AUP."""

import dataclasses
import math

import pytest
from reproduce_helpers import N, records

from t3d.evaluation.intervals import wilson_interval
from t3d.reproduce.paper import printed
from t3d.reproduce.recipes import demands
from t3d.reproduce.suites import MINI, load_suite
from t3d.reproduce.summaries import table_entries


def entries(table, rule, seeds=3, suite=MINI):
    found = [(demand, records(demand, rule, suite)) for demand in demands(suite, [table], seeds, suite.full)]
    return {(e.teacher, e.method, e.setting, e.task, e.metric): e for e in table_entries(suite, found)}


def rule(cell, setting, task):
    """The original has half right; T3D three quarters at four tokens per step, all elsewhere."""
    if cell.student.method == "original":
        return N // 2
    return N * 3 // 4 if cell.student.method == "t3d" and setting.endswith("T4") else N


def test_table_1_averages_over_tasks_and_both_block_sizes():
    found = entries(1, rule)
    average = found["mini", "t3d", "T4", "average", "accuracy"]
    assert average.mean == 75.0
    assert average.seeds == (0, 1, 2)
    assert average.n == 3 * 2 * 3 * N
    assert average.paper == 39.66 and average.paper_is_printed
    assert len(average.config_hashes) == len(average.commands) == 6
    # Both settings have the same prompts, so they count once. So do those of the three seeds of make; of
    # those of code, two seeds share 22 / 3 / N on average.
    low, high = wilson_interval(0.75 * N, N)
    width = math.sqrt(1 / 3 + 1 + (1 + 2 * 22 / 3 / N) / 3) / 3
    expected = (75 - 100 * (0.75 - low) * width, 75 + 100 * (high - 0.75) * width)
    assert average.ci95 == pytest.approx(expected, abs=1e-3)
    improvement = found["mini", "t3d", "T4", "average", "improvement"]
    assert (improvement.mean, improvement.paper) == (50.0, 85.02)
    assert ("mini", "original", "T4", "average", "improvement") not in found
    assert found["mini-small", "t3d", "T4", "average", "accuracy"].seeds == (0,)


def test_seeds_that_differ_in_one_task_widen_its_interval_and_the_averages():
    """128, 256 and 384 of 512: 25 points of standard deviation, 62.1 of half-width, a third of it over three
    tasks."""

    def differing(cell, setting, task):
        return N // 4 * (cell.student.seed + 1) if task == "code" else N // 2

    found = entries(2, differing)
    code = found["mini", "t3d", "B4-T1", "code", "accuracy"]
    assert (code.mean, code.ci95) == (50.0, (0.0, 100.0))
    average = found["mini", "t3d", "B4-T1", "average", "accuracy"]
    assert average.ci95 == pytest.approx((50 - 20.70, 50 + 20.70), abs=0.01)
    chain = found["mini", "t3d", "B4-T1", "chain", "accuracy"].ci95
    make = found["mini", "t3d", "B4-T1", "make", "accuracy"].ci95
    assert chain[1] - 50 == pytest.approx((make[1] - 50) / math.sqrt(3), abs=0.01)


def test_a_model_with_nothing_right_has_no_improvement():
    found = entries(1, lambda cell, setting, task: 0, seeds=1)
    assert not [key for key in found if key[-1] == "improvement"]
    assert found["mini", "t3d", "B4", "average", "aup"].mean == 0.0


def test_table_1_has_aup_and_distinct_answers():
    found = entries(1, rule)
    # SFT is right everywhere: accuracy times the speed of its fastest point.
    assert found["mini", "sft", "B8", "chain", "aup"].mean == pytest.approx(800.0)
    # The original's 50 % against a best of 100: 50 + sum of trapezoids at weight exp(-1.5).
    assert found["mini", "original", "B4", "chain", "aup"].mean == pytest.approx(
        50 + 3 * 50 * 0.22313, abs=0.01
    )
    assert found["mini", "t3d", "B4-T1-temperature-1", "make", "distinct_answers_per_prompt"].mean == 2.0


def test_table_2_tells_how_much_is_kept():
    found = entries(2, rule, seeds=1)
    kept = found["mini", "sft", "B4-T1", "average", "retention"]
    assert kept.mean == 200.0 and not kept.paper_is_printed
    assert kept.paper == pytest.approx(
        100 * (60.2 + 86.05 + 50.2 + 69.51) / (68 + 89.84 + 58.6 + 71.95), abs=1e-4
    )
    average = found["mini", "original", "B4-T1", "average", "accuracy"]
    assert average.paper == pytest.approx((68 + 89.84 + 58.6 + 71.95) / 4) and not average.paper_is_printed


def test_table_3_has_every_measure_beside_the_papers_tempered_confidence():
    found = entries(3, rule, seeds=1)
    latency = found["mini", "t3d", "B4-dynamic-sampled", "average", "latency"]
    assert (latency.mean, latency.paper, latency.ci95) == (0.01, pytest.approx(0.37), None)
    assert found["mini", "t3d", "B4-dynamic", "average", "latency"].paper is None
    assert found["mini", "t3d", "B4-dynamic", "code", "tokens_per_second"].mean == 100.0


@pytest.mark.parametrize("table", [4, 5, 6, 7])
def test_ablations_stand_beside_math500(table):
    found = entries(table, rule, seeds=1)
    for (_, method, setting, task, metric), entry in found.items():
        if metric == "retention":
            expected = 100 * printed(5, entry.paper_model, method, setting, "math500") / 68.0
            assert (table, entry.mean) == (5, 200.0) and entry.paper == pytest.approx(expected, abs=1e-4)
            continue
        assert metric == "accuracy"
        expected = printed(table, entry.paper_model, method, setting, "math500")
        assert entry.paper == (expected if task == "average" else None)
        assert not entry.paper_is_printed


def test_real_benchmarks_stand_beside_their_own_numbers():
    suite = load_suite("sdar", "data")
    teacher = next(iter(suite.teachers))
    found = entries(7, rule, seeds=1, suite=suite)
    own = found[teacher, "t3d", "B8-T4", "math500", "accuracy"]
    assert (own.paper, own.paper_is_printed) == (45.0, True)
    assert found[teacher, "t3d", "B8-T4", "gsm8k", "accuracy"].paper is None
    assert found[teacher, "t3d", "B8-T4", "average", "accuracy"].paper is None, "it is no mean of four"
    found = entries(2, rule, seeds=1, suite=suite)
    average = found[teacher, "t3d", "B4-T1", "average", "accuracy"]
    assert average.paper == pytest.approx((70 + 89.31 + 54.2 + 73.78) / 4, abs=1e-4)


def sdar(*tasks):
    return dataclasses.replace(load_suite("sdar", "data"), tasks=tasks)


def test_averages_over_some_benchmarks_stand_beside_the_papers_over_the_same():
    suite = sdar("gsm8k")
    teacher = next(iter(suite.teachers))
    found = entries(1, rule, seeds=1, suite=suite)
    average = found[teacher, "t3d", "T2", "average", "accuracy"]
    assert average.paper == pytest.approx((83.85 + 81.96) / 2), "not 58.89, which is over four benchmarks"
    assert not average.paper_is_printed
    gain = found[teacher, "t3d", "T2", "average", "improvement"]
    assert gain.paper == pytest.approx(100 * (83.85 + 81.96) / (78.77 + 72.33) - 100, abs=1e-4)
    assert not gain.paper_is_printed
    found = entries(2, rule, seeds=1, suite=suite)
    assert found[teacher, "t3d", "B4-T1", "average", "accuracy"].paper == 89.31
    kept = found[teacher, "t3d", "B4-T1", "average", "retention"]
    assert kept.paper == pytest.approx(100 * 89.31 / 89.84, abs=1e-4)
    found = entries(3, rule, seeds=1, suite=suite)
    assert found[teacher, "t3d", "B4-dynamic-sampled", "average", "latency"].paper == 0.37
    assert found[teacher, "t3d", "B4-dynamic-sampled", "average", "accuracy"].paper == 72.4


def test_averages_over_all_benchmarks_stand_beside_the_printed_ones_in_any_order():
    suite = sdar("humaneval", "gsm8k", "mbpp", "math500")
    teacher = next(iter(suite.teachers))
    found = entries(1, rule, seeds=1, suite=suite)
    for metric, paper in (("accuracy", 58.89), ("improvement", 12.43)):
        entry = found[teacher, "t3d", "T2", "average", metric]
        assert (entry.paper, entry.paper_is_printed) == (paper, True)

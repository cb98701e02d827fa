"""From cells to numbers: intervals by hand, averages, improvement, retention, AUP."""

import pytest
from reproduce_helpers import N, records

from t3d.evaluation.metrics import mean_interval, wilson_interval
from t3d.reproduce.paper import printed
from t3d.reproduce.recipes import demands
from t3d.reproduce.suites import MINI, load_suite
from t3d.reproduce.summaries import seeds_interval, table_entries


def entries(table, rule, seeds=3, suite=MINI):
    found = [(demand, records(demand, rule, suite)) for demand in demands(suite, [table], seeds, suite.full)]
    return {(e.teacher, e.method, e.setting, e.task, e.metric): e for e in table_entries(suite, found)}


def test_one_seed_and_one_task_is_wilson_s_interval():
    assert seeds_interval([([0.37], [100])]) == pytest.approx((0.37, *wilson_interval(37, 100)))


def test_seeds_that_agree_count_as_more_prompts():
    """Two seeds at 0.5 of 100: mean_interval's 0.068002, as no chi-square is above 1."""
    centre, low, high = seeds_interval([([0.5], [100]), ([0.5], [100])])
    assert (centre, low, high) == pytest.approx((0.5, 0.431998, 0.568002), abs=1e-5)
    assert (low, high) == pytest.approx(mean_interval([0.5, 0.5], [100, 100]))


def test_seeds_that_differ_widen_the_interval_by_birges_ratio():
    """0.3 and 0.7 of 100: Wilson 0.3 gives [0.218949, 0.395848], 0.7 its mirror image.

    Standard errors (0.395848 - 0.218949) / 3.919928 = 0.045128 each; chi-square 2 (0.2 / 0.045128)^2 = 39.28
    over one degree of freedom, so a ratio of 6.2676. Below and above alike: hypot(0.081051, 0.095848) / 2 =
    0.062762, times the ratio 0.39337.
    """
    centre, low, high = seeds_interval([([0.3], [100]), ([0.7], [100])])
    assert centre == pytest.approx(0.5)
    assert high - centre == pytest.approx(0.39337, abs=2e-4)
    assert centre - low == pytest.approx(0.39337, abs=2e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_intervals_stay_between_0_and_1(share):
    _, low, high = seeds_interval([([share], [10])] * 3)
    assert 0 <= low < high <= 1


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
    # Both settings have the same prompts, so the interval is that of three seeds of three tasks.
    low, high = mean_interval([0.75] * 9, [N] * 9)
    assert average.ci95 == pytest.approx((100 * low, 100 * high), abs=1e-3)
    improvement = found["mini", "t3d", "T4", "average", "improvement"]
    assert (improvement.mean, improvement.paper) == (50.0, 85.02)
    assert ("mini", "original", "T4", "average", "improvement") not in found
    assert found["mini-small", "t3d", "T4", "average", "accuracy"].seeds == (0,)


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

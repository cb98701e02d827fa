"""The printed numbers: all there, and consistent except where the list says so."""

from collections import Counter

import pytest

from t3d.reproduce.paper import (
    INCONSISTENCIES,
    LARGE,
    PAPER_TASKS,
    SMALL,
    paper_mean,
    paper_values,
    printed,
)

METHODS = ("original", "sft", "redi", "dparallel", "naive_td", "t3d")
ROWS = [(model, tokens, method) for model in (SMALL, LARGE) for tokens in ("T2", "T4") for method in METHODS]
WRONG_AVERAGES = {(LARGE, "T2", "sft"), (LARGE, "T4", "naive_td")}


def cells_mean(model: str, tokens: str, method: str) -> float:
    values = [printed(1, model, method, f"{b}-{tokens}", task) for b in ("B4", "B8") for task in PAPER_TASKS]
    assert len(values) == 8 and None not in values
    return sum(values) / 8


def test_every_table_is_complete_and_no_cell_is_given_twice():
    counts = Counter(place.table for place in paper_values())
    assert counts == {1: 24 * 9 + 20, 2: 48, 3: 100, 4: 18, 5: 10, 6: 11, 7: 11}


@pytest.mark.parametrize(("model", "tokens", "method"), ROWS)
def test_the_printed_averages_are_those_of_the_cells_unless_listed(model, tokens, method):
    average = printed(1, model, method, tokens, "average")
    is_wrong = abs(cells_mean(model, tokens, method) - average) > 0.0051
    assert is_wrong == ((model, tokens, method) in WRONG_AVERAGES)
    if is_wrong:
        assert any(f"{average:.2f}" in text and model in text for text in INCONSISTENCIES)


@pytest.mark.parametrize(("model", "tokens", "method"), [row for row in ROWS if row[2] != "original"])
def test_the_printed_improvements_follow_from_the_averages(model, tokens, method):
    base = cells_mean(model, tokens, "original")
    average = cells_mean(model, tokens, method)
    if (model, tokens, method) in WRONG_AVERAGES:
        average = printed(1, model, method, tokens, "average")
    improvement = printed(1, model, method, tokens, "average", "improvement")
    assert 100 * (average / base - 1) == pytest.approx(improvement, abs=0.02)


def test_a_listed_correction_would_give_the_printed_average():
    rest = 8 * cells_mean(LARGE, "T2", "sft") - printed(1, LARGE, "sft", "B4-T2", "gsm8k")
    assert 8 * 46.76 - rest == pytest.approx(68.15, abs=0.005)


def test_tables_agree_where_they_print_the_same_cell_of_the_original_model():
    for table, setting, source in ((5, "B4-T1", 2), (6, "B8-T2", 1), (7, "B8-T4", 1)):
        for method in ("original", "redi"):
            assert printed(table, LARGE, method, setting, "math500") == printed(
                source, LARGE, method, setting, "math500"
            )


def test_the_listed_contradictions_are_in_the_data():
    full = [printed(table, LARGE, "t3d", "B4-T1", "math500") for table in (2, 4, 5)]
    assert full == [70.0, 69.0, 69.0]
    assert printed(2, LARGE, "naive_td", "B4-T1", "math500") == printed(
        5, LARGE, "naive_td_random", "B4-T1", "math500"
    )
    assert printed(6, LARGE, "ddo_path", "B8-T2", "math500") > printed(6, LARGE, "t3d", "B8-T2", "math500")
    assert printed(1, SMALL, "dparallel", "T4", "average") > printed(1, SMALL, "t3d", "T4", "average")


def test_means_are_over_the_benchmarks_that_a_table_has():
    assert paper_mean(2, LARGE, "t3d", "B4-T1") == pytest.approx((70 + 89.31 + 54.2 + 73.78) / 4)
    assert paper_mean(4, LARGE, "t3d", "B8-T8") == 7.6
    assert paper_mean(3, LARGE, "t3d", "B4-dynamic-sampled", "latency") == pytest.approx(0.37)
    assert paper_mean(3, LARGE, "sft", "B4-dynamic-sampled") is None
    assert printed(2, LARGE, "t3d", "B8-T1", "gsm8k") is None
    assert paper_mean(2, LARGE, "t3d", "B4-T1", tasks=("gsm8k", "mbpp")) == pytest.approx((89.31 + 54.2) / 2)
    assert paper_mean(4, LARGE, "t3d", "B8-T8", tasks=("math500", "gsm8k")) is None

"""What docs/theory.md says of students is what their measured errors and their cells give."""

import json
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[3]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "factorisation_rank.py"))
RANKS = ROOT / "docs" / "results" / "theory" / "ranks.json"


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12))
def test_ranks_are_their_mean_over_all_orders_of_ties(values):
    ranks = BENCHMARK["ranks"](values)
    places = [[place for place, value in enumerate(sorted(values)) if value == wanted] for wanted in values]
    assert ranks.tolist() == [sum(found) / len(found) for found in places]


def test_the_rank_correlation_knows_order_and_its_reverse():
    correlation = BENCHMARK["rank_correlation"]
    assert correlation([1, 2, 5], [2, 4, 1000]) == pytest.approx(1)
    assert correlation([1, 2, 5], [3, 2, 1]) == pytest.approx(-1)


def test_the_page_says_what_the_students_give():
    """Every student's accuracy is that of its committed cell."""
    report = json.loads(RANKS.read_text())
    found = BENCHMARK["correlations"](report["students"])
    page = (ROOT / "docs" / "theory.md").read_text()
    for whose, by_count in found.items():
        told = report["rank_correlation"][whose]
        for count, one in by_count.items():
            assert one["rho"] == pytest.approx(told[count]["rho"])
            assert one["ci95"] == pytest.approx(told[count]["ci95"])
        texts = [BENCHMARK["_text"](by_count[str(count)]) for count in BENCHMARK["COUNTS"]]
        assert f"| {whose} | {' | '.join(texts)} |" in page
    cells = {path.stem.rpartition(".")[2]: path for path in (ROOT / "docs/results/studies").glob("*.json")}
    for student in report["students"]:
        record = json.loads(cells[student["cell"]].read_text())
        for count in BENCHMARK["COUNTS"]:
            assert BENCHMARK["accuracy_of"](record, count) == student["accuracy"][str(count)]

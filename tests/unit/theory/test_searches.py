"""What the committed searches found is what the code finds, and what docs/theory.md says of them."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOUND = json.loads((ROOT / "docs" / "results" / "theory" / "searches.json").read_text(encoding="utf-8"))
PAGE = re.sub(r"\s+", " ", (ROOT / "docs" / "theory.md").read_text(encoding="utf-8"))
CONFIDENCE = "low_confidence_static"


def is_fast(row: dict) -> bool:
    """Those of half a second; the others take up to two, 16 s in all."""
    return row["statement"] in ("Theorem 4.5", "Eq. 23") or row.get("order") == "sequential"


@pytest.fixture
def searches(monkeypatch) -> list:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("theory")
    for name in ("theory", "theory_figures"):
        sys.modules.pop(name, None)
    return [(names, search, module.row) for names, search in module.searches()]


def the(statement: str, **names) -> list[dict]:
    wanted = {"statement": statement, **names}
    return [row for row in FOUND if wanted.items() <= row.items()]


@pytest.mark.many_inputs
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=() if is_fast(row) else pytest.mark.slow)
        for number, row in enumerate(FOUND)
    ],
)
def test_the_committed_searches_are_found_again(searches, number):
    assert len(searches) == len(FOUND) == 24
    names, search, row = searches[number]
    found, told = row(names, search), FOUND[number]
    for measure in ("worst", "mean"):
        assert found.pop(measure, 0.0) == pytest.approx(told.get(measure, 0.0), abs=1e-9)
    assert found == {name: value for name, value in told.items() if name not in ("worst", "mean")}


def test_proposition_4_3_is_violated_without_the_assumption_alone():
    imposed, left_out = (the("Proposition 4.3", assumption_4_2=imposed) for imposed in (True, False))
    assert not any(row["violations"] for row in imposed)
    assert f"0 violations in {sum(row['instances'] for row in imposed)} random choices" in PAGE
    never = [(row["order"], row["direction"]) for row in left_out if not row["violations"]]
    assert never == [("sequential", "reverse")]
    counts = {(row["direction"], row["order"]): row["violations"] for row in left_out}
    forward, reverse = (
        [counts[direction, order] for order in ("random", "sequential", CONFIDENCE)]
        for direction in ("forward", "reverse")
    )
    assert {row["instances"] for row in left_out} == {120}
    assert "Of 120 random choices each, one of six students of three binary tokens: forwards " in PAGE
    assert ": forwards {} (random order), {} and {} (".format(*forward) in PAGE
    assert "in reverse {}, {} and {} (".format(*reverse) in PAGE
    shares = [row["violations"] / 120 for row in left_out if row["violations"]]
    assert f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % of random choices violate it" in PAGE


def test_forwards_the_second_target_is_undefined_unless_the_order_is_random():
    rows = the("Proposition 4.3", direction="forward")
    for row in rows:
        assert row["undefined"] == (0 if row["order"] == "random" else row["instances"])
    num = sum(row["undefined"] for row in rows)
    assert f"{num} of {num} choices otherwise" in PAGE
    assert not any(row["undefined"] for row in the("Proposition 4.3", direction="reverse"))


def test_theorem_4_5_is_violated_in_families_that_are_not_log_convex_alone():
    inside, outside = the("Theorem 4.5")
    assert inside["violations"] == 0 and f"0 violations in {inside['instances']} (" in PAGE
    assert f"{outside['violations']} in {outside['instances']} do" in PAGE


def test_decoded_students_violate_it_where_their_order_is_not_the_teachers():
    names = {"random": "random", CONFIDENCE: "confidence"}
    for teacher, told in names.items():
        for student, told_student in names.items():
            one, two = the("Theorem 4.5, decoded", teacher=teacher, student=student)
            assert (one["tokens_per_step"], two["tokens_per_step"], one["instances"]) == (1, 2, 60)
            cells = [f"{row['violations']}, {row['mean']:+.2f}" for row in (one, two)]
            assert f"| {told} | {told_student} | {cells[0]} | {cells[1]} |" in PAGE
    same, other = (
        [row for row in the("Theorem 4.5, decoded") if (row["teacher"] == row["student"]) == is_same]
        for is_same in (True, False)
    )
    assert sum(row["violations"] for row in same) == 1 and sum(row["violations"] for row in other) == 149
    both = the("Theorem 4.5, decoded", teacher=CONFIDENCE, student=CONFIDENCE)
    assert sum(row["violations"] for row in both) == 0
    assert f"held in {sum(row['instances'] for row in both)} of 120 where both go by confidence" in PAGE
    random = the("Theorem 4.5, decoded", teacher="random", student="random")
    assert [sum(row[name] for row in random) for name in ("violations", "instances")] == [1, 120]


def test_eq_23_is_violated_on_the_references_own_states_alone():
    teachers, own = the("Eq. 23")
    assert teachers["violations"] == 0 and f"0 violations in {teachers['instances']} (" in PAGE
    assert f"no bound: {own['violations']} violations in {own['instances']}" in PAGE

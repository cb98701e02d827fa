"""What docs/theory.md says of students is what their measured errors and their cells give."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[3]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "factorisation_rank.py"))
RANKS = ROOT / "docs" / "results" / "theory" / "ranks.json"
PAGE = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")


def students() -> list[dict]:
    return json.loads(RANKS.read_text())["students"]


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12))
def test_ranks_are_their_mean_over_all_orders_of_ties(values):
    ranks = BENCHMARK["ranks"](values, np.ones(len(values)))
    places = [[place for place, value in enumerate(sorted(values)) if value == wanted] for wanted in values]
    assert ranks.tolist() == [sum(found) / len(found) for found in places]


def test_the_rank_correlation_knows_order_and_its_reverse():
    correlation = BENCHMARK["rank_correlation"]
    assert correlation([1, 2, 5], [2, 4, 1000]) == pytest.approx(1)
    assert correlation([1, 2, 5], [3, 2, 1]) == pytest.approx(-1)


def test_pairs_that_are_drawn_twice_count_as_two():
    first, second = [3.0, 1.0, 2.0, 2.0], [1.0, 5.0, 2.0, 4.0]
    counts = [2, 0, 1, 3]
    twice = [np.repeat(values, counts) for values in (first, second)]
    found = BENCHMARK["rank_correlation"](first, second, np.array([counts, [1, 0, 0, 0]]))
    assert found[0] == pytest.approx(float(BENCHMARK["rank_correlation"](*twice)))
    assert np.isnan(found[1])


def test_the_page_says_what_the_students_give():
    report = json.loads(RANKS.read_text())
    found = BENCHMARK["report_of"](report["students"])["rank_correlation"]
    for group, by_whose in found.items():
        for whose, by_count in by_whose.items():
            for count, one in by_count.items():
                told = report["rank_correlation"][group][whose][count]
                assert one["rho"] == pytest.approx(told["rho"]) and one["students"] == told["students"]
                assert one["ci95"] == pytest.approx(told["ci95"])
    assert BENCHMARK["table"](found["all"]) in PAGE
    assert {one["students"] for one in found["all"]["own"].values()} == {55}  # the teacher once


def test_the_page_says_what_each_study_gives():
    found = json.loads(RANKS.read_text())["rank_correlation"]
    rho = {
        (study, whose): ["{:+.2f}".format(found[study][whose][count]["rho"]) for count in ("2", "4", "8")]
        for study in ("regimes", "t3d-plus")
        for whose in ("own", "teacher")
    }
    low, high = found["t3d-plus"]["own"]["2"]["ci95"]
    first, *rest = rho["t3d-plus", "own"]
    own = f"t3d-plus, 16 students, {', '.join([f'{first} [{low:+.2f}, {high:+.2f}]', *rest])}"
    page = " ".join(PAGE.split())
    assert f"regimes, 40 students, {', '.join(rho['regimes', 'own'])}; {own} (" in page
    told = f"at 2 and 4 tokens per step, {', '.join(rho['regimes', 'teacher'])}, and not those of t3d-plus"
    assert f"{told}, {', '.join(rho['t3d-plus', 'teacher'])};" in page
    for whose, study, counts in (
        ("own", "regimes", "248"),
        ("own", "t3d-plus", "48"),
        ("teacher", "regimes", "24"),
    ):
        assert all(found[study][whose][count]["ci95"][1] < 0 for count in counts)
    assert all(found["t3d-plus"]["teacher"][count]["ci95"][1] > 0 for count in "248")
    assert found["regimes"]["teacher"]["8"]["ci95"][1] > 0


def test_every_students_accuracy_is_that_of_its_cell():
    paths = list((ROOT / "docs/results/studies").glob("*.json"))
    cells = {path.stem.rpartition(".")[2]: path for path in paths}
    assert f"Of the studies' {len(paths)} cells {len(students())} are in it" in PAGE
    assert [one["name"] for one in students()].count("original") == 2
    studies = [one["study"] for one in students() if one["split"] == "validation"]
    assert studies == ["t3d-plus"] * 14 and "14 of the 56 of validation problems, all in t3d-plus" in PAGE
    for student in students():
        record = json.loads(cells[student["cell"]].read_text())
        for count in BENCHMARK["COUNTS"]:
            assert BENCHMARK["accuracy_of"](record, count) == student["accuracy"][str(count)]


def test_what_a_killed_run_has_measured_is_not_measured_again(tmp_path, monkeypatch):
    """The third of four students is where it is killed."""
    names, measured, kills = list("abcd"), [], [True]

    def measure(choice, record, *rest):
        if choice.name == "c" and kills:
            kills.pop()
            raise KeyboardInterrupt
        measured.append(choice.name)
        return students()[len(measured)] | {"name": choice.name}

    class Run:
        def __init__(self, study, output):
            self.study = study

        def record(self, choice):
            return {"config_hash": choice.name}

        def student_path(self, choice):
            path = tmp_path / choice.name
            path.mkdir(exist_ok=True)
            return path

    choices = [SimpleNamespace(name=name, split="test", samples_per_prompt=1) for name in names]
    for name, value in {
        "_measured": measure,
        "StudyRun": Run,
        "read_study": lambda path: SimpleNamespace(choices=lambda: choices),
        "load_model": lambda *_, **__: None,
        "trajectories_of": lambda *_: [],
    }.items():
        monkeypatch.setitem(BENCHMARK["main"].__globals__, name, value)
    output = tmp_path / "ranks.json"
    command = ["studies/some.yaml", "--output", "runs", "--json", str(output)]
    with pytest.raises(KeyboardInterrupt):
        BENCHMARK["main"](command)
    assert not output.exists() and measured == ["a", "b"]
    BENCHMARK["main"](command)
    assert measured == names
    assert [one["name"] for one in json.loads(output.read_text())["students"]] == names
    assert not list(tmp_path.glob("*.unfinished"))

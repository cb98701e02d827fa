"""What docs/theory.md says of students is what their measured errors and their cells give."""

import json
import runpy
from pathlib import Path

import pytest

from t3d.models.loading import load_model

ROOT = Path(__file__).parents[3]
BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "factorisation_rank.py"))
RANKS = ROOT / "docs" / "results" / "theory" / "ranks.json"
CELLS, STUDIES = (ROOT / "docs" / "results" / name for name in ("cells", "studies"))
SPLITS = ("test", "validation")
STUDENT = ("teacher", "method", "learning_rate", "seed")
ROUNDS = ("t3d-plus num_rounds=3", "t3d-plus-verified num_rounds=3")
OF_8 = ("B8-T2", "B8-T4", "B8-T8")
EXACT = "ddo fake_source=expectation log_ratio=state_sum"
FAKES = ("ddo", "ddo fake_source=sample", EXACT, "ddo ddo_alpha=0.0", "naive_td")
REGIME_OF_TABLES = (
    "d3fc897fa84bea72",
    "476f524f6ac5755c",
    "730ec197b463a191",
    "91441d271ea52741",
    "cc2d399c149de87f",
)
"""Cells of these in one regime, 1.56 epochs of fresh noise."""
TEACHER = ("tables", "original", "mini")
NUM_PROMPTS = 12
"""Of each task, that the committed measures are of."""
PAGE = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")


def students() -> list[dict]:
    return json.loads(RANKS.read_text())["students"]


def test_the_same_weights_count_once_in_a_group_with_what_stands_first():
    told = [("tables", "a", "t3d"), ("some", "b", "t3d"), ("some", "a", "t3d"), ("other", "b", "t3d")]
    told += [("tables", "c", "t3d num_rounds=3"), ("tables", "d", "sft")]
    rows = [
        {"group": group, "weights": weights, "method": method, "number": number}
        for number, (group, weights, method) in enumerate(told)
    ]
    found = {name: [one["number"] for one in of] for name, of in BENCHMARK["groups"](rows).items()}
    of_tables, of_studies = {"tables": [0, 4, 5], "tables, one round": [0]}, {"some": [1, 2], "other": [3]}
    assert found == {"all": [0, 1, 4, 5], "studies": [1, 2]} | of_tables | of_studies


def test_the_page_says_what_the_students_give():
    found = json.loads(RANKS.read_text())["rank_correlation"]
    assert list(found) == list(BENCHMARK["groups"](students()))
    assert BENCHMARK["table"](found) in PAGE


@pytest.mark.many_inputs
@pytest.mark.parametrize(
    "group",
    [
        "tables",
        "tables, one round",
        "t3d-plus",
        *(pytest.param(group, marks=pytest.mark.slow) for group in ("all", "studies", "regimes")),
    ],
)
def test_correlations_and_intervals_are_those_of_the_students(group):
    """And the page has them (above): its table is PAGE's."""
    found = BENCHMARK["correlations"](BENCHMARK["groups"](students())[group])
    told = json.loads(RANKS.read_text())["rank_correlation"][group]
    assert {what: list(by_setting) for what, by_setting in found.items()} == {
        what: list(by_setting) for what, by_setting in told.items()
    }
    for what, by_setting in found.items():
        for setting, one in by_setting.items():
            for name, value in one.items():
                assert value == pytest.approx(told[what][setting][name])


def told(group: str, what: str, settings: tuple[str, ...] = OF_8) -> list[dict]:
    found = json.loads(RANKS.read_text())["rank_correlation"]
    return [found[group][what][setting] for setting in settings]


def test_the_error_on_own_texts_ranks_students_across_rounds_and_not_within_one_of_the_tables():
    """Three kinds of the tables' students stand apart at four tokens per step in blocks of 8."""
    for group in ("all", "tables"):
        assert all(one["ci95"][1] < 0 for one in told(group, "own", BENCHMARK["SETTINGS"]))
    assert all(one["ci95"][1] < 0 for one in told("regimes", "own"))
    within = told("tables, one round", "own", BENCHMARK["SETTINGS"])
    assert all(one["ci95"][0] < 0 < one["ci95"][1] for one in within)
    assert f"Among the {within[0]['students']} of one round" in " ".join(PAGE.split())
    kinds = {"none": [], "one": [], "three": []}
    for one in students():
        if one["group"] == "tables":
            is_first = one["method"] in ("original", "sft")
            kind = "three" if one["method"] in ROUNDS else "none" if is_first else "one"
            kinds[kind].append((one["own"]["B8-T4"], one["accuracy"]["B8-T4"]))
    for worse, better in (("none", "one"), ("one", "three")):
        (errors, accuracies), (lower, higher) = (zip(*kinds[kind], strict=True) for kind in (worse, better))
        assert max(lower) < min(errors) and min(higher) > max(accuracies)


def test_the_entropy_ranks_the_students_of_the_tables_and_has_the_other_sign_in_the_regimes():
    for error, entropy in zip(told("tables", "own"), told("tables", "entropy"), strict=True):
        assert entropy["ci95"][1] < 0 and abs(entropy["rho"] - error["rho"]) < 0.15
    assert told("regimes", "entropy")[0]["ci95"][0] > 0
    assert "at two tokens per step the entropy has the other sign" in " ".join(PAGE.split())


def test_on_the_teachers_texts_the_sign_depends_on_the_students():
    first, second, third = told("regimes", "teachers")
    assert first["ci95"][1] < 0 and second["ci95"][1] < 0 < third["ci95"][1]
    assert all(one["ci95"][0] > 0 for one in told("tables", "teachers"))
    assert all(one["ci95"][0] < 0 < one["ci95"][1] for one in told("t3d-plus", "teachers"))
    assert "over the tables' it has the wrong sign, and over t3d-plus none" in " ".join(PAGE.split())


def test_every_students_accuracy_is_that_of_its_cells():
    paths = [*CELLS.glob("*.json"), *STUDIES.glob("*.json")]
    cells = {path.stem.rpartition(".")[2]: path for path in paths}
    validation = [one["group"] for one in students() if one["split"] == "validation"]
    assert validation.count("t3d-plus") == 14 and "regimes" not in validation
    assert "Of the studies 14 cells are of validation problems" in " ".join(PAGE.split())
    for student in students():
        records = [json.loads(cells[name].read_text()) for name in student["cells"]]
        for record in records:
            for name in ("teacher", "method", "learning_rate", "seed", "split"):
                assert record[name] == student[name]
        for setting in BENCHMARK["SETTINGS"]:
            assert BENCHMARK["accuracy_of"](records, setting) == student["accuracy"][setting]


def test_what_a_killed_run_has_measured_is_not_measured_again(tmp_path, monkeypatch):
    """The third of four students is where it is killed."""
    names, measured, kills = list("abcd"), [], [True]

    def measure(self, one):
        name = one.records[0]["config_hash"]
        if name == "c" and kills:
            kills.pop()
            raise KeyboardInterrupt
        measured.append(name)
        return students()[len(measured)] | {"method": name}

    def of_study(file, output):
        for name in names:
            yield BENCHMARK["Trained"](group="some", path=tmp_path / name, records=({"config_hash": name},))

    for name in names:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(BENCHMARK["Measures"], "_measured", measure)
    monkeypatch.setitem(BENCHMARK["main"].__globals__, "of_study", of_study)
    output = tmp_path / "ranks.json"
    command = ["studies/some.yaml", "--output", "runs", "--json", str(output)]
    with pytest.raises(KeyboardInterrupt):
        BENCHMARK["main"](command)
    assert not output.exists() and measured == ["a", "b"]
    BENCHMARK["main"](command)
    assert measured == names
    assert [one["method"] for one in json.loads(output.read_text())["students"]] == names
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.fixture(scope="module")
def of_tables(tmp_path_factory) -> list:
    """All that the tables have cells of."""
    return list(BENCHMARK["of_tables"](str(tmp_path_factory.mktemp("none"))))


def test_of_the_tables_a_student_has_its_cells_on_test_problems_or_else_those_of_its_learning_rate(of_tables):
    """Every committed cell of a setting that is measured is some student's, once."""
    trained = of_tables
    cells = [record["config_hash"] for one in trained for record in one.records]
    assert len(set(cells)) == len(cells)
    by_split = {split: [one for one in trained if one.records[0]["split"] == split] for split in SPLITS}
    assert {split: len(of) for split, of in by_split.items()} == {"test": 40, "validation": 26}
    for split, of in by_split.items():
        for one in of:
            assert {record["split"] for record in one.records} == {split}
    assert all(len(one.records) == 1 for one in by_split["validation"])


def one_of(key: tuple, cell: dict) -> bool:
    """Whether a cell on test problems is of this student."""
    return cell["split"] == "test" and key == tuple(cell[name] for name in STUDENT)


def test_the_page_says_which_students_of_the_tables_are_measured(of_tables):
    """And which of them have the weights that their cells are of."""
    known = {cell["config_hash"]: cell for cell in map(json.loads, map(Path.read_text, CELLS.glob("*.json")))}
    rows = [one for one in students() if one["group"] == "tables"]
    measured = {tuple(one[name] for name in STUDENT) for one in rows}
    trained = {tuple(one.records[0][name] for name in STUDENT) for one in of_tables if one.path is not None}
    assert measured - trained == {("mini", "original", None, 0), ("mini-small", "original", None, 0)}
    own = sum(
        all(known[cell]["model"]["weights"] == one["weights"] for cell in one["cells"])
        for one in rows
        if one["method"] != "original"
    )
    of_test = {key for key in trained if any(one_of(key, cell) for cell in known.values())}
    rest = len(trained) - len(of_test)
    assert f"all of the {len(of_test)} with cells on test problems" in " ".join(PAGE.split())
    assert f"of the {rest} of learning rates that were not chosen" in " ".join(PAGE.split())
    assert {key[1] for key in measured & trained - of_test} == {*ROUNDS, "ddo"}
    assert of_test <= measured
    num = len(measured & trained)
    page = " ".join(PAGE.split())
    assert f"{num} of the tables' {len(trained)} students" in page
    assert f"{own} of the {num} are the very weights" in page


def test_students_trained_again_answer_as_those_of_the_tables():
    """Of Naive TD and T3D, seed 0, whose cells in the study of regimes are of other weights."""
    num = 0
    for method, name in (("naive_td", "cc2d399c149de87f"), ("t3d", "8ad5700f59245e31")):
        (path,) = STUDIES.glob(f"mini.{method}.seed0.grid.{name}.json")
        again = json.loads(path.read_text())
        for setting in OF_8:
            (path,) = CELLS.glob(f"mini.{method}.seed0.{setting}.*.json")
            first = json.loads(path.read_text())
            assert first["model"]["weights"] != again["model"]["weights"]
            told = {row["task"]: row["verdicts"] for row in first["results"]}
            for row in (row for row in again["results"] if row["setting"] == setting):
                assert told[row["task"]].startswith(row["verdicts"])
                num += row["n"]
    assert f"the same {num:,} verdicts" in " ".join(PAGE.split())


def test_argmax_fakes_raise_the_entropy_and_others_do_not():
    entropy = {
        one["method"]: one["entropy"]["own, B8"]
        for one in students()
        if one["group"] == "regimes"
        and one["learning_rate"] == 0.0012
        and one["cells"][0] in REGIME_OF_TABLES
    }
    told = [f"{entropy[name]:.3f}" for name in FAKES]
    expected = "{} with argmax fakes, {} with sampled, {} with exact, {} without any; cross-entropy {}"
    assert expected.format(*told) in " ".join(PAGE.split())
    argmax, *others = (entropy[name] for name in FAKES)
    assert argmax > 1.4 * max(others) and max(others) - min(others) < 0.004


@pytest.mark.slow
@pytest.mark.many_inputs
def test_the_bundled_teacher_measured_again_has_the_committed_numbers():
    (row,) = (one for one in students() if (one["group"], one["method"], one["teacher"]) == TEACHER)
    loaded = load_model("mini", device="cpu")
    for size in (4, 8):
        drawn = BENCHMARK["trajectories_of"](loaded, NUM_PROMPTS, size)
        errors, entropy = BENCHMARK["errors_of"](loaded, drawn, size)
        assert entropy == pytest.approx(row["entropy"][f"own, B{size}"], abs=1e-4)
        for setting, error in errors.items():
            assert error == pytest.approx(row["own"][setting], abs=1e-4)
            assert row["own"][setting] == row["teachers"][setting]

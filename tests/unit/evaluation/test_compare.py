"""Comparisons of graded answers: pairs, symmetry, and refusals."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.errors import InputError
from t3d.evaluation.compare import CompareConfig, compare
from t3d.evaluation.pairs import natural_order, shorten
from t3d.evaluation.samples import GradedSamples, Key

BOTH = Key(task="sums", setting="B4-T2")


def line(identity, correct, **fields):
    costs = {"num_tokens": 12, "num_denoising_steps": 6, "num_forwards": 8}
    data = {"question": f"q {identity.partition('#')[0]}", "answer": "1", "response": "so \\boxed{1}"}
    return {"id": identity, "correct": correct, **costs, **data, **fields}


def graded(path, cells):
    """Evaluations from cell, then (id, verdict) or lines."""
    return GradedSamples(
        path=path,
        cells={
            key: {
                row["id"]: row for row in (each if isinstance(each, dict) else line(*each) for each in rows)
            }
            for key, rows in cells.items()
        },
    )


def verdicts(path, text, key=BOTH):
    """One line per character: 1 is right."""
    return graded(path, {key: [(f"p{index}", char == "1") for index, char in enumerate(text)]})


def test_a_comparison_by_hand():
    """Tango's interval of 1 against 3 of 8 pairs; McNemar: 2 (1 + 4) / 16."""
    summary = compare([verdicts("a", "11110100"), verdicts("b", "10001100")], CompareConfig(list_changes=9))
    (cell,) = summary["cells"]
    assert (cell["both_right"], cell["only_a"], cell["only_b"], cell["both_wrong"]) == (2, 3, 1, 2)
    assert (cell["accuracy_a"], cell["accuracy_b"], cell["difference"]) == (62.5, 37.5, -25.0)
    assert cell["p_value"] == cell["p_holm"] == 10 / 16
    assert cell["lost_ids"] == ["p1", "p2", "p3"] and cell["gained_ids"] == ["p4"]
    assert [change["right"] for change in cell["changes"]] == ["a", "a", "a", "b"]
    assert cell["cost_ratio"] == {"denoising_steps": 1.0, "visible_tokens_per_forward": 1.0, "length": 1.0}
    assert cell["cost_b"]["visible_tokens_per_forward"] == 1.5
    assert summary["means"] == summary["notes"] == []


answers = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20)


@given(pairs=answers, num_draws=st.integers(1, 3), shuffled=st.randoms(use_true_random=False))
def test_swapping_the_evaluations_mirrors_everything(pairs, num_draws, shuffled):
    rows = [
        [
            line(
                f"p{index // num_draws}#{index % num_draws}", pair[side], num_denoising_steps=3 + side + index
            )
            for index, pair in enumerate(pairs)
        ]
        for side in (0, 1)
    ]
    (cell,) = compare([graded("a", {BOTH: rows[0]}), graded("b", {BOTH: rows[1]})])["cells"]
    shuffled.shuffle(rows[0])
    (mirror,) = compare([graded("b", {BOTH: rows[1]}), graded("a", {BOTH: rows[0]})])["cells"]
    assert mirror["difference"] == -cell["difference"]
    assert mirror["ci95"] == pytest.approx([-cell["ci95"][1], -cell["ci95"][0]])
    assert mirror["p_value"] == cell["p_value"]
    assert mirror["lost_ids"] == cell["gained_ids"] and mirror["only_a"] == cell["only_b"]
    ratios = [each["cost_ratio"]["denoising_steps"] for each in (mirror, cell)]
    assert ratios[0] * ratios[1] == pytest.approx(1)
    assert -100 <= cell["ci95"][0] <= cell["difference"] <= cell["ci95"][1] <= 100
    assert 0 < cell["p_value"] <= 1


@given(pairs=answers, num_draws=st.integers(1, 3))
def test_an_evaluation_does_not_differ_from_itself(pairs, num_draws):
    rows = [(f"p{index // num_draws}#{index % num_draws}", pair[0]) for index, pair in enumerate(pairs)]
    once, again = graded("a", {BOTH: rows}), graded("b", {BOTH: rows})
    (cell,) = compare([once, again])["cells"]
    assert (cell["difference"], cell["p_value"]) == (0, 1)
    assert cell["ci95"][0] < 0 < cell["ci95"][1]


@given(pairs=answers, shuffled=st.randoms(use_true_random=False))
def test_the_order_of_lines_does_not_matter(pairs, shuffled):
    rows = [[(f"p{index}", pair[side]) for index, pair in enumerate(pairs)] for side in (0, 1)]
    sorted_summary = compare([graded("a", {BOTH: rows[0]}), graded("b", {BOTH: rows[1]})])
    for each in rows:
        shuffled.shuffle(each)
    assert compare([graded("a", {BOTH: rows[0]}), graded("b", {BOTH: rows[1]})]) == sorted_summary


def test_several_answers_to_a_prompt_are_tested_by_prompt():
    """Two prompts, thrice wrong in A and right in B: two of four sign flips are as far, so not 2^-5."""
    rows = [(f"p{index // 3}#{index % 3}", False) for index in range(6)]
    flipped = [(identity, True) for identity, _ in rows]
    summary = compare([graded("a", {BOTH: rows}), graded("b", {BOTH: flipped})])
    (cell,) = summary["cells"]
    assert (cell["n"], cell["num_prompts"], cell["p_value"]) == (6, 2, 0.5)
    assert cell["test"].startswith("sign flips") and "go by prompts" in summary["notes"][0]


def test_tasks_are_averaged_and_p_values_adjusted_for_their_number():
    first = graded("a", {Key("x", "S"): [("p", True)] * 1, Key("y", "S"): [("q", True), ("r", True)]})
    second = graded("b", {Key("x", "S"): [("p", False)], Key("y", "S"): [("q", True), ("r", False)]})
    summary = compare([first, second])
    (mean,) = summary["means"]
    assert mean["tasks"] == ["x", "y"]
    assert (mean["accuracy_a"], mean["accuracy_b"], mean["difference"]) == (100, 25, -75)
    assert -100 <= mean["ci95"][0] < -75 < mean["ci95"][1]
    assert "2 tests" in summary["notes"][-1]


def test_settings_of_both_sides_are_matched_by_name():
    cells = {Key("x", name): [("p", True)] for name in ("B4-T1", "B4-T2", "B4-T4")}
    first, second = graded("a", cells), graded("b", cells)

    def matched(**config):
        found = compare([first, second], CompareConfig(**config))["cells"]
        return [(cell["setting_a"], cell["setting_b"]) for cell in found]

    assert matched() == [(name, name) for name in ("B4-T1", "B4-T2", "B4-T4")]
    assert matched(setting_a=("B4-T1",), setting_b=("B4-T2", "B4-T4")) == [
        ("B4-T1", "B4-T2"),
        ("B4-T1", "B4-T4"),
    ]
    assert matched(setting_a=("B4-T2", "B4-T1"), setting_b=("B4-T4", "B4-T2")) == [
        ("B4-T1", "B4-T2"),
        ("B4-T2", "B4-T4"),
    ]
    with pytest.raises(InputError, match=r"setting_b='B4-T8': no such setting.*B4-T2"):
        matched(setting_a=("B4-T1",), setting_b=("B4-T8",))


def test_lines_without_names_are_compared_with_the_only_cell_that_fits():
    first = verdicts("a", "10", Key("x", "B4-T1"))
    unnamed = verdicts("b", "11", Key(None, None))
    (cell,) = compare([first, unnamed])["cells"]
    assert (cell["task"], cell["setting_a"], cell["setting_b"]) == ("x", "B4-T1", None)
    two = GradedSamples(path="a", cells={**first.cells, **verdicts("a", "10", Key("x", "B4-T2")).cells})
    with pytest.raises(InputError, match="lines of b do not name their task and setting"):
        compare([two, unnamed])
    chosen = CompareConfig(setting_a=("B4-T2",), setting_b=("other",))
    assert [cell["setting_a"] for cell in compare([two, unnamed], chosen)["cells"]] == ["B4-T2"]


def test_other_ids_are_an_error_unless_only_the_common_ones_are_wanted():
    first = graded("a", {BOTH: [(f"p{index}", True) for index in range(12)]})
    second = graded("b", {BOTH: [("p3", False), ("p9", True), ("z", True)]})
    match = (
        r"10 ids are only in a \(p0, p1, p2, \.\.\.\); 1 ids are only in b \(z\); 2 are in both.*common_only"
    )
    with pytest.raises(InputError, match=match):
        compare([first, second])
    summary = compare([first, second], CompareConfig(common_only=True))
    (cell,) = summary["cells"]
    assert (cell["n"], cell["left_out_a"], cell["left_out_b"]) == (2, 10, 1)
    assert "2 common ids compared; 10 only in A and 1 only in B left out" in summary["notes"][0]
    with pytest.raises(InputError, match="0 are in both"):
        compare([first, graded("b", {BOTH: [("z", True)]})], CompareConfig(common_only=True))


@pytest.mark.parametrize("field", ["question", "answer", "reference"])
def test_other_data_under_the_same_id_are_an_error(field):
    first, second = (
        graded(path, {BOTH: [line("p", True, **{field: value})]}) for path, value in (("a", "1"), ("b", "2"))
    )
    with pytest.raises(InputError, match=f"id='p': its {field} is '1' in a but '2' in b"):
        compare([first, second])


def test_lines_without_data_and_cost_are_compared_and_said_to_be():
    rows = [{"id": "p", "correct": True, "output": "1"}]
    summary = compare([graded("a", {BOTH: rows}), graded("b", {BOTH: rows})])
    assert summary["cells"][0]["cost_ratio"] is None
    assert "known by id only" in summary["notes"][0]


def test_every_later_evaluation_is_compared_with_the_first_or_all_with_all():
    evaluations = [verdicts(name, "10") for name in ("x", "y", "z")]

    def compared(**config):
        cells = compare(evaluations, CompareConfig(**config))["cells"]
        return [cell["a"] + cell["b"] for cell in cells]

    assert compared() == ["AB", "AC"]
    assert compared(all_pairs=True) == ["AB", "AC", "BC"]


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"setting_a": ("x",)}, "setting_b=.*missing"),
        ({"setting_a": ("x", "y"), "setting_b": ("x", "y", "z")}, "2 of setting_a do not match 3"),
        ({"setting_a": ("x",), "setting_b": ("y",), "all_pairs": True}, "all_pairs"),
        ({"list_changes": -1}, "negative"),
    ],
)
def test_flags_that_do_not_fit_are_refused(config, problem):
    with pytest.raises(InputError, match=problem):
        CompareConfig(**config)


def test_evaluations_without_a_common_task_are_refused():
    with pytest.raises(InputError, match=r"has x S, but b has y S"):
        compare([verdicts("a", "1", Key("x", "S")), verdicts("b", "1", Key("y", "S"))])
    with pytest.raises(InputError, match="not two to 26"):
        compare([verdicts("a", "1")])


def test_the_summary_is_json():
    summary = compare([verdicts("a", "10"), verdicts("b", "01")])
    assert json.loads(json.dumps(summary)) == summary


@given(text=st.text(alphabet="a/²٣09"))
def test_every_id_has_its_place(text):
    assert natural_order(text) <= natural_order(text + "/1") and natural_order("p/9") < natural_order("p/10")


@given(text=st.text(), length=st.integers(10, 40))
def test_a_shortened_response_is_one_printable_line_with_its_end(text, length):
    short = shorten(text, length)
    assert short.isprintable()
    assert len(short) <= length + len(" ... ")
    assert shorten("x" * 100 + " \\boxed{7}\x1b[31m", 30).endswith("\\boxed{7}\\x1b[31m")

"""Study files: what a row takes from its group and from the whole, and what is refused."""

import pytest

from t3d.errors import InputError
from t3d.reproduce.recipes import CellSpec, StudentSpec
from t3d.reproduce.study import read_study
from t3d.reproduce.study_report import gain
from t3d.reproduce.study_run import StudyRun

STUDY = """
title: what it asks
common: {settings: [B4-T1, B8-T4], learning_rate: 1.2e-3, override: [noise_refresh=once, path_weight=0.5]}
seeds: [0, 1]
groups:
  - title: few prompts
    common: {num_prompts: 160, override: [mask_ratio_power=0]}
    base: Naive TD
    rows:
      - {name: Naive TD, method: naive_td}
      - {name: T3D, method: t3d, seeds: [2], num_prompts: 80, override: [noise_refresh=epoch]}
  - title: rounds
    seeds: [3]
    rows:
      - {name: plus, method: t3d-plus, rollout_settings: [B4-T1, B8-T8], num_rounds: 2}
"""


def read(tmp_path, text=STUDY):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return read_study(path)


def test_a_row_wins_over_its_group_and_that_over_the_whole(tmp_path):
    few, rounds = read(tmp_path).groups
    naive, t3d = few.rows
    assert list(naive.choices) == [0, 1] and list(t3d.choices) == [2]
    assert [naive.choices[seed].seed for seed in (0, 1)] == [0, 1]
    assert (naive.choices[0].num_prompts, t3d.choices[2].num_prompts) == (160, 80)
    assert naive.choices[0].learning_rate == 1.2e-3 and naive.settings == ("B4-T1", "B8-T4")
    (plus,) = rounds.rows
    assert plus.choices[3].num_prompts is None and plus.choices[3].num_rounds == 2


def test_overrides_add_up_and_the_later_one_of_a_field_wins(tmp_path):
    naive, t3d = read(tmp_path).groups[0].rows
    assert naive.choices[0].override == ("noise_refresh=once", "path_weight=0.5", "mask_ratio_power=0")
    assert t3d.choices[2].override == ("noise_refresh=epoch", "path_weight=0.5", "mask_ratio_power=0")


def test_the_teacher_takes_of_what_is_common_only_what_an_evaluation_takes(tmp_path):
    text = STUDY.replace("{name: Naive TD, method: naive_td}", "{name: Naive TD, method: original, limit: 9}")
    teacher = read(tmp_path, text).groups[0].rows[0].choices[0]
    assert (teacher.settings, teacher.limit) == (("B4-T1", "B8-T4"), 9)
    assert (teacher.learning_rate, teacher.num_prompts, teacher.override) == (None, None, ())


def test_cells_come_seed_by_seed_and_once(tmp_path):
    twice = (
        STUDY
        + "      - {name: the same, method: t3d-plus, rollout_settings: [B4-T1, B8-T8], num_rounds: 2}\n"
    )
    assert [choice.seed for choice in read(tmp_path, twice).choices()] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("method: naive_td}", "method_: naive_td}", "method_.*did you mean 'method'"),
        ("base: Naive TD", "base: Naive", "base='Naive': no row"),
        ("title: rounds", "title: few prompts", "'few prompts': stands twice"),
        ("name: T3D", "name: Naive TD", "'Naive TD': stands twice"),
        ("num_prompts: 80", "num_prompts: many", "num_prompts='many'"),
        ("seeds: [3]", "seeds: 3", "no list of whole numbers"),
        ("seeds: [3]", "seeds: [3, 3]", "'3': stands twice"),
        ("seeds: [3]", "seeds: [true]", "no list of whole numbers"),
        ("name: T3D, method: t3d,", "name: T3D,", "method=None: row 'T3D' has none"),
        ("title: what it asks", "title: [", "not YAML"),
        ("title: what it asks", "titles: what it asks", "did you mean 'title'"),
        ("    rows:\n      - {name: plus", "    rows: []\n    nots:\n      - {name: plus", "nots"),
        ("seeds: [2],", "rounds: 3,", "rounds.*did you mean 'num_rounds'"),
        ("seeds: [2],", "seed: 2,", "seed.*did you mean 'seeds'"),
        ("common: {num_prompts: 160,", "common: {seeds: [1],", "common='seeds': unknown key|common.*seeds"),
        (
            "override: [mask_ratio_power=0]",
            "override: mask_ratio_power=0",
            "override='mask_ratio_power=0': no list",
        ),
        ("override: [mask_ratio_power=0]", "override: 5", "override=5: no list of texts"),
        ("    base: Naive TD", "    base: Naive TD\n    note: 3", "note=3: no text"),
        ("title: rounds", 'title: "two\\nlines"', "more than one line"),
        ("title: rounds", 'title: "two\\rlines"', "more than one line"),
    ],
)
def test_what_no_study_has_is_refused_by_its_key(tmp_path, old, new, says):
    assert old in STUDY
    with pytest.raises(InputError, match=says):
        read(tmp_path, STUDY.replace(old, new, 1))


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_study(tmp_path / "study.yaml")


def test_an_override_of_null_is_none(tmp_path):
    naive, _ = (
        read(tmp_path, STUDY.replace("override: [mask_ratio_power=0]", "override: null")).groups[0].rows
    )
    assert naive.choices[0].override == ("noise_refresh=once", "path_weight=0.5")


@pytest.mark.parametrize(
    "other", ["tasks: [chain]", "limit: 9", "split: validation", "samples_per_prompt: 2"]
)
def test_rows_of_other_prompts_have_no_difference(tmp_path, other):
    """With other tasks it was a KeyError, after all the work."""
    rows = "      - {name: a, method: original, settings: [B4-T1]}\n"
    rows += f"      - {{name: b, method: original, settings: [B4-T1], {other}}}\n"
    study = read(tmp_path, f"title: t\ngroups:\n  - title: g\n    rows:\n{rows}")
    first, second = study.groups[0].rows
    found = {"a": {0: {"results": []}}, "b": {0: {"results": []}}}
    assert gain(StudyRun(study, tmp_path / "out"), first, second, found, "B4-T1") is None


def test_a_long_name_still_makes_a_file_name():
    fields = tuple((f"field_{number}", 0.123456) for number in range(30))
    student = StudentSpec(teacher="mini", method="t3d", seed=0, learning_rate=1e-3, overrides=fields)
    assert len(CellSpec(student=student, settings=("B4-T1",)).label) < 220

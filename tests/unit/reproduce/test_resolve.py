"""The hash of a cell: the same everywhere, and another one whenever a number could be another."""

import dataclasses

import pytest

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.reproduce.recipes import CellSpec, StudentSpec
from t3d.reproduce.resolve import resolve_cell, resolve_student
from t3d.reproduce.suites import MINI

STUDENT = StudentSpec(
    teacher="org/model", method="t3d", seed=0, learning_rate=5e-4, overrides=(("path_weight", 0.5),)
)
CELL = CellSpec(student=STUDENT, settings=("B4-T2",))


def cell_hash(suite=MINI, budget=MINI.full, cell=CELL) -> str:
    return resolve_cell(suite, budget, cell).hash


def test_the_hash_is_stable():
    """Finished cells in docs/results/cells go by such hashes: a change here makes all of them useless."""
    assert cell_hash() == "1710aaa95aecf5fb"


STUDENT_CHANGES = {
    "teacher": "org/other",
    "method": "ddo_random",
    "seed": 1,
    "learning_rate": 1e-3,
    "overrides": (("path_weight", 0.05),),
}
CELL_CHANGES = {"settings": ("B8-T2",), "split": "validation", "samples_per_prompt": 2}
BUDGET_CHANGES = {"num_prompts": 1, "num_optimizer_steps": 1, "train_batch_size": 1, "limit": 1}
SUITE_CHANGES = {
    "name": "other",
    "tasks": ("chain",),
    "settings": MINI.settings | {"B4-T2": DecodeParams(steps_per_block=2, max_new_tokens=9)},
    "rollout": DecodeParams(temperature=0.5),
    "training": {"refresh_every": 3},
    "dtype": "bfloat16",
}


def test_the_hash_changes_with_every_field_of_the_student():
    assert STUDENT_CHANGES.keys() == {item.name for item in dataclasses.fields(StudentSpec)}
    hashes = [
        cell_hash(cell=dataclasses.replace(CELL, student=dataclasses.replace(STUDENT, **{name: value})))
        for name, value in STUDENT_CHANGES.items()
    ]
    assert len({cell_hash(), *hashes}) == 1 + len(hashes)


def test_the_hash_changes_with_every_other_field():
    assert CELL_CHANGES.keys() | {"student"} == {item.name for item in dataclasses.fields(CellSpec)}
    hashes = [
        cell_hash(cell=dataclasses.replace(CELL, **{name: value})) for name, value in CELL_CHANGES.items()
    ]
    hashes += [
        cell_hash(budget=dataclasses.replace(MINI.full, **{name: value}))
        for name, value in BUDGET_CHANGES.items()
    ]
    hashes += [
        cell_hash(suite=dataclasses.replace(MINI, **{name: value})) for name, value in SUITE_CHANGES.items()
    ]
    assert len({cell_hash(), *hashes}) == 1 + len(hashes)


def test_the_validation_limit_counts_for_validation_only():
    other = dataclasses.replace(MINI.full, validation_limit=1)
    validation = dataclasses.replace(CELL, split="validation")
    assert cell_hash(budget=other) == cell_hash()
    assert cell_hash(budget=other, cell=validation) != cell_hash(cell=validation)


def test_an_override_with_the_presets_own_value_changes_no_training():
    plain = resolve_student(MINI, MINI.full, dataclasses.replace(STUDENT, overrides=()))
    assert plain.full["training"]["path_weight"] == 0.2
    assert resolve_student(MINI, MINI.full, STUDENT).full["training"]["path_weight"] == 0.5


def test_the_original_depends_on_no_training_budget():
    original = dataclasses.replace(CELL, student=StudentSpec(teacher="org/model", method="original", seed=0))
    assert cell_hash(cell=original) == cell_hash(budget=MINI.quick, cell=original)
    assert cell_hash(budget=MINI.quick) != cell_hash()


@pytest.mark.parametrize(
    ("cell", "field"),
    [
        (dataclasses.replace(CELL, settings=("B3-T1",)), "settings"),
        (dataclasses.replace(CELL, student=dataclasses.replace(STUDENT, method="best")), "preset"),
    ],
)
def test_unknown_names_are_refused(cell, field):
    with pytest.raises(InputError, match=f"{field}="):
        resolve_cell(MINI, MINI.full, cell)

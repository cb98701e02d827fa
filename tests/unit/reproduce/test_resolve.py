"""The hash of a cell: the same everywhere, and another one whenever a number could be another."""

import dataclasses
import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.grading import math as math_grading
from t3d.reproduce.recipes import CellSpec, StudentSpec, cell_command
from t3d.reproduce.resolve import resolve_cell, resolve_records, resolve_student
from t3d.reproduce.suite_choice import SuiteChoice
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
    "num_rounds": 2,
    "rollout_settings": ("B8-T8",),
    "round_start": "teacher",
    "num_samples": 2,
    "rollout_filter": "likelihood",
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


def original(teacher, **changes) -> CellSpec:
    student = StudentSpec(teacher=str(teacher), method="original", seed=0)
    return CellSpec(student=student, settings=("B4-T2",), **changes)


def copied(folder, to, file="", old="", new="") -> Path:
    """A copy of a checkpoint under the same name, ``old`` replaced in one file."""
    path = Path(shutil.copytree(folder, to / folder.name))
    if file:
        text = (path / file).read_text()
        assert old in text
        (path / file).write_text(text.replace(old, new))
    return path


def test_all_of_a_checkpoint_that_changes_its_answers_is_part_of_the_hash(checkpoint, tmp_path):
    (checkpoint / "README.md").write_text("of no account")
    same = copied(checkpoint, tmp_path / "same")
    others = [
        copied(checkpoint, tmp_path / "norm", "config.json", '"rms_norm_eps": ', '"rms_norm_eps": 1'),
        copied(checkpoint, tmp_path / "words", "tokenizer.json", '"added_tokens": ', '"added_tokens":  '),
        copied(checkpoint, tmp_path / "chat", "tokenizer_config.json", "{", '{"a": 1, '),
    ]
    stops = copied(checkpoint, tmp_path / "stops")
    (stops / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    assert cell_hash(cell=original(same)) == cell_hash(cell=original(checkpoint))
    assert len({cell_hash(cell=original(path)) for path in (checkpoint, *others, stops)}) == 5


def test_a_teacher_of_the_hub_goes_by_its_commit_once_that_is_on_the_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    hashes = {cell_hash(cell=original("org/model"))}
    repository = tmp_path / "models--org--model"
    for commit in ("a" * 40, "b" * 40):
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        assert resolve_cell(MINI, MINI.full, original("org/model")).full["teacher"]["weights"] == commit
        hashes.add(cell_hash(cell=original("org/model")))
    assert len(hashes) == 3


def gsm8k(folder, *, num_test=2, num_train=2) -> Path:
    (folder / "gsm8k").mkdir(parents=True)
    for split, count in (("test", num_test), ("train", num_train)):
        rows = [
            json.dumps({"question": f"{index} + 1?", "answer": f"#### {index + 1}"}) for index in range(count)
        ]
        (folder / "gsm8k" / f"{split}.jsonl").write_text("\n".join(rows))
    return folder


def sdar_hash(folder, split="test") -> str:
    suite = SuiteChoice(suite="sdar", data=str(folder), tasks=("gsm8k",)).chosen_suite()
    return resolve_cell(suite, suite.full, original("org/model", split=split)).hash


def test_the_file_of_the_evaluated_split_is_part_of_the_hash(tmp_path):
    pytest.importorskip("math_verify")
    folder, more_test, more_train = (
        gsm8k(tmp_path / "first"),
        gsm8k(tmp_path / "test", num_test=6),
        gsm8k(tmp_path / "train", num_train=6),
    )
    assert sdar_hash(folder) == sdar_hash(more_train) != sdar_hash(more_test)
    assert sdar_hash(folder, "validation") == sdar_hash(more_test, "validation")
    assert sdar_hash(folder, "validation") != sdar_hash(more_train, "validation")
    assert sdar_hash(tmp_path / "nowhere") not in {sdar_hash(folder), sdar_hash(more_test)}


def test_the_graders_settings_are_part_of_the_hash(tmp_path, monkeypatch):
    pytest.importorskip("math_verify")
    folder = gsm8k(tmp_path / "data")
    before = sdar_hash(folder)
    monkeypatch.setattr(math_grading, "grader_versions", lambda name: {"math-verify": "99"})
    assert sdar_hash(folder) != before


def test_device_and_batch_count_below_float32_and_are_repeated_in_the_command():
    below = dataclasses.replace(MINI, dtype="bfloat16", device="cpu")
    for suite, num_hashes in ((MINI, 1), (below, 3)):
        changed = [dataclasses.replace(suite, **change) for change in ({"batch_size": 8}, {"device": "cuda"})]
        for cell in (CELL, original("org/model")):
            assert len({cell_hash(suite=item, cell=cell) for item in (suite, *changed)}) == num_hashes
        rolled_out = {resolve_records(item, item.full, STUDENT).hash for item in (suite, *changed)}
        assert len(rolled_out) == num_hashes
    sdar = SuiteChoice(suite="sdar", data="data", device="cuda:0", batch_size=8).chosen_suite()
    assert "--device cuda --batch-size 8" in cell_command(sdar, original("org/model"), quick=False)
    mini = SuiteChoice(device="cpu", batch_size=8).chosen_suite()
    assert "--batch-size" not in cell_command(mini, original("mini"), quick=False)


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

"""Training that was cut, finished or damaged, called again."""

import functools
import json
import pkgutil
import shutil
from pathlib import Path

import pytest
import torch
from model_fixtures import load_copy
from safetensors.torch import load_file

from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out
from t3d.errors import InputError
from t3d.models.loading import load_own_settings
from t3d.problems.problem import Problem
from t3d.training.config import T3DConfig
from t3d.training.run import distil
from t3d.training.trainer import T3DTrainer
from t3d.work.checkpoints import checkpoints

FILES = ["model.safetensors", "optimizer.pt", "reference.safetensors", "trainer_state.json", "scheduler.pt"]


@pytest.fixture(scope="module")
def load(checkpoint):
    return functools.partial(load_copy, checkpoint)


@pytest.fixture(scope="module")
def trajectories(load):
    questions = ["how many", "how many apples", "so the answer", "now?", "is left", "a b c", "apples", "the"]
    problems = [Problem(id=str(index), question=question) for index, question in enumerate(questions)]
    return roll_out(load(), problems, DecodeParams(max_new_tokens=12, temperature=1.0))


def config(folder: Path, **overrides) -> T3DConfig:
    fields = {
        "output_dir": str(folder / "checkpoints"),
        "max_steps": 7,  # not a whole number of epochs of two steps
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "save_steps": 3,
        "save_total_limit": 2,
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "logging_steps": 2,
        "refresh_every": 2,
    }
    return T3DConfig(**(fields | overrides))


def student_weights(folder: Path) -> torch.Tensor:
    return flat(load_file(folder / "student" / "model.safetensors"))


def flat(by_name) -> torch.Tensor:
    return torch.cat([by_name[name].flatten() for name in sorted(by_name)])


def log(folder: Path) -> list[dict]:
    """The log without speed and memory, which no two runs share."""
    state = json.loads((checkpoints(folder / "checkpoints")[-1] / "trainer_state.json").read_text())
    measured = ("speed/", "memory/")
    return [
        {name: value for name, value in entry.items() if not name.startswith(measured)}
        for entry in state["log_history"]
    ]


@pytest.fixture(scope="module")
def whole(load, trajectories, tmp_path_factory):
    """Folder of a run that was not cut; do not change it."""
    folder = tmp_path_factory.mktemp("whole")
    distil(load(), trajectories, config(folder), folder / "student")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cut_at(monkeypatch, owner, name: str, call: int) -> None:
    """Make the ``call``-th call of a function die after its work, as a kill would."""
    real, calls = getattr(owner, name), []

    def dies(*args, **kwargs):
        result = real(*args, **kwargs)
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(owner, name, dies)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        ("t3d.training.trainer.T3DTrainer", "training_step", 5),
        ("transformers.Trainer", "save_model", 2),
        ("transformers.Trainer", "_save_optimizer_and_scheduler", 2),
        ("t3d.training.trainer.T3DTrainer", "save_further_files", 2),
        ("t3d.work.checkpoints", "discard", 1),
        ("t3d.work.checkpoints.CheckpointingTrainer", "train_from", 1),
        ("t3d.training.run", "export_model", 1),
    ],
)
def test_a_cut_run_continues_to_the_same_student_and_log(
    load, trajectories, whole, tmp_path, monkeypatch, owner, name, call
):
    with monkeypatch.context() as patch:
        cut_at(patch, pkgutil.resolve_name(owner), name, call)
        with pytest.raises(KeyboardInterrupt):
            distil(load(), trajectories, config(tmp_path), tmp_path / "student")
    distil(load(), trajectories, config(tmp_path), tmp_path / "student")
    assert torch.equal(student_weights(tmp_path), student_weights(whole))
    assert log(tmp_path) == log(whole)
    for file in ("config.json", "generation_config.json"):
        assert (tmp_path / "student" / file).read_bytes() == (whole / "student" / file).read_bytes()
    assert names(tmp_path) == names(whole) == ["checkpoints", "student", "student.log.jsonl"]
    assert names(tmp_path / "checkpoints") == names(whole / "checkpoints")
    assert names(tmp_path / "checkpoints") == ["checkpoint-6", "checkpoint-7", "plan.json"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_somebody_else_s_file_in_the_place_of_the_log_is_refused_before_training(
    load, trajectories, tmp_path, monkeypatch, is_folder
):
    notes = tmp_path / "student.log.jsonl"
    notes.mkdir() if is_folder else notes.write_text("my own notes\n")
    monkeypatch.setattr(T3DTrainer, "train_from", lambda *_: pytest.fail("it trains"))
    with pytest.raises(
        InputError, match="is a folder" if is_folder else "nothing tells that this command wrote"
    ):
        distil(load(), trajectories, config(tmp_path), tmp_path / "student")
    assert is_folder or notes.read_text() == "my own notes\n"


def test_a_finished_run_called_again_does_not_train(load, trajectories, whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(T3DTrainer, "training_step", lambda *args: pytest.fail("trained"))
    again = functools.partial(distil, trajectories=trajectories, student_folder=tmp_path / "student")
    settings = config(tmp_path)
    loaded = load()
    again(loaded, config=settings)
    assert torch.equal(flat(dict(loaded.model.named_parameters())), student_weights(whole))
    assert loaded.model.config.to_dict() == load().model.config.to_dict() | {"block_size": 8}
    assert loaded.own_settings == load_own_settings(tmp_path / "student"), "as if it had been trained now"
    shutil.rmtree(tmp_path / "student")
    again(load(), config=settings)
    assert torch.equal(student_weights(tmp_path), student_weights(whole))
    shutil.rmtree(tmp_path / "checkpoints")
    again(load(), config=settings)
    with pytest.raises(
        InputError, match=r"finished work of another run: learning_rate was 0\.001, now 0\.01"
    ):
        again(load(), config=config(tmp_path, learning_rate=1e-2))
    assert torch.equal(student_weights(tmp_path), student_weights(whole))


def test_checkpoints_of_another_run_are_refused_and_the_difference_is_named(
    load, trajectories, whole, tmp_path
):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for overrides, records, difference in [
        ({"learning_rate": 1e-2}, trajectories, r"learning_rate was 0\.001, now 0\.01"),
        ({"max_steps": 9}, trajectories, r"max_steps was 7, now 9"),
        ({}, trajectories[1:], r"trajectories\.count was 8, now 7"),
    ]:
        with pytest.raises(InputError, match=difference):
            distil(load(), records, config(tmp_path, **overrides), tmp_path / "student")
    (tmp_path / "checkpoints" / "plan.json").unlink()
    with pytest.raises(InputError, match=r"no readable plan\.json"):
        distil(load(), trajectories, config(tmp_path), tmp_path / "student")
    assert torch.equal(student_weights(tmp_path), student_weights(whole))


def test_a_student_that_nothing_tells_the_run_of_is_kept(load, trajectories, tmp_path):
    (tmp_path / "student").mkdir()
    with pytest.raises(InputError, match="nothing in it tells how it was made"):
        distil(load(), trajectories, config(tmp_path), tmp_path / "student")


def test_files_of_somebody_else_in_place_of_the_student_stay_also_beside_checkpoints(
    load, trajectories, whole, tmp_path
):
    """They were removed: a run that had checkpoints exported over them."""
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"student': exists, and nothing in it tells how it was made"):
        distil(load(), trajectories, config(tmp_path), tmp_path / "student")
    assert (tmp_path / "student" / "thesis.txt").read_text() == "mine"


def damage_file(path: Path, damage: str) -> None:
    """``flipped`` in one bit, ``truncated`` to its half, or ``missing``."""
    content, middle = path.read_bytes(), path.stat().st_size // 2
    path.write_bytes(content[:middle])
    if damage == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "missing":
        path.unlink()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json"]
)
def test_a_damaged_file_of_a_finished_student_is_named_and_made_again(
    load, trajectories, whole, tmp_path, monkeypatch, name, damage
):
    """It was believed: "was finished before by the same command"."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    damage_file(tmp_path / "student" / name, damage)
    monkeypatch.setattr(T3DTrainer, "training_step", lambda *args: pytest.fail("trained"))
    with pytest.raises(
        InputError, match=r"not the file that was made, of which .*training\.json has"
    ) as error:
        distil(load(), trajectories, config(tmp_path), tmp_path / "student")
    assert error.value.value == str(tmp_path / "student" / name)
    assert error.value.fix.startswith(f"delete {tmp_path / 'student'}; the same command then makes it again")
    shutil.rmtree(tmp_path / "student")
    distil(load(), trajectories, config(tmp_path), tmp_path / "student")
    assert (tmp_path / "student" / name).read_bytes() == (whole / "student" / name).read_bytes()


def test_a_damaged_record_of_a_finished_student_is_named(load, trajectories, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    record = tmp_path / "student" / "training.json"
    record.write_text(record.read_text().replace('"tokenizer.json"', '"tokeniser.json"'))
    with pytest.raises(InputError, match=r"training\.json': damaged\. Fix: delete .*student;"):
        distil(load(), trajectories, config(tmp_path), tmp_path / "student")


def test_a_student_of_an_earlier_version_is_taken_once_and_checked_from_then_on(
    load, trajectories, whole, tmp_path, caplog
):
    """Its record was the plan alone."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    record = tmp_path / "student" / "training.json"
    sealed = record.read_bytes()
    record.write_text(json.dumps(json.loads(sealed)["plan"]))
    again = functools.partial(distil, trajectories=trajectories, student_folder=tmp_path / "student")
    again(load(), config=config(tmp_path))
    assert "finished by an earlier version, without checksums" in caplog.text
    assert record.read_bytes() == sealed
    damage_file(tmp_path / "student" / "model.safetensors", "flipped")
    with pytest.raises(InputError, match=r"model\.safetensors': not the file that was made"):
        again(load(), config=config(tmp_path))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_a_student_with_a_damaged_plan_is_named(load, trajectories, tmp_path, content):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "training.json").write_bytes(content)
    with pytest.raises(
        InputError, match=r"student': exists, and nothing in it tells .* Fix: use another output"
    ):
        distil(load(), trajectories, config(tmp_path), tmp_path / "student")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on(
    load, trajectories, whole, tmp_path, name, damage
):
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    newest = tmp_path / "checkpoints" / "checkpoint-7"
    damage_file(newest / name, damage)
    with pytest.raises(InputError) as error:
        distil(load(), trajectories, config(tmp_path), tmp_path / "student")
    assert error.value.value == str(newest / name)
    assert error.value.fix.startswith(f"delete {newest}")
    assert not (tmp_path / "student").exists()
    shutil.rmtree(newest)
    distil(load(), trajectories, config(tmp_path), tmp_path / "student")
    assert torch.equal(student_weights(tmp_path), student_weights(whole))


def test_the_trainer_itself_refuses_a_checkpoint_without_its_reference(load, trajectories, whole, tmp_path):
    shutil.copytree(whole / "checkpoints" / "checkpoint-6", tmp_path / "checkpoint-6")
    (tmp_path / "checkpoint-6" / "reference.safetensors").unlink()
    loaded = load()
    trainer = T3DTrainer(loaded.model, config(tmp_path), trajectories, processing_class=loaded.tokenizer)
    with pytest.raises(InputError, match=r"reference\.safetensors"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))

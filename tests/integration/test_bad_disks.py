"""A disk that is full or may not be written to: one short error, and finished work stays."""

import dataclasses
import gc
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_helpers import run_failing, write_prompts

from t3d.cli.main import main
from t3d.decoding import rollout
from t3d.evaluation import evaluate as evaluate_module
from t3d.trajectory import read_trajectories, write_trajectories
from t3d.work.checkpoints import check_checkpoint, checkpoints
from t3d.work.kept import KeptLines

SHORT = ["--max-new-tokens", "12", "--device", "cpu"]


def mount(*arguments: str) -> None:
    if subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path) -> Iterator[Path]:
    """A folder that may not be written to: by permission, or for root, who may write anywhere, by mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
    else:
        mount("-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(folder))
        yield folder
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder on a good disk."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def commands(checkpoint, work):
    """Arguments of each command but --output; the trajectories of ``rollout`` are in the folder ``work``."""
    model, prompts = ["--model", str(checkpoint)], write_prompts(work)
    rollout_command = ["rollout", *model, "--prompts", str(prompts), "--chunk-size", "2", *SHORT]
    trajectories = work / "trajectories.parquet"
    assert main([*rollout_command, "--output", str(trajectories)]) == 0
    train = ["train", *model, "--trajectories", str(trajectories), "--device", "cpu"]
    train += ["--num-optimizer-steps", "9", "--batch-size", "2", "--save-every", "3"]
    train += ["--warmup-steps", "0"]
    return {
        "rollout": rollout_command,
        "eval": ["eval", *model, "--prompts", str(prompts), "--chunk-size", "2", *SHORT],
        "train": train,
    }


@pytest.fixture(scope="module")
def checkpoint_size(commands, work) -> int:
    """Bytes of a checkpoint of the training."""
    command = [*commands["train"], "--num-optimizer-steps", "3", "--output", str(work / "size")]
    assert main(command) == 0
    return sum(path.stat().st_size for path in (work / "size").rglob("checkpoint-3/*"))


def fill(folder: Path, leave: int) -> Path:
    """Fill a disk up to ``leave`` bytes; deleting the file that is returned frees it."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    ballast.write_bytes(b"\0" * (free - leave))
    return ballast


def fills_at(monkeypatch, module, name: str, call: int, disk: Path) -> None:
    """Fill the disk before the ``call``-th call of a module's function."""
    real, calls = getattr(module, name), []

    def filling(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            fill(disk, 0)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, filling)


@pytest.mark.parametrize("call", [1, 2])
def test_rollout_on_a_disk_that_fills_up_keeps_its_chunks(
    commands, small_disk, work, monkeypatch, capsys, call
):
    command = [*commands["rollout"], "--output", str(small_disk / "out.parquet")]
    with monkeypatch.context() as patch:
        fills_at(patch, rollout, "write_trajectories", call, small_disk)
        text = run_failing(command, capsys)
    assert f"out.parquet.chunks/chunk-{call - 1:05d}.parquet" in text
    assert "No space left on device" in text
    assert "Fix: free space on that disk, then give the same command again" in text
    kept = sorted(path.name for path in (small_disk / "out.parquet.chunks").iterdir())
    assert kept == [f"chunk-{index:05d}.parquet" for index in range(call - 1)] + ["plan.json"]
    assert not (small_disk / "out.parquet").exists()
    (small_disk / "ballast").unlink()
    assert main(command) == 0
    whole = read_trajectories(work / "trajectories.parquet")
    assert read_trajectories(small_disk / "out.parquet") == whole


@pytest.mark.parametrize("owner", [KeptLines, evaluate_module])
def test_eval_on_a_disk_that_fills_up_keeps_its_responses(commands, small_disk, monkeypatch, capsys, owner):
    """It fills up before a response that needs a new page of the file, or before the results."""
    command = [*commands["eval"], "--output", str(small_disk / "e")]
    if owner is KeptLines:
        real = KeptLines.append
        monkeypatch.setattr(KeptLines, "append", lambda self, row: real(self, row | {"note": "n" * 5000}))
    with monkeypatch.context() as patch:
        name, call = ("append", 4) if owner is KeptLines else ("jsonl", 1)
        fills_at(patch, owner, name, call, small_disk)
        text = run_failing(command, capsys)
    assert "No space left on device" in text
    assert [path.name for path in (small_disk / "e").iterdir()] == ["unfinished"]
    files = sorted((small_disk / "e" / "unfinished").iterdir())
    names = [f"prompts.B4-T1.chunk-{number:05d}.jsonl" for number in range(len(files) - 1)]
    assert [path.name for path in files] == ["plan.json", *names]
    kept = b"".join(path.read_bytes() for path in files[1:])
    assert kept.count(b"\n") == (3 if owner is KeptLines else 12)
    (small_disk / "ballast").unlink()
    assert main(command) == 0
    assert len((small_disk / "e" / "samples.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    "leave", [0, 150_000, *(pytest.param(size, marks=pytest.mark.slow) for size in (30_000, 400_000))]
)
def test_train_on_a_disk_that_is_too_small_keeps_its_checkpoints(
    commands, checkpoint_size, small_disk, capsys, leave
):
    """What is left is too little for a checkpoint: model, optimizer, reference and state fail in turn."""
    output = small_disk / "run"
    command = [*commands["train"], "--output", str(output)]
    assert leave < checkpoint_size
    output.mkdir()
    ballast = fill(small_disk, checkpoint_size + 60_000 + leave)
    text = run_failing(command, capsys)
    assert "run/checkpoints/checkpoint-6" in text
    assert "No space left on device" in text
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == ["checkpoint-3", "plan.json"]
    assert [path.name for path in output.iterdir()] == ["checkpoints"]
    check_checkpoint(checkpoints(output / "checkpoints")[-1])
    ballast.unlink()
    assert main(command) == 0
    assert (output / "student" / "model.safetensors").is_file()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # datasets leaves its file open
@pytest.mark.parametrize("leave", [0, 4096, 200_000, 700_000])
def test_a_folder_of_datasets_on_a_disk_that_is_too_small(
    commands, checkpoint, small_disk, work, capsys, leave
):
    """What is left is too little for the data set and its cache: the cache and the copy fail in turn."""
    records = read_trajectories(work / "trajectories.parquet")
    many = [dataclasses.replace(one, id=f"{one.id}/{index}") for one in records for index in range(100)]
    write_trajectories(work / "many.parquet", many)
    fill(small_disk, leave)
    command = ["data", "convert", "--input", str(work / "many.parquet"), "--to-format", "d3llm"]
    text = run_failing([*command, "--model", str(checkpoint), "--output", str(small_disk / "set")], capsys)
    assert str(small_disk / "set") in text
    assert "Fix: free space on that disk" in text
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]
    gc.collect()  # closes that file here, before the disk is unmounted


@pytest.mark.parametrize("name", ["rollout", "eval", "train"])
def test_an_output_that_may_not_be_written_to_is_named(commands, read_only, capsys, name):
    text = run_failing([*commands[name], "--output", str(read_only / "out")], capsys)
    assert str(read_only / "out") in text
    assert "cannot be written" in text
    assert "Fix: use an output" in text
    assert list(read_only.iterdir()) == []


@pytest.mark.parametrize("name", ["rollout", "eval", "train"])
def test_an_output_below_a_file_is_named(commands, tmp_path, capsys, name):
    (tmp_path / "file").write_text("mine")
    text = run_failing([*commands[name], "--output", str(tmp_path / "file" / "out")], capsys)
    assert "no file where a folder belongs" in text
    assert (tmp_path / "file").read_text() == "mine"

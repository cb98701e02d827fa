"""``t3d train --num-processes``: accelerate starts the processes, which train what one process trains."""

import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from command_helpers import run_failing
from launched_helpers import EVERY_STEP, TWO, assert_trained_alike, entries, started, training_command

from t3d.cli import launching
from t3d.cli.accelerate_settings import accelerate_file
from t3d.cli.config_file import flags_of
from t3d.cli.launching import launch
from t3d.cli.main import COMMANDS, main
from t3d.cli.train import Train


@pytest.fixture
def command(checkpoint, trajectories, tmp_path):
    """Five steps on the CPU; the output is to be added."""
    return training_command(checkpoint, trajectories, tmp_path)


def test_the_processes_are_told_every_flag_of_the_command(command, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("t3d.cli.train.launch", lambda *arguments: told.append(arguments))
    line = [*command, str(tmp_path / "run"), "--override", "logging_steps=1", "log_ratio=sum"]
    assert main([*line, "--num-processes", "2"]) == 0
    ((name, flags, count, config),) = told
    assert (name, count, config) == ("train", 2, accelerate_file("ddp"))
    assert COMMANDS["train",] is Train
    monkeypatch.setenv("WORLD_SIZE", "2")  # as in one of them: it does not start others
    seen = []

    def keep(self):
        seen.append(self)

    monkeypatch.setattr(Train, "_train", keep)
    assert main(["train", *flags]) == 0
    assert flags_of(seen[0]) != flags, "the block size is resolved"
    assert [seen[0].override, seen[0].batch_size, seen[0].num_processes] == [
        ("logging_steps=1", "log_ratio=sum"),
        4,
        2,
    ]


def test_what_cannot_be_started_is_refused_by_name(command, tmp_path, monkeypatch, capsys):
    line = [*command, str(tmp_path / "run")]
    text = run_failing([*line, "--num-processes", "2", "--accelerate-config", "fsdp9"], capsys)
    assert "accelerate_config='fsdp9': not known, and no such file. Fix: use one of ddp, fsdp2, zero1" in text
    for count in ([], ["--num-processes", "1"]):
        text = run_failing([*line, *count, "--accelerate-config", "ddp"], capsys)
        assert "accelerate_config='ddp': ignored: it says how num_processes are started" in text
    assert "num_processes=0: not positive" in run_failing([*line, "--num-processes", "0"], capsys)
    text = run_failing([*line, "--num-processes", "3"], capsys)
    assert "batch_size=4: not a multiple of gradient_accumulation_steps=1 times 3 processes" in text
    monkeypatch.setenv("WORLD_SIZE", "4")
    text = run_failing([*line, "--num-processes", "2"], capsys)
    assert "num_processes=2: 4 processes were started already" in text
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("t3d.models.placement.resolve_device", lambda device: torch.device("cuda"))
    text = run_failing([*line, "--num-processes", "2"], capsys)
    assert "num_processes=2: this machine has 1 GPUs" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, None])
def test_the_launcher_is_waited_for_and_stopped_with_the_command(monkeypatch, stop):
    calls = []

    class Launcher:
        def __init__(self, line):
            calls.append(line[-3:])

        def wait(self):
            calls.append("wait")
            if stop is not None and calls.count("wait") == 1:
                raise stop
            return 3

        def terminate(self):
            calls.append("terminate")

    monkeypatch.setattr(launching.subprocess, "Popen", Launcher)
    with pytest.raises(stop or SystemExit) as caught:
        launch("train", ["--seed=1"], 2, accelerate_file("ddp"))
    assert calls[0] == ["t3d", "train", "--seed=1"]
    assert calls[1:] == (["wait"] if stop is None else ["wait", "terminate", "wait"])
    assert stop is not None or caught.value.code == 3


# --- real processes ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_processes_train_what_one_trains(command, checkpoint, tmp_path):
    """The batch size is that of all processes."""
    runs = [tmp_path / name for name in ("one", "two")]
    assert main([*command, str(runs[0]), *EVERY_STEP]) == 0
    line = [*command, str(runs[1]), *EVERY_STEP, *TWO]
    started(line)
    assert_trained_alike(runs[1], runs[0], checkpoint)
    assert "share_of_weights" not in entries(runs[1])[0]
    started(line)  # what is finished is taken


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_processes_ask_the_student_for_soft_targets_as_one_does(command, tmp_path):
    at = command.index("--refresh-every")
    command[at : at + 2] = ["--preset", "naive_td", "--override", "logging_steps=1", "mask_ratio_power=0"]
    own = ["soft_target_weight=0.5", "soft_target_source=student", "soft_target_context=later_state"]
    line = [*command[: at + 5], *own, *command[at + 5 :]]
    assert main([*line, str(tmp_path / "one")]) == 0
    started([*line, str(tmp_path / "two"), *TWO])
    names = ("loss", "loss/soft_targets", "loss/cross_entropy")
    one, two = (
        torch.tensor([[row[name] for name in names] for row in entries(tmp_path / run)])
        for run in ("one", "two")
    )
    assert len(one) == 5 and (one[:, 1] > 0).all()
    torch.testing.assert_close(two, one, rtol=1e-4, atol=0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ps") is None, reason="sends a signal, and lists processes")
def test_a_command_that_is_stopped_stops_its_processes_and_goes_on(command, tmp_path):
    run = tmp_path / "run"
    line = [sys.executable, "-m", "t3d", *command, str(run), "--num-processes", "2"]
    line = [*line, "--save-every", "1", "--num-optimizer-steps", "400"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + 200
        while not (run / "checkpoints" / "checkpoint-2").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        text = process.communicate(timeout=100)[0]
    assert process.returncode == 143 and "terminated; kept: the newest checkpoint in" in text
    others = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(run) not in others

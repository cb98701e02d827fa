"""What a newcomer mistypes, and what a command cannot use: one line that says what to write instead."""

import json
import os
import shutil
import signal
import threading
from types import SimpleNamespace

import pytest
import torch
from command_helpers import run_failing, write_prompts

from t3d.cli import train
from t3d.cli.arguments import is_positional
from t3d.cli.config_file import flat_fields
from t3d.cli.main import COMMANDS, main
from t3d.cli.processes import own_device
from t3d.cli.stopping import kept_text
from t3d.cli.train import Train
from t3d.decoding import rollout


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dmeo", "command='dmeo': not known. Fix: did you mean t3d demo."),
        ("rolout --model mini", "Fix: did you mean t3d rollout."),
        ("data stat x", "command='data stat': not known. Fix: did you mean t3d data stats."),
        ("data", "command='data': not known. Fix: use one of data stats, data validate"),
        ("mini orcle", "Fix: did you mean t3d mini oracle."),
        ("reproduce cel --method t3d", "Fix: did you mean t3d reproduce cell."),
        ("xyzzy", "Fix: use one of demo, rollout"),
        ("train --outptu x", "flag='--outptu': not one of this command. Fix: did you mean --output."),
        (
            "train --batchsize=4",
            "flag='--batchsize': not one of this command. Fix: did you mean --batch-size.",
        ),
        ("eval --config", "config=None: names no file. Fix: write --config FILE.yaml."),
        ("eval --config --model x", "config='--model': names no file"),
        ("eval --model mini --output x", "tasks=None: neither this nor prompts is given"),
        (
            "reproduce cell --method t3dd --settings B4-T1",
            "method='t3dd': not known. Fix: did you mean t3d? It is one of original",
        ),
        (
            "reproduce cell --method origina --settings B4-T1",
            "Fix: did you mean original? It is one of original, t3d,",
        ),
        (
            "generate --model minni --prompt x",
            "model='minni': no such folder. Fix: did you mean mini? Else give",
        ),
        ("generate --model nowhere --prompt x", "model='nowhere': no such folder. Fix: give a checkpoint"),
        ("generate --prompt x --limit 3", "limit=3: ignored: there is one prompt"),
        ("generate --prompt x --prompt-kind math", "prompt_kind='math': ignored: prompt_style='plain'"),
        ("generate --prompt x --confidence-threshold 0.5", "confidence_threshold=0.5: ignored: remasking="),
        ("generate --prompt x --confidence-threshold 0.9", "confidence_threshold=0.9: ignored: remasking="),
        ("generate --prompt x --entropy-bound 0.5", "entropy_bound=0.5: ignored: remasking="),
        ("generate --prompt x --top-k 5 --temperature 0", "top_k=5: ignored: temperature=0 draws nothing"),
        ("eval --model mini --tasks chain --top-p 0.5 --temperature 0 --output x", "top_p=0.5: ignored: "),
        (
            "rollout --model mini --task chain --output a.jsonl",
            "output='a.jsonl': the records are written as",
        ),
        ("data solutions --model mini --task chain --output a.json", "Fix: name it a.parquet."),
        (
            "reproduce cell --method naive_td --settings B4-T1 --learning-rate 1e-3 --override ddo_beta=1",
            "ddo_beta=1.0: ignored: objective='cross_entropy' has no reference",
        ),
        ("reproduce table1 --configurations a.yaml", "configurations='a.yaml': only a dry run writes them"),
        ("demo --num-rounds 0", "error: num_rounds=0: not positive. Fix: use 1 or more."),
        ("reproduce table5 --seeds 0", "error: seeds=0: not positive. Fix: use 1 or more."),
        ("rollout --limit four --output x", "limit='four': not a whole number. Fix: use a whole number."),
        ("rollout --model mini --temperature=1,5", "temperature='1,5': not a number. Fix: use a number."),
        ("mini pretrain --output x --task-shares 1 a 1", "task_shares='a': not a number."),
        ("generate --remasking low", "remasking='low': not known. Fix: use one of low_confidence_static,"),
        ("eval --left-to-right=true", "'true': a flag without a value. Fix: write --left-to-right or"),
        ("eval --dynamic --model mini", "dynamic=None: has no value. Fix: write one behind --dynamic."),
        ("demo 5 6", "argument='5': belongs to no flag. Fix: leave it out, or put quotes around"),
        ("generate -p x", "flag='-p': not known. Fix: see t3d generate --help."),
        ("--foo", "flag='--foo': not known. Fix: see t3d --help."),
        ("", "command=None: not given. Fix: write for example t3d demo, or see t3d --help."),
        ("convert", "source=None: not given. Fix: write t3d convert SOURCE --output OUTPUT."),
        ("fetch", "name=None: not given. Fix: write t3d fetch NAME --output OUTPUT."),
        ("fetch smollm3", "output=None: not given. Fix: write t3d fetch NAME --output OUTPUT."),
        ("data stats", "trajectories=None: not given. Fix: write t3d data stats --trajectories TRAJ"),
        ("convert --source X", "'--source': not one of this command. Fix: write t3d convert SOURCE --output"),
        ("reproduce --table table5", "'--table': not one of this command. Fix: write t3d reproduce TABLE,"),
        ("convert --model mini --output x", "Fix: write t3d convert SOURCE --output OUTPUT, or see t3d"),
        (
            "rollout --drafter D",
            "Fix: leave it out (a flag of t3d demo, t3d eval, t3d generate, t3d serve), or see t3d rollout",
        ),
        ("rollout --tasks chain", "Fix: did you mean --task."),
        ("demo --hlep", "Fix: did you mean --help."),
    ],
)
def test_a_wrong_line_says_what_to_write(tmp_path, monkeypatch, capsys, line, message):
    monkeypatch.chdir(tmp_path)
    assert message in run_failing(line.split(), capsys)
    assert not list(tmp_path.iterdir())


def test_help_is_no_error(capsys):
    for line in (["--help"], ["train", "--help"], ["data", "stats", "-h"]):
        with pytest.raises(SystemExit) as stop:
            main(line)
        assert not stop.value.code and "usage: t3d" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {("lm-eval",)}))
def test_the_help_names_what_has_no_flag_as_errors_do(capsys, name):
    """It said STR."""
    with pytest.raises(SystemExit):
        main([*name, "--help"])
    first = " ".join(capsys.readouterr().out.split("\n\n")[0].split())
    for field in filter(is_positional, flat_fields(COMMANDS[name]).values()):
        assert f" {field.name.upper().removesuffix('S')}" in first


def test_an_option_of_a_file_is_read_as_its_flag_is(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("limit: four\n")
    text = run_failing(["rollout", "--config", str(tmp_path / "c.yaml")], capsys)
    assert text == "error: limit='four': not a whole number. Fix: use a whole number."


def test_a_device_that_is_not_there_names_those_that_are(capsys):
    text = run_failing(["generate", "--model", "mini", "--prompt", "x", "--device", "cuda:77"], capsys)
    assert "device='cuda:77': not usable here" in text
    if not torch.accelerator.is_available():
        assert text.endswith("Fix: use auto or cpu.")


@pytest.mark.parametrize("flags", [["--split", "test"], ["--problem-seed", "3"]])
def test_flags_of_tasks_are_refused_with_a_prompt_file(tmp_path, capsys, flags):
    prompts, output = write_prompts(tmp_path), tmp_path / "out.parquet"
    command = ["rollout", "--model", "mini", "--prompts", str(prompts), "--output", str(output)]
    assert "no task of chain, make, code" in run_failing([*command, *flags], capsys)
    assert not output.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: 1\nseed: 2", "seed stands twice"),
        ("seed: 010", "010 begins with 0, which YAML reads in base 8"),
        ("seed: " + "9" * 5000, "not YAML (Exceeds the limit"),
    ],
)
def test_a_config_that_says_something_else_than_it_seems(tmp_path, capsys, content, message):
    (tmp_path / "config.yaml").write_text(content)
    assert message in run_failing(["eval", "--config", str(tmp_path / "config.yaml")], capsys)


def test_a_number_of_many_digits_in_a_prompt_file(tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text('{"question": "a", "answer": ' + "9" * 5000 + "}")
    command = ["generate", "--model", "mini", "--prompts", str(tmp_path / "p.jsonl")]
    assert "p.jsonl': not JSON (Exceeds the limit" in run_failing(command, capsys)


def test_an_output_below_proc(tmp_path, capsys):
    prompts = write_prompts(tmp_path)
    for output in ("/proc/x", "/proc/x/y"):
        command = ["rollout", "--model", "mini", "--prompts", str(prompts), "--output", output]
        text = run_failing([*command, "--max-new-tokens", "4", "--device", "cpu"], capsys)
        assert "output='/proc/x" in text and "Fix: use an output" in text


SHARED = {("train",), ("rollout",), ("eval",), ("env",)}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - SHARED))
def test_several_processes_are_refused_but_for_what_they_share(monkeypatch, capsys, name):
    """They would race for the same files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "WORLD_SIZE=2: t3d " in run_failing(list(name), capsys)


def test_processes_of_one_machine_take_a_gpu_each(monkeypatch):
    """A second one on a machine with one GPU shares it."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert own_device("auto") == "auto" and not chosen
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [own_device(name) for name in ("auto", "cuda", "cpu", "cuda:0")] == ["cuda:1"] * 2 + [
        "cpu",
        "cuda:0",
    ]
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert own_device("auto") == "auto" and chosen == [1, 1]


def test_the_batch_size_is_that_of_all_processes(monkeypatch, tmp_path, capsys):
    """It was multiplied by their number."""
    monkeypatch.setattr(train, "num_processes", lambda: 2)
    flags = {"model": "mini", "trajectories": "x", "output": str(tmp_path), "device": "cpu", "block_size": 8}
    config = Train(**flags, batch_size=64, gradient_accumulation_steps=4)._trainer_config({})
    assert config.per_device_train_batch_size * 4 * 2 == 64
    line = ["train", "--model", "mini", "--trajectories", "x", "--output", str(tmp_path / "o")]
    assert "batch_size=3: not a multiple of gradient_accumulation_steps=1 times 2 processes" in run_failing(
        [*line, "--batch-size", "3", "--device", "cpu"], capsys
    )


def test_a_command_does_not_write_over_another_s_config(checkpoint, tmp_path, capsys):
    prompts, output = write_prompts(tmp_path), tmp_path / "run"
    output.mkdir()
    (output / "config.yaml").write_text("model: x\ntrajectories: y\n")
    command = ["eval", "--model", str(checkpoint), "--prompts", str(prompts), "--output", str(output)]
    text = run_failing(command, capsys)
    assert "config.yaml': exists, and is of something else: t3d eval has no trajectories" in text
    assert [path.name for path in output.iterdir()] == ["config.yaml"]


def test_a_rollout_runs_again_from_its_config_where_the_checkpoint_names_what_is_unused(
    checkpoint, tmp_path, capsys
):
    """A threshold of the checkpoint, at another strategy, is not given; it is inherited again."""
    folder, output = tmp_path / "student", tmp_path / "out.parquet"
    shutil.copytree(checkpoint, folder)
    path = folder / "generation_config.json"
    own = {"block_size": 4, "remasking": "low_confidence_dynamic", "confidence_threshold": 0.8}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"block_diffusion": own}))
    command = ["rollout", "--model", str(folder), "--prompts", str(write_prompts(tmp_path))]
    command += ["--output", str(output), "--remasking", "sequential", "--max-new-tokens", "8"]
    assert main([*command, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "6 trajectories in" in printed and "tokens/s" in printed and "hit the length limit" in printed
    assert main(["rollout", "--config", f"{output}.yaml"]) == 0
    assert "tokens/s" not in capsys.readouterr().out, "nothing was decoded"


@pytest.mark.parametrize("num_finished", [0, 1])
def test_a_command_that_is_terminated_says_what_it_kept(
    checkpoint, tmp_path, capsys, monkeypatch, num_finished
):
    """Or that there is nothing: it named chunks before the first one was finished."""
    output, real, begun = tmp_path / "out.parquet", rollout.roll_out_answered, []

    def kill(*args, **kwargs):
        begun.append(0)
        if len(begun) <= num_finished:
            return real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)
        return threading.Event().wait(5)

    monkeypatch.setattr(rollout, "roll_out_answered", kill)
    command = ["rollout", "--model", str(checkpoint), "--prompts", str(write_prompts(tmp_path))]
    command += ["--output", str(output), "--max-new-tokens", "8", "--chunk-size", "3", "--device", "cpu"]
    before = signal.getsignal(signal.SIGTERM)
    assert main(command) == 143
    text = capsys.readouterr().err
    kept = f"kept: finished chunks of 3 prompts in {output}.chunks. The same command continues there"
    nothing = "nothing was finished yet, so nothing is kept. The same command begins anew"
    assert f"terminated; {kept if num_finished else nothing}\n" in text
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setattr(rollout, "roll_out_answered", real)
    assert main(command) == 0, "whatever was said, it goes on"


def test_what_is_kept_is_looked_for_in_an_output_of_any_name(tmp_path):
    command = SimpleNamespace(output=str(tmp_path / "a[b]*"), chunk_size=4)
    chunks = tmp_path / "a[b]*.chunks"
    chunks.mkdir()
    (chunks / ".chunk-0.parquet.partial").touch()
    assert "nothing was finished yet" in kept_text("rollout", command)
    (chunks / "chunk-0.parquet").touch()
    assert "; kept: " in kept_text("rollout", command)

"""A prompt that makes the model raise is left out, told and tried again; the others are as without it."""

import json
from dataclasses import replace

import pytest
import torch
from failing_helpers import fail_at, poisoned
from model_fixtures import load_copy

from t3d.cli.main import main
from t3d.decoding import rollout
from t3d.decoding.completion import DecodingError
from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import FileRollout
from t3d.decoding.sample_choice import SampleChoice
from t3d.problems.problem import Problem
from t3d.trajectory import read_trajectories
from t3d.work.failures import TooManyErrors
from t3d.work.shards import Shard

POISON = "pear"
QUESTIONS = ["how many apples 0", f"how many {POISON}s", "how many apples 2", "how many plums", "how many"]


@pytest.fixture
def loaded(checkpoint):
    return load_copy(checkpoint)


@pytest.fixture
def poison(loaded):
    """The model raises while it reads the poisoned prompt, until the flag is lowered."""
    return poisoned(loaded, QUESTIONS, POISON)


@pytest.fixture
def rolling(loaded):
    def rolling(output, questions=QUESTIONS, **fields):
        problems = [Problem(id=str(number), question=text) for number, text in enumerate(questions) if text]
        params = DecodeParams(max_new_tokens=4, temperature=1.0)
        how = {"problems": problems, "params": params, "chunk_size": 3, "max_errors": 1} | fields
        return FileRollout(loaded=loaded, output=output, **how)

    return rolling


def told(output):
    lines = output.with_name(f"{output.name}.errors.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("num_samples", [1, 2])
@pytest.mark.parametrize("shards", [None, (1, 2), (2, 1)])
def test_the_others_are_as_without_it_and_it_is_tried_again(
    rolling, poison, tmp_path, monkeypatch, shards, num_samples
):
    how = {"choice": SampleChoice(num_samples=num_samples)}
    poison["is_on"] = False
    everything = rolling(tmp_path / "all", **how).run()
    without = rolling(tmp_path / "without", [text if POISON not in text else "" for text in QUESTIONS], **how)
    others = without.run()
    poison["is_on"] = True
    job = rolling(tmp_path / "out", **how)
    if shards is None:
        job.run()
    else:
        for number in shards:
            job.run_shard(Shard(number, 2))
    assert read_trajectories(job.output) == others == [t for t in everything if t.id.split("#")[0] != "1"]
    (line,) = told(job.output)
    assert line["id"] == "1" and line["error"] == "OutOfMemoryError"
    assert line["message"] == "CUDA out of memory" and "in hook" in line["traceback"]
    assert job.chunks.is_dir(), "there is more to do"
    before = poison["num_raised"]
    assert job.run() == others, "it fails again"
    assert poison["num_raised"] > before and len(told(job.output)) == 1
    poison["is_on"] = False
    real, asked = rollout.roll_out_answered, []

    def roll_out_answered(loaded, problems, *others, **how):
        asked.extend(problem.id for problem in problems)
        return real(loaded, problems, *others, **how)

    monkeypatch.setattr(rollout, "roll_out_answered", roll_out_answered)
    assert job.run() == everything
    assert job.output.read_bytes() == (tmp_path / "all").read_bytes()
    assert {"out.errors.jsonl", "out.chunks"}.isdisjoint(names(tmp_path))
    assert job.run() == everything and asked == ["1"], "what is finished is not tried again"


def test_one_more_than_may_fail_ends_the_run_and_keeps_what_is_finished(rolling, poison, tmp_path):
    job = rolling(tmp_path / "out", max_errors=0, chunk_size=1)
    problem = (
        r"max_errors=0: 1 prompt failed \('1': OutOfMemoryError: CUDA.*\); .*out\.errors\.jsonl lists all"
    )
    with pytest.raises(TooManyErrors, match=problem):
        job.run()
    assert not job.output.exists() and [line["id"] for line in told(job.output)] == ["1"]
    assert job.num_chunks() == (1, 5)
    assert len(replace(job, max_errors=1).run()) == 4


def test_errors_of_all_shards_count_at_the_end(rolling, poison, tmp_path):
    texts = [f"{POISON}s how many", *QUESTIONS[1:]]
    job = rolling(tmp_path / "out", texts, chunk_size=1)
    assert job.run_shard(Shard(1, 2)) is None
    with pytest.raises(TooManyErrors, match="2 prompts failed"):
        job.run_shard(Shard(2, 2))
    assert sorted(line["id"] for line in told(job.output)) == ["0", "1"]
    assert replace(job, max_errors=2).run() and len(told(job.output)) == 2


@pytest.mark.parametrize("num_samples", [1, 2])
def test_merged_shards_tell_which_prompts_failed(rolling, poison, tmp_path, capsys, num_samples):
    how = {"choice": SampleChoice(num_samples=num_samples)}
    for number in (1, 2):
        rolling(tmp_path / str(number), chunk_size=1, **how).run_shard(Shard(number, 2))
    whole = rolling(tmp_path / "whole", chunk_size=1, **how).run()
    merge = ["data", "merge", str(tmp_path / "merged"), *(str(tmp_path / name) for name in "12")]
    assert main(merge) == 0
    assert f"1 of their prompts failed, listed in {tmp_path}/merged.errors.jsonl" in capsys.readouterr().out
    assert told(tmp_path / "merged") == told(tmp_path / "whole")
    assert read_trajectories(tmp_path / "merged") == whole
    assert main(["data", "merge", str(tmp_path / "joined"), str(tmp_path / "whole")]) == 0
    assert told(tmp_path / "joined") == told(tmp_path / "whole"), "of whole files, too"
    poison["is_on"] = False
    rolling(tmp_path / "2", chunk_size=1, **how).run_shard(Shard(2, 2))
    capsys.readouterr()
    assert main(merge) == 0
    assert "failed" not in capsys.readouterr().out and "merged.errors.jsonl" not in names(tmp_path)


def test_prompts_that_fail_only_together_are_nobody_s_fault(rolling, loaded, tmp_path):
    def hook(module, arguments):
        if torch.is_tensor(arguments[0]) and len(arguments[0].flatten()) > 12:
            raise torch.OutOfMemoryError("too many tokens")

    loaded.model.get_input_embeddings().register_forward_pre_hook(hook)
    job = rolling(tmp_path / "out", ["a", "b", "c", "d"], max_errors=4, chunk_size=4)
    with pytest.raises(DecodingError, match="too many tokens"):
        job.run()
    assert not job.output.exists()


def test_the_command_says_last_how_many_failed_and_where_they_are_listed(
    checkpoint, tmp_path, capsys, monkeypatch
):
    fail_at(monkeypatch, "1")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"id": str(n), "question": t}) + "\n" for n, t in enumerate(QUESTIONS))
    )
    line = ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--device", "cpu"]
    line += ["--max-new-tokens", "4", "--output", str(tmp_path / "out")]
    assert main(line) == 2
    assert "max_errors=0: 1 prompt failed ('1': RuntimeError: a bug)" in capsys.readouterr().err
    assert main([*line, "--max-errors", "1"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert (
        last == f"1 prompt failed, listed in {tmp_path}/out.errors.jsonl; the same command tries them again"
    )

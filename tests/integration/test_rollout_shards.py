"""However many runs share a rollout, in whatever order: the file is that of a single run, to the byte."""

import itertools
import shutil
from functools import partial

import pytest
import yaml
from command_helpers import run_failing, write_prompts
from model_fixtures import load_copy

from t3d.cli.main import main
from t3d.decoding import rollout as module
from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import FileRollout
from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.trajectory import read_plan, read_trajectories
from t3d.work import shards
from t3d.work.kept import claim
from t3d.work.lock import InUseError, locked
from t3d.work.shards import Shard

NUM_PROBLEMS, NUM_CHUNKS = 5, 3


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_copy(checkpoint)


@pytest.fixture(scope="module")
def rolling(loaded):
    """A rollout of three chunks by its output."""

    def rolling(output, **fields):
        problems = [
            Problem(id=str(number), question=f"how many apples {number}") for number in range(NUM_PROBLEMS)
        ]
        params = DecodeParams(max_new_tokens=4, temperature=1.0)
        how = {"problems": problems, "params": params, "chunk_size": 2} | fields
        return FileRollout(loaded=loaded, output=output, **how)

    return rolling


@pytest.fixture(scope="module")
def whole(rolling, tmp_path_factory):
    """The bytes of a single run's file."""
    output = tmp_path_factory.mktemp("whole") / "whole.parquet"
    rolling(output).run()
    return output.read_bytes()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("order", [(1, 2), (4, 3, 2, 1)])
def test_shards_in_one_folder_make_the_file_of_one_run(rolling, whole, tmp_path, order):
    """The last makes it; with more shards than chunks one has nothing to do."""
    job = rolling(tmp_path / "out.parquet")
    *others, last = [Shard(number, len(order)) for number in order]
    for shard in others:
        assert job.run_shard(shard) is None and not job.output.exists()
    trajectories = job.run_shard(last)
    assert job.output.read_bytes() == whole and trajectories == read_trajectories(job.output)
    assert names(tmp_path) == ["out.parquet"]
    assert job.run_shard(others[0]) == trajectories, "what is finished is read"


def test_a_cut_shard_goes_on_and_a_run_without_shards_completes_what_is_missing(
    rolling, whole, tmp_path, monkeypatch
):
    job, real, rolled = rolling(tmp_path / "out.parquet"), module.roll_out_answered, []

    def cut(loaded, part, *args, **kwargs):
        rolled.append([problem.id for problem in part])
        if len(rolled) == 2:
            raise KeyboardInterrupt
        return real(loaded, part, *args, **kwargs)

    monkeypatch.setattr(module, "roll_out_answered", cut)
    with pytest.raises(KeyboardInterrupt):
        job.run_shard(Shard(1, 2))
    assert job.run_shard(Shard(1, 2)) is None and job.num_chunks() == (2, 3)
    assert job.run_shard(Shard(1, 2)) is None, "nothing is left to it"
    job.run()
    assert rolled == [["0", "1"], ["4"], ["4"], ["2", "3"]]
    assert job.output.read_bytes() == whole and names(tmp_path) == ["out.parquet"]


def test_shards_with_outputs_of_their_own_are_merged(rolling, whole, tmp_path):
    outputs = [tmp_path / name for name in "ab"]
    for number, output in enumerate(outputs, start=1):
        assert rolling(output).run_shard(Shard(number, 2)) is None
    assert main(["data", "merge", str(tmp_path / "out"), *map(str, outputs)]) == 0
    assert (tmp_path / "out").read_bytes() == whole
    assert rolling(tmp_path / "out").run(), "it is finished"


def test_every_chunk_belongs_to_one_shard():
    for count, chunk in itertools.product(range(1, 6), range(12)):
        assert sum(Shard(number, count).takes(chunk) for number in range(1, count + 1)) == 1


def test_a_chunk_says_that_it_is_a_part_and_of_what(rolling, tmp_path):
    """Nobody takes it for the whole."""
    job = rolling(tmp_path / "out.parquet")
    job.run_shard(Shard(2, 2))
    (chunk,) = job.chunks.glob("chunk-*")
    plan = read_plan(chunk)
    part = {"first": 2, "of": 5, "whole": "", "count": 2}
    assert plan["part"] == part and plan["decode"]["max_new_tokens"] == 4
    chunk.rename(job.output)
    with pytest.raises(InputError, match=r"finished work of another run: part\.count was 2, now not given"):
        job.run()


@pytest.mark.parametrize(("theirs", "mine"), [("chunk-00000", "chunk-00001"), ("other", "chunk-00000")])
def test_a_chunk_of_another_run_or_place_is_named(rolling, tmp_path, theirs, mine):
    job, other = rolling(tmp_path / "out.parquet"), rolling(tmp_path / "other.parquet")
    if theirs == "other":
        other = rolling(other.output, params=DecodeParams(max_new_tokens=3))
        theirs = "chunk-00000"
    for each in (job, other):
        each.run_shard(Shard(1, 2))
    shutil.copyfile(other.chunks / f"{theirs}.parquet", job.chunks / f"{mine}.parquet")
    with pytest.raises(InputError, match=rf"{mine}\.parquet': is of another run: .*delete it; the same com"):
        job.run()


def test_who_shares_a_folder_at_the_same_time(rolling, whole, tmp_path):
    job = rolling(tmp_path / "out.parquet")
    assert job.run_shard(Shard(2, 2)) is None
    with locked(job.chunks / "shard-2-of-2"):  # still at work
        with pytest.raises(InUseError, match=r"chunks': shard-2-of-2 is at work there"):
            job.run()
        for shard in (Shard(2, 2), Shard(1, 3)):
            with pytest.raises(InUseError, match=rf"shard='{shard}': shard-2-of-2 is at work in .*same N"):
                job.run_shard(shard)
        assert job.run_shard(Shard(1, 2)) is None and job.num_chunks() == (3, 3), "left to the last"
        with pytest.raises(InputError, match=r"decode\.max_new_tokens was 4, now 3"):
            rolling(job.output, params=DecodeParams(max_new_tokens=3)).run_shard(Shard(1, 2))
    job.run_shard(Shard(2, 2))
    assert job.output.read_bytes() == whole and names(tmp_path) == ["out.parquet"]


def test_shards_of_another_rollout_are_refused_before_either_has_a_chunk(rolling, tmp_path):
    job, other = (rolling(tmp_path / "out.parquet", batch_size=size) for size in (1, 2))

    def part(folder):
        with pytest.raises(InputError, match="batch_size was 1, now 2"):
            other.run_shard(Shard(2, 2))

    how = {"take": lambda: None, "part": part, "work": lambda folder: None}
    assert shards.once_by_shards(job.chunks, job.plan, "chunk-*", Shard(1, 2), **how) is None


def test_a_shard_that_comes_when_the_output_has_just_been_made_does_nothing(tmp_path):
    answers = iter([None, "made"])
    how = {"part": lambda folder: pytest.fail("worked"), "work": lambda folder: pytest.fail("made again")}
    take = partial(next, answers)
    assert shards.once_by_shards(tmp_path / "c", {}, "chunk-*", Shard(1, 2), take=take, **how) is None
    assert names(tmp_path) == []


def test_a_run_without_shards_keeps_shards_out(rolling, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_WAIT", 0)
    job = rolling(tmp_path / "out.parquet")
    with claim(job.chunks, job.plan, "chunk-*"), pytest.raises(InUseError, match="another run is using it"):
        job.run_shard(Shard(1, 2))


def test_a_lock_of_a_killed_shard_holds_nothing(rolling, tmp_path):
    job = rolling(tmp_path / "out.parquet")
    assert job.run_shard(Shard(1, 2)) is None
    (job.chunks / ".shard-1-of-2.lock").touch()
    assert job.run() and names(tmp_path) == ["out.parquet"]


def test_the_commands_of_two_shards_and_of_two_processes(checkpoint, tmp_path, capsys, monkeypatch):
    prompts = str(write_prompts(tmp_path))
    command = ["rollout", "--model", str(checkpoint), "--prompts", prompts, "--device", "cpu"]
    command += ["--max-new-tokens", "4", "--chunk-size", "2"]
    outputs = [tmp_path / name for name in ("whole.parquet", "shards.parquet")]
    assert main([*command, "--output", str(outputs[0])]) == 0
    line = [*command, "--output", str(outputs[1])]
    assert main([*line, "--shard", "1/2"]) == 0
    told = capsys.readouterr().out
    assert f"shard 1/2: 2 of 3 chunks are in {outputs[1]}.chunks; the last shard makes {outputs[1]}" in told
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "RANK=None: not set, but WORLD_SIZE=2 is" in run_failing(line, capsys)
    monkeypatch.setenv("RANK", "1")
    assert "shard='1/2': given to 2 processes of torchrun" in run_failing([*line, "--shard", "1/2"], capsys)
    assert main(line) == 0
    assert f"6 trajectories in {outputs[1]}" in capsys.readouterr().out
    configs = [yaml.safe_load(output.with_name(f"{output.name}.yaml").read_text()) for output in outputs]
    for output, config in zip(outputs, configs, strict=True):
        assert output.read_bytes() == outputs[0].read_bytes()
        assert config | {"output": ""} == configs[0] | {"output": ""} and config["shard"] is None


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "a/b", "1/2/3", "1.0/2", " 1/2"])
def test_what_is_no_shard_is_refused_by_name(tmp_path, capsys, text):
    command = ["rollout", "--model", "mini", "--task", "chain", "--output", str(tmp_path / "o"), "--shard"]
    said = run_failing([*command[:-1], f"--shard={text}"], capsys)
    assert f"shard={text!r}: no" in said and "Fix: write I/N" in said
    assert not any(tmp_path.iterdir())

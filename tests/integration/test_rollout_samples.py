"""``t3d rollout --num-samples``: several samples of a prompt, and what a filter keeps of them."""

import dataclasses
import json

import pytest
import yaml
from command_helpers import run_failing

from t3d.cli.main import main
from t3d.decoding import rollout
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout_filter import SampleGrader
from t3d.decoding.sample_choice import SampleChoice
from t3d.errors import InputError
from t3d.evaluation.evaluate import evaluation_requests
from t3d.models.loading import load_model
from t3d.problems.problem import Problem
from t3d.tasks.prompt_file import PromptFileTask
from t3d.tasks.task import PosedTask
from t3d.trajectory import read_plan, read_trajectories
from t3d.work.shards import Shard

PARAMS = DecodeParams(max_new_tokens=12, temperature=1.0)
PROBLEMS = [
    Problem(id=str(index), question=f"how many apples {index}", answer=str(index)) for index in range(6)
]
LUCKLESS = ("2", "3", "5")
"""Prompts without a right sample; the first two are a chunk."""


def grade(pairs):
    """Even lengths are right, and nothing of the luckless."""
    return [problem.id not in LUCKLESS and len(text) % 2 == 0 for problem, text in pairs]


def choose(rollout_filter, num_samples=4, verdicts=grade):
    grader = SampleGrader(grade=verdicts, settings={"name": "even"})
    return SampleChoice(num_samples=num_samples, rollout_filter=rollout_filter, grader=grader)


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def four(loaded):
    """All four samples of each prompt."""
    return rollout.roll_out(loaded, PROBLEMS, PARAMS, choice=SampleChoice(num_samples=4))


def test_a_sample_does_not_depend_on_how_many_there_are_nor_on_what_is_decoded_beside(loaded, four):
    ids = [f"{problem.id}#{number}" for problem in PROBLEMS for number in range(4)]
    assert [one.id for one in four] == ids
    assert len({one.response_ids for one in four}) > 12, "samples differ"
    two = rollout.roll_out(loaded, PROBLEMS[1:], PARAMS, batch_size=3, choice=SampleChoice(num_samples=2))
    by_id = {one.id: one for one in four}
    assert two == [by_id[one.id] for one in two] and len(two) == 10


def test_samples_are_those_that_an_evaluation_draws(loaded, four, tmp_path):
    """Under the same seed: the same ids key the same noise."""
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("{}")
    posed = PosedTask(task=PromptFileTask(prompts, grader="exact"), problems=PROBLEMS)
    asked = [request for _, request in evaluation_requests(loaded, posed, 2)]
    drawn = {one.id: one.response_ids for one in LLM(loaded).decode(asked, PARAMS)}
    assert drawn == {one.id: one.response_ids for one in four if one.id in drawn} and len(drawn) == 12


@pytest.mark.parametrize("rollout_filter", ["likelihood", "fewest_steps", "correct", "correct_fewest_steps"])
def test_a_filter_drops_samples_and_changes_none(loaded, four, rollout_filter):
    kept = rollout.roll_out(loaded, PROBLEMS, PARAMS, choice=choose(rollout_filter))
    assert [one for one in four if one.id in {kept_one.id for kept_one in kept}] == kept
    prompts = [one.id.partition("#")[0] for one in kept]
    if rollout_filter == "correct":
        assert len(prompts) > len(set(prompts)), "all right ones"
    else:
        assert len(prompts) == len(set(prompts)), "one each"
    lucky = [problem.id for problem in PROBLEMS if problem.id not in LUCKLESS]
    assert sorted(set(prompts)) == (lucky if "correct" in rollout_filter else list("012345"))
    if rollout_filter == "fewest_steps":
        steps = {problem.id: [] for problem in PROBLEMS}
        for one in four:
            steps[one.id.partition("#")[0]].append(one.num_denoising_steps)
        assert [one.num_denoising_steps for one in kept] == [min(found) for found in steps.values()]


@pytest.mark.parametrize(("rollout_filter", "killed_in"), [("likelihood", 2), ("correct", 3)])
def test_a_killed_and_resumed_rollout_keeps_the_same_samples(
    loaded, tmp_path, monkeypatch, rollout_filter, killed_in
):
    """Also where a finished chunk has no sample at all: the second, if only right ones are kept."""
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    how = {"chunk_size": 2, "choice": choose(rollout_filter)}
    rollout.roll_out_to_file(loaded, PROBLEMS, PARAMS, whole, **how)
    real, calls = rollout.roll_out_answered, []

    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) == killed_in:
            raise SystemExit("killed")
        return real(*args, **kwargs)

    monkeypatch.setattr(rollout, "roll_out_answered", dies)
    with pytest.raises(SystemExit):
        rollout.roll_out_to_file(loaded, PROBLEMS, PARAMS, cut, **how)
    again = rollout.roll_out_to_file(loaded, PROBLEMS, PARAMS, cut, **how)
    assert len(calls) == 4, "three chunks and the one that was cut"
    assert cut.read_bytes() == whole.read_bytes() and again == read_trajectories(whole)


@pytest.mark.parametrize("rollout_filter", ["none", "correct"])
def test_shards_of_several_samples_make_and_merge_to_the_file_of_one_run(loaded, tmp_path, rollout_filter):
    """Of which a prompt may have none, and a chunk, too."""
    how = {"loaded": loaded, "problems": PROBLEMS, "params": PARAMS, "chunk_size": 2}
    how["choice"] = choose(rollout_filter)

    def rolling(name):
        return rollout.FileRollout(output=tmp_path / name, **how)

    whole = rolling("whole.parquet").run()
    assert {one.id.partition("#")[0] for one in whole} >= {"0", "1"}
    for number in (2, 1):
        rolling("shared.parquet").run_shard(Shard(number, 2))
        rolling(f"own-{number}.parquet").run_shard(Shard(number, 2))
    assert (tmp_path / "shared.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    parts = [str(tmp_path / f"own-{number}.parquet") for number in (2, 1)]
    main(["data", "merge", str(tmp_path / "merged.parquet"), *parts])
    assert (tmp_path / "merged.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_the_plan_of_one_sample_a_prompt_is_that_of_earlier_versions(loaded, tmp_path):
    path = tmp_path / "one.parquet"
    rollout.roll_out_to_file(loaded, PROBLEMS, PARAMS, path)
    names = ["prompts", "decode", "model", "batch_size", "chunk_size", "versions"]
    plan = read_plan(path)
    assert plan is not None and list(plan) == names
    assert [one.id for one in read_trajectories(path)] == list("012345")


def test_samples_of_another_choice_or_other_answers_are_not_taken_for_the_same(loaded, tmp_path):
    path = tmp_path / "kept.parquet"
    rollout.roll_out_to_file(loaded, PROBLEMS, PARAMS, path, choice=choose("correct"))
    corrected = [*PROBLEMS[:5], dataclasses.replace(PROBLEMS[5], answer="7")]
    other = SampleGrader(grade=grade, settings={"name": "odd"})
    for problems, choice, told in (
        (PROBLEMS, choose("correct", 5), "samples.count was 4, now 5"),
        (PROBLEMS, choose("none"), "samples.filter was correct, now none"),
        (
            PROBLEMS,
            dataclasses.replace(choose("correct"), grader=other),
            "samples.grader.name was even, now odd",
        ),
        (corrected, choose("correct"), "samples.answers was"),
    ):
        with pytest.raises(InputError, match=told):
            rollout.roll_out_to_file(loaded, problems, PARAMS, path, choice=choice)


def test_an_unknown_filter_is_refused():
    with pytest.raises(InputError, match="rollout_filter='best': not known"):
        SampleChoice(num_samples=2, rollout_filter="best")  # type: ignore[arg-type]


def test_no_right_sample_at_all_is_an_error_and_writes_nothing(loaded, tmp_path):
    path = tmp_path / "none.parquet"
    choice = choose("correct", verdicts=lambda pairs: [False] * len(pairs))
    with pytest.raises(
        InputError, match=r"rollout_filter='correct': no sample is right\. Fix: raise num_samples"
    ):
        rollout.roll_out_to_file(loaded, PROBLEMS[:2], PARAMS, path, choice=choice)
    assert not path.exists()


def mini(output, *flags):
    command = ["rollout", "--model", "mini", "--task", "chain", "--limit", "3", "--max-new-tokens", "56"]
    return [*command, "--device", "cpu", "--temperature", "2", "--output", str(output), *flags]


def test_the_command_keeps_right_samples_and_says_what_was_left_out(tmp_path, capsys):
    """At this temperature the teacher is right now and then."""
    every, right = tmp_path / "every.parquet", tmp_path / "right.parquet"
    assert main(mini(every, "--num-samples", "3")) == 0
    printed = capsys.readouterr().out
    assert "9 of 9 samples kept (rollout_filter=none)" in printed and "of 9 answers are right" in printed
    assert main(mini(right, "--num-samples", "3", "--rollout-filter", "correct")) == 0
    printed = capsys.readouterr().out
    kept = read_trajectories(right)
    assert f"{len(kept)} of 9 samples kept (rollout_filter=correct)" in printed and 0 < len(kept) < 9
    assert "answers are right" not in printed and " kept tokens/s" in printed
    missing = 3 - len({one.id.partition("#")[0] for one in kept})
    assert ("without a right sample" in printed) == (missing > 0)
    assert kept == [one for one in read_trajectories(every) if one.id in {other.id for other in kept}]
    written = yaml.safe_load((tmp_path / "right.parquet.yaml").read_text())
    assert written["num_samples"] == 3 and written["rollout_filter"] == "correct"
    assert main(["rollout", "--config", f"{right}.yaml"]) == 0
    assert f"{len(kept)} of 9 samples kept" in capsys.readouterr().out, "the same after all is finished"


def test_prompts_without_a_right_sample_are_counted_and_named(checkpoint, tmp_path, capsys):
    """Of a tiny random model, which boxes nothing."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"id": "a", "question": "how many", "answer": "1"}))
    command = ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--device", "cpu"]
    command += ["--output", str(tmp_path / "out.parquet"), "--max-new-tokens", "8"]
    text = run_failing([*command, "--rollout-filter", "correct"], capsys)
    assert "rollout_filter='correct': no sample is right" in text
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            "--num-samples 2 --temperature 0",
            "num_samples=2: all samples of a prompt are the same at temperature=0",
        ),
        ("--num-samples 2 --temperature 0", "Fix: raise temperature, or draw one sample of each prompt"),
        ("--rollout-filter fewest_steps", "rollout_filter='fewest_steps': each prompt has one sample"),
        ("--rollout-filter correct --num-samples 2", "answer=None: problem 'b' has no gold answer"),
        ("--num-samples 0", "num_samples=0: not positive"),
        ("--rollout-filter teacher --num-samples 2", "Fix: give --scores-from CHECKPOINT"),
        ("--scores-from mini", "scores_from='mini': rollout_filter='none' asks no model"),
        ("--rollout-filter teacher --scores-from minni", "scores_from='minni'"),
    ],
)
def test_samples_without_use_are_refused_before_the_model_is_loaded(
    checkpoint, tmp_path, capsys, monkeypatch, flags, told
):
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"id": "a", "question": "one", "answer": "1"}, {"id": "b", "question": "two"}]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr("t3d.models.loading.load_model", lambda *args, **how: pytest.fail("loaded"))
    command = ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--device", "cpu"]
    text = run_failing([*command, "--output", str(tmp_path / "out.parquet"), *flags.split()], capsys)
    assert told in text
    assert not (tmp_path / "out.parquet").exists()

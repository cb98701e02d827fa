"""Flags of ``t3d train`` that would fail later, or be ignored, are refused before anything is written."""

import dataclasses
import json

import pytest
from command_helpers import run_failing

from t3d.cli.main import main
from t3d.grading import math as math_grading
from t3d.interchange.solutions import SOURCES
from t3d.models.loading import load_model
from t3d.trajectory import write_trajectories


@pytest.fixture
def refused(checkpoint, trajectories, tmp_path, capsys):
    """Run the command with further flags; its error, after a look that it wrote nothing."""
    path, output = tmp_path / "rollout.parquet", tmp_path / "run"
    write_trajectories(path, trajectories)

    def run(*flags: str) -> str:
        command = ["train", "--model", str(checkpoint), "--trajectories", str(path), "--device", "cpu"]
        text = run_failing([*command, "--output", str(output), "--batch-size", "4", *flags], capsys)
        assert text.startswith("error: ")
        assert not output.exists()
        return text

    return run


EVALUATED = ["--eval-every", "1", "--eval-tasks"]
OWN_TARGETS = ["soft_target_weight=0.5", "soft_target_source=student"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        # numbers
        (["--learning-rate", "-1"], "learning_rate=-1.0: not a number above 0"),
        (["--learning-rate", "nan"], "learning_rate=nan: not a number above 0"),
        (["--learning-rate", "0"], "learning_rate=0.0: not a number above 0"),
        (["--warmup-steps", "-1"], "warmup_steps=-1: not a number of 0 or more"),
        (["--seed", "-5"], "seed=-5: not a whole number from 0 to 4294967295"),
        (["--seed", "99999999999"], "seed=99999999999: not a whole number from 0"),
        (["--ddo-beta", "nan"], "ddo_beta=nan: not a number"),
        (["--path-weight", "nan"], "path_weight=nan: not a number"),
        (["--override", "adam_beta2=5"], "adam_beta2=5"),
        (["--override", "weight_decay=abc"], "weight_decay"),
        (["--override", "optim=nope"], "optim='nope': refused by transformers"),
        (["--override", "lr_scheduler_type=nope"], "lr_scheduler_type='nope': refused by transformers"),
        # a run in which the rate stays low, or nothing can be learnt
        (["--num-optimizer-steps", "1"], "warmup_steps=20: the learning rate, 0 at first, never reaches"),
        (["--max-length", "5"], "max_length=5: nothing to train on"),
        # evaluation
        (
            [*EVALUATED, "chain", "--eval-max-new-tokens", "100000"],
            "eval_max_new_tokens=100000: request 'chain",
        ),
        ([*EVALUATED, "chain", "--eval-max-new-tokens", "0"], "eval_max_new_tokens=0: not positive"),
        ([*EVALUATED, "nope"], "eval_tasks='nope': not known. Fix: use chain, make, code, or a JSONL file"),
        ([*EVALUATED, "no.jsonl"], "eval_tasks='no.jsonl': no such file"),
        ([*EVALUATED, "chain", "chain"], "eval_tasks='chain': given twice"),
        (["--eval-tasks", "chain"], "eval_tasks=('chain',): never evaluated without eval_every"),
        (
            ["--eval-every", "201", "--eval-tasks", "chain"],
            "eval_every=201: more than num_optimizer_steps=200",
        ),
        (["--eval-every", "1"], "eval_every=1: there is nothing to evaluate on without eval_tasks"),
        (["--eval-limit", "5"], "eval_limit=5: nothing is evaluated"),
        (["--eval-grader", "exact"], "eval_grader='exact': nothing is evaluated"),
        (
            [*EVALUATED, "chain", "--eval-grader", "exact"],
            "eval_grader='exact': tasks of the mini suite have graders of their own",
        ),
        (
            ["--reference-choice", "best"],
            "name held-out tasks, for example --eval-tasks chain make; --eval-every",
        ),
        # soft targets
        (
            ["--soft-targets-from", "mini"],
            "soft_targets_from='mini': ignored: soft_target_weight=0",
        ),
        (
            ["--preset", "redi", "--override", "soft_target_weight=0.5"],
            "soft_target_weight=0.5: no model gives such targets. Fix: give --soft-targets-from CHECKPOINT",
        ),
        (
            ["--preset", "sft", "--soft-targets-from", "mini"],
            "soft_targets_from='mini': ignored: soft_target_weight=0",
        ),
        (
            ["--preset", "sft", "--override", "soft_target_weight=0.5"],
            "soft_target_weight=0.5: no model gives such targets. Fix: give --soft-targets-from CHECKPOINT",
        ),
        (
            ["--preset", "sft", "--soft-targets-from", "mini", "--override", *OWN_TARGETS],
            "soft_targets_from='mini': ignored: soft_target_source='student' asks the student itself",
        ),
        # overrides
        (["--override", "max_steps=7"], "Fix: use --num-optimizer-steps."),
        (["--override", "output_dir=elsewhere"], "Fix: use --output."),
        (["--override", "resume_from_checkpoint=elsewhere"], "--output sets resume_from_checkpoint"),
        (["--override", "learning_rate=0.1"], "--learning-rate sets learning_rate. Fix: use --learning-rate"),
        (["--override", "log_ratio"], "override='log_ratio': has no value. Fix: write log_ratio=VALUE"),
    ],
)
def test_flags_are_refused_by_name_before_training(refused, flags, message):
    assert message in refused(*flags)


def test_a_held_out_prompt_that_does_not_fit_is_found_before_training(refused, tmp_path):
    rows = [{"question": "how many apples", "answer": "1"}, {"question": "how many " * 500, "answer": "1"}]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    text = refused(*EVALUATED, str(path), "--eval-max-new-tokens", "8")
    assert "eval_max_new_tokens=8: request 'long/2' has" in text
    assert "Fix: shorten the prompt or lower eval_max_new_tokens" in text


def test_a_held_out_problem_without_an_answer_is_found_before_training(refused, tmp_path):
    (tmp_path / "open.jsonl").write_text('{"question": "how many apples"}')
    assert "has no gold answer" in refused(*EVALUATED, str(tmp_path / "open.jsonl"))


def test_held_out_prompts_need_math_verify_or_another_grader(refused, tmp_path, monkeypatch):
    real = math_grading.version

    def without_math_verify(package):
        if package == "math-verify":
            raise math_grading.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(math_grading, "version", without_math_verify)
    (tmp_path / "own.jsonl").write_text('{"question": "how many apples", "answer": "1"}')
    flags = [*EVALUATED, str(tmp_path / "own.jsonl"), "--eval-max-new-tokens"]
    text = refused(*flags, "8")
    assert "eval_grader='math_verify': needs math-verify" in text
    assert "t3d[eval]" in text and "--eval_grader exact" in text
    text = refused(*flags, "100000", "--eval_grader", "exact")
    assert "eval_max_new_tokens=100000" in text, "the grader is there"


def test_presets_for_solutions_and_for_rollouts_refuse_each_other_s_records(refused, trajectories, tmp_path):
    assert "preset='sft': fine-tunes on solutions, but trajectory" in refused("--preset", "sft")
    solutions = [dataclasses.replace(record, decode_params={"source": SOURCES[0]}) for record in trajectories]
    write_trajectories(tmp_path / "solutions.parquet", solutions)
    text = refused("--preset", "redi", "--trajectories", str(tmp_path / "solutions.parquet"))
    assert "preset='redi': learns from rollouts, but trajectory" in text


def test_one_step_without_warm_up_moves_the_student(checkpoint, trajectories, tmp_path):
    write_trajectories(tmp_path / "rollout.parquet", trajectories)
    command = ["train", "--model", str(checkpoint), "--trajectories", str(tmp_path / "rollout.parquet")]
    short = ["--num-optimizer-steps", "1", "--warmup-steps", "0", "--batch-size", "4", "--device", "cpu"]
    assert main([*command, *short, "--output", str(tmp_path / "run")]) == 0
    teacher, student = (load_model(path, device="cpu") for path in (checkpoint, tmp_path / "run" / "student"))
    assert teacher.weights_hash != student.weights_hash
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Gradient norm" in report and "optimizer steps" in report and str(checkpoint) in report

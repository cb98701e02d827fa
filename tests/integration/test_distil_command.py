"""``t3d distil``: rounds of rollout and training on any model, kept per round."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from adopt_helpers import plain_tokenizer, save_source
from command_helpers import run_failing

from t3d.cli.main import main
from t3d.cli.stopping import kept_text
from t3d.decoding.rollout_filter import TeacherScore
from t3d.decoding.teacher_scorer import TeacherScorer
from t3d.models.loading import load_model, load_own_settings
from t3d.reproduce import pipeline
from t3d.trajectory import read_plan, read_trajectories

SIZES = ["--num-prompts", "2", "--max-new-tokens", "8", "--num-optimizer-steps", "2", "--warmup-steps", "0"]
SIZES += ["--train-batch-size", "2", "--device", "cpu"]


def command(checkpoint, prompts, output, *flags):
    line = ["distil", "--model", str(checkpoint), "--prompts", str(prompts), "--output", str(output)]
    return [*line, *SIZES, *flags]


def records(output, number):
    return read_trajectories(Path(output) / f"round-{number}" / "trajectories.parquet")


def weights(output, number):
    return (Path(output) / f"round-{number}" / "student" / "model.safetensors").read_bytes()


OF_TWO = ["--num-rounds", "2", "--rollout-settings", "B4-T1", "B4-T2"]
SAMPLED = ["--num-samples", "2", "--rollout-filter", "likelihood", "--temperature", "1"]
SAMPLED += ["--num-old-rounds", "1", "--preset", "naive_td"]


def test_rounds_that_are_cut_or_added_end_like_those_of_one_piece(
    checkpoint, prompts, tmp_path, capsys, monkeypatch
):
    """Two rounds at once; and one, then a second, which is killed in its training."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(command(checkpoint, prompts, whole, *SAMPLED, *OF_TWO)) == 0
    printed = capsys.readouterr()
    assert f"student in {whole}/round-2/student" in printed.out
    assert printed.out.count("  2 of 4 samples kept (rollout_filter=likelihood)") == 2
    assert printed.err.splitlines().count("distil round 2") == 1
    first, second = records(whole, 1), records(whole, 2)
    assert [first[0].teacher, second[0].teacher] == [str(checkpoint), f"{whole}/round-1/student"]
    assert [one[0].decode_params["steps_per_block"] for one in (first, second)] == [4, 2]
    assert [one.id[0] for one in first + second] == list("0123"), "prompts of their own"

    real, calls = pipeline.distil, []

    def dies_in_round_2(*args, **kwargs):
        calls.append(len(args[1]))
        if len(calls) == 2:
            raise SystemExit("killed")
        return real(*args, **kwargs)

    monkeypatch.setattr(pipeline, "distil", dies_in_round_2)
    assert (
        main(command(checkpoint, prompts, cut, *SAMPLED, "--num-rounds", "1", "--rollout-settings", "B4-T1"))
        == 0
    )
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(command(checkpoint, prompts, cut, *SAMPLED, *OF_TWO))
    told = "  2 of 4 samples kept (rollout_filter=likelihood)"
    assert capsys.readouterr().out.splitlines()[-1] == told, "before the training"
    assert main(command(checkpoint, prompts, cut, *SAMPLED, *OF_TWO)) == 0
    assert "rollout round 2: made before" in capsys.readouterr().err
    assert calls == [2, 4, 4], "the second training also reads the records of the first round"
    for number in (1, 2):
        assert weights(cut, number) == weights(whole, number)
        for one, other in zip(records(cut, number), records(whole, number), strict=True):
            assert (one.id, one.response_ids, one.step_map) == (other.id, other.response_ids, other.step_map)
    assert main(["distil", "--config", str(cut / "config.yaml")]) == 0
    assert len(calls) == 3, "all is there"
    other = command(checkpoint, prompts, tmp_path / "plain", *SAMPLED, "--num-rounds", "1")
    assert main([*other, "--rollout-filter", "none"]) == 0
    line = ["distil", "--config", str(tmp_path / "plain" / "config.yaml"), *OF_TWO]
    assert main([*line, "--output", str(tmp_path / "more")]) == 0
    assert records(tmp_path / "more", 2)[0].decode_params["steps_per_block"] == 2
    changed = run_failing(
        command(checkpoint, prompts, cut, *SAMPLED, *OF_TWO, "--learning-rate", "1e-3"), capsys
    )
    assert "learning_rate was not given, now 0.001" in changed


def test_filter_teacher_asks_the_first_model_in_every_round(
    checkpoint, prompts, tmp_path, capsys, monkeypatch
):
    asked = []

    def scored(scorer, answers):
        """A random model gives no token a tenth."""
        asked.append((scorer.teacher.source, len(answers)))
        return [TeacherScore(logprob=-1.0, least_logprob=-1.0) for _ in answers]

    monkeypatch.setattr(TeacherScorer, "scores", scored)
    output = tmp_path / "out"
    flags = ["--num-samples", "2", "--rollout-filter", "teacher", "--temperature", "1", "--num-rounds", "2"]
    assert main(command(checkpoint, prompts, output, *flags)) == 0
    assert asked == [(str(checkpoint), 4)] * 2
    other = shutil.copytree(checkpoint, tmp_path / "other")
    assert main(command(checkpoint, prompts, tmp_path / "told", *flags, "--scores-from", str(other))) == 0
    assert asked[2:] == [(str(other), 4)] * 2
    text = run_failing(command(checkpoint, prompts, tmp_path / "no", "--scores-from", str(other)), capsys)
    assert "rollout_filter='none' asks no model" in text
    weights_hash = load_model(checkpoint, device="cpu").weights_hash
    for number in (1, 2):
        plan = read_plan(output / f"round-{number}" / "trajectories.parquet")
        assert plan is not None and plan["samples"]["scorer"]["teacher"]["weights"] == weights_hash
        assert [one.id for one in records(output, number)] == [f"{2 * number - 2}#0", f"{2 * number - 1}#0"]


def test_a_preset_made_for_rounds_says_how_many_and_which_rollouts_are_kept(
    checkpoint, prompts, tmp_path, capsys
):
    """The tiny model is never right."""
    output, flags = tmp_path / "run", ["--preset", "t3d-plus"]
    assert main(command(checkpoint, prompts, output, *flags)) == 0
    assert sorted(path.name for path in output.glob("round-*")) == ["round-1", "round-2", "round-3"]
    said = yaml.safe_load((output / "config.yaml").read_text())
    assert (said["num_rounds"], said["rollout_filter"]) == (3, "none")
    flags = ["--preset", "t3d-plus-verified", "--rollout-filter", "none", "--num-rounds", "1"]
    assert main(command(checkpoint, prompts, tmp_path / "told", *flags)) == 0
    text = run_failing(command(checkpoint, prompts, tmp_path / "right", *flags[:2]), capsys)
    assert "rollout_filter='correct': no sample is right" in text


def test_a_round_with_a_temperature_chooses_among_samples_and_a_greedy_one_takes_its_one(
    checkpoint, prompts, tmp_path
):
    flags = ["--rollout-settings", "B4-T2-temperature-1", "B4-T1", "--temperature", "0"]
    flags += ["--num-samples", "3", "--rollout-filter", "likelihood"]
    flags += ["--num-old-rounds", "1"]
    assert main(command(checkpoint, prompts, tmp_path / "run", *flags, "--num-rounds", "2")) == 0
    drawn, greedy = (records(tmp_path / "run", number) for number in (1, 2))
    assert all("#" in one.id for one in drawn) and not any("#" in one.id for one in greedy)
    assert len(drawn) == len(greedy)
    for number in (1, 2):
        student = tmp_path / "run" / f"round-{number}" / "student"
        assert load_own_settings(student)["temperature"] == 0, "the command's, of all rounds"


def test_soft_targets_are_the_first_model_s_in_every_round(checkpoint, prompts, tmp_path):
    """On the states of rollouts in fewer and fewer steps."""
    fields = ["state_source=on_policy", "mask_ratio_power=0", "soft_target_weight=1"]
    flags = ["--preset", "naive_td", "--override", *fields, *OF_TWO]
    assert main(command(checkpoint, prompts, tmp_path / "run", *flags)) == 0
    plans = [
        json.loads((tmp_path / "run" / f"round-{number}" / "student" / "training.json").read_text())["plan"]
        for number in (1, 2)
    ]
    assert plans[0]["soft_target_model"] == plans[1]["soft_target_model"] == plans[0]["model"]
    assert plans[1]["model"] != plans[0]["model"]
    assert weights(tmp_path / "run", 1) != weights(tmp_path / "run", 2)


def test_for_a_student_s_own_soft_targets_no_teacher_is_loaded(checkpoint, prompts, tmp_path, monkeypatch):
    """The first model is loaded once for its rollouts, and once to be trained."""
    loads, real = [], pipeline.load_model
    monkeypatch.setattr(pipeline, "load_model", lambda *args, **how: loads.append(args) or real(*args, **how))
    fields = ["soft_target_weight=0.5", "soft_target_source=student", "soft_target_context=later_state"]
    flags = ["--preset", "naive_td", "--num-rounds", "1", "--override", *fields, "logging_steps=1"]
    assert main(command(checkpoint, prompts, tmp_path / "run", *flags)) == 0
    assert loads == [(str(checkpoint),)] * 2
    folder = tmp_path / "run" / "round-1" / "student"
    plan = json.loads((folder / "training.json").read_text())["plan"]
    assert plan["soft_target_source"] == "student" and "soft_target_model" not in plan
    log = [json.loads(line) for line in folder.with_name("student.log.jsonl").read_text().splitlines()]
    assert log[0]["loss/soft_targets"] > 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--num-rounds 4", "num_rounds=4: 4 rounds need 8 prompts, there are 6"),
        ("--preset t3d-plus --rollout-settings B4-T1", "num_rounds=3. Fix: name 3 settings"),
        ("--num-rounds 2 --rollout-settings B4-T1", "num_rounds=2. Fix: name 2 settings"),
        ("--rollout-settings B4-T1 B4-T8", "rollout_settings='B4-T8': tokens_per_step=8 does not divide"),
        ("--rollout-settings B4-T1 B4-T2 --block-size 8", "block_size=8: rollout_settings says it of every"),
        ("--rollout-settings B4-T1 B4-T2 --steps-per-block 2", "steps_per_block=2: rollout_settings says"),
        ("--rollout-settings B4-T1 B4-T2 --tokens-per-step 2", "tokens_per_step=2: rollout_settings says"),
        ("--rollout-settings B4-T1 4", "rollout_settings='4': no block size and tokens per step"),
        ("--limit 4", "limit=4: num_prompts is given too"),
        ("--preset sft", "preset='sft': learns solutions, so it has no rounds"),
        ("--train-batch-size 3 --gradient-accumulation-steps 2", "train_batch_size=3: not a multiple of"),
        ("--num-samples 2 --temperature 0", "all samples of a prompt are the same at temperature=0"),
        ("--rollout-settings B4-T1 B4-T2 --num-samples 2 --temperature 0", "are the same at temperature=0"),
        (
            "--rollout-settings B4-T1-temperature-0 B4-T2-temperature-0 --num-samples 2 --temperature 1",
            "num_samples=2: all samples of a prompt are the same at temperature=0",
        ),
        ("--student-block-size 6", "student_block_size=6: does not nest with the rollouts' blocks of 4"),
        ("--num-rounds 0", "num_rounds=0: not positive"),
        (
            "--preset naive_td --rollout-settings B4-T2 B8-T8 --override soft_target_weight=0.5 "
            "soft_target_context=later_state soft_target_source=student",
            "soft_target_context='later_state': a rollout commits its blocks in one step",
        ),
        ("--num-old-rounds -1", "num_old_rounds=-1: not a number of 0 or more"),
        ("--override ddo_beta=1 --preset naive_td", "ddo_beta=1.0: ignored"),
        ("--override ddo_bet=1", "override='ddo_bet=1': not a setting of T3DConfig. Fix: did you mean"),
        ("--override block_size=16", "override='block_size=16': --student-block-size sets block_size"),
        ("--override learning_rate=1", "override='learning_rate=1': --learning-rate sets learning_rate"),
    ],
)
def test_rounds_that_cannot_be_are_refused_before_the_model_is_loaded(
    checkpoint, prompts, tmp_path, capsys, monkeypatch, flags, told
):
    monkeypatch.setattr(pipeline, "load_model", lambda *args, **how: pytest.fail("loaded"))
    text = run_failing(command(checkpoint, prompts, tmp_path / "out", *flags.split()), capsys)
    assert told in text
    assert not (tmp_path / "out").exists()


def test_an_autoregressive_model_is_refused_before_it_rolls_out(prompts, tmp_path, capsys):
    save_source(tmp_path / "llama", "llama", plain_tokenizer())
    text = run_failing(command(tmp_path / "llama", prompts, tmp_path / "out"), capsys)
    assert "autoregressive, so it has no few-step student. Fix: adopt it with t3d convert first" in text
    assert not (tmp_path / "out").exists()


def test_a_cut_command_says_that_rounds_are_kept(tmp_path):
    command = SimpleNamespace(output=str(tmp_path))
    assert "nothing was finished yet" in kept_text("distil", command)
    (tmp_path / "round-1").mkdir()
    (tmp_path / "round-1" / "trajectories.parquet").touch()
    assert "kept: finished rounds in" in kept_text("distil", command)

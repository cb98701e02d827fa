"""A student decodes as it was trained wherever it is loaded: flag, config file, its own settings, default."""

import dataclasses
import json
import re
import shutil

import pytest
import torch
import yaml
from command_helpers import run_failing
from safetensors.torch import load_file, save_file
from training_helpers import config

from t3d import LLM
from t3d.cli.evaluate import Eval
from t3d.cli.generate import Generate
from t3d.cli.main import main
from t3d.cli.rollout import Rollout
from t3d.cli.serve import Serve
from t3d.decoding.params import DecodeParams
from t3d.decoding.precedence import OWN_FIELDS
from t3d.evaluation.lm_eval.plugin import T3dLM
from t3d.evaluation.lm_eval.settings import read_model_args
from t3d.models.loading import load_model, load_own_settings
from t3d.reproduce.pipeline import Pipeline
from t3d.reproduce.resolve import rollout_params
from t3d.reproduce.suites import MINI
from t3d.tasks.mini.suite import mini_task
from t3d.tasks.task import PosedTask
from t3d.training.run import distil
from t3d.trajectory import read_trajectories, write_trajectories
from t3d.work.kept import Product

SHORT = ["--max-new-tokens", "9", "--device", "cpu"]
OWN = ("block_size", "steps_per_block", "remasking", "confidence_threshold", "temperature")


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture(scope="module")
def base(checkpoint, tmp_path_factory):
    """The tiny checkpoint with positions for the default length; do not change it."""
    folder = tmp_path_factory.mktemp("base") / "tiny-sdar"
    shutil.copytree(checkpoint, folder)
    edit(folder / "config.json", max_position_embeddings=512)
    return folder


@pytest.fixture(scope="module")
def student(base, trajectories, tmp_path_factory):
    """Trained at block 8 by ``distil``, on rollouts at temperature 1; do not change it."""
    folder = tmp_path_factory.mktemp("run")
    loaded = load_model(base, device="cpu")
    return distil(loaded, trajectories, config(folder / "checkpoints", max_steps=1), folder / "student")


@pytest.fixture
def train(checkpoint, trajectories, tmp_path):
    """Run ``t3d train`` for a step; the student's folder."""
    write_trajectories(tmp_path / "rollout.parquet", trajectories)

    def run(*flags, model=checkpoint, output="run"):
        command = ["train", "--model", str(model), "--trajectories", str(tmp_path / "rollout.parquet")]
        short = ["--num-optimizer-steps", "1", "--warmup-steps", "0", "--batch-size", "4", "--device", "cpu"]
        assert main([*command, *short, "--output", str(tmp_path / output), *flags]) == 0
        return tmp_path / output / "student"

    return run


def decoded(llm, params=None):
    (completion,) = llm.generate("how many apples", params, progress=False)
    return [completion.trajectory.decode_params[name] for name in OWN]


def test_a_student_decodes_in_memory_and_from_its_folder_as_it_was_trained(
    base, trajectories, student, tmp_path
):
    expected = [8, 2, "low_confidence_static", 0.9, 1.0]
    loaded = load_model(base, device="cpu")
    assert decoded(LLM(loaded)) == [4, 4, "low_confidence_static", 0.9, 0.1]
    distil(loaded, trajectories, config(tmp_path / "run", max_steps=1), tmp_path / "student")
    assert decoded(LLM(loaded)) == expected
    llm = LLM(student, device="cpu")
    assert decoded(llm) == expected
    assert decoded(llm, params=DecodeParams(temperature=0.0)) == [4, 4, "low_confidence_static", 0.9, 0.0]
    for update in llm.stream("how many apples"):
        assert len(update.token_ids) <= 8
    assert update.completion.trajectory.block_size == 8


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], (8, 2, 1.0)),
        (["--temperature", "0"], (8, 2, 0.0)),
        (["--block-size", "4"], (4, 4, 1.0)),
        (["--steps-per-block", "8"], (8, 8, 1.0)),
    ],
)
@pytest.mark.parametrize("by", ["flag", "file"])
def test_rollouts_of_a_student_are_as_it_was_trained_unless_flag_or_file_say_otherwise(
    student, prompts, tmp_path, flags, expected, by, capsys
):
    command = ["rollout", "--model", str(student), "--prompts", str(prompts), "--limit", "1", *SHORT]
    if by == "file":
        line = f"{flags[0][2:].replace('-', '_')}: {flags[1]}" if flags else ""
        (tmp_path / "some.yaml").write_text(line)
        flags = ["--config", str(tmp_path / "some.yaml")]
    output = tmp_path / "r.parquet"
    assert main([*command, *flags, "--output", str(output)]) == 0
    (record,) = read_trajectories(output)
    found = (record.block_size, record.decode_params["steps_per_block"], record.decode_params["temperature"])
    assert found == expected
    written = yaml.safe_load(output.with_name("r.parquet.yaml").read_text())
    assert (written["block_size"], written["steps_per_block"], written["temperature"]) == expected
    assert "as the checkpoint says: " in capsys.readouterr().err


def test_tokens_per_step_say_the_steps(student, prompts, tmp_path, capsys):
    """Of the checkpoint's block size, or the one that is given; the same command, or its file, goes on."""
    command = ["rollout", "--model", str(student), "--prompts", str(prompts), "--limit", "1", *SHORT]
    for size, flags in ((8, []), (4, ["--block-size", "4"])):
        output = tmp_path / f"{size}.parquet"
        line = [*command, "--tokens-per-step", "2", *flags, "--output", str(output)]
        assert main(line) == main(line) == 0
        (record,) = read_trajectories(output)
        assert (record.block_size, record.decode_params["steps_per_block"]) == (size, size // 2)
        file = output.with_name(f"{size}.parquet.yaml")
        assert yaml.safe_load(file.read_text())["tokens_per_step"] == 2
        assert main(["rollout", "--config", str(file)]) == 0
    assert "steps_per_block" not in capsys.readouterr().err
    own = tmp_path / "own.parquet"
    assert main([*command, "--output", str(own)]) == 0
    for flags, steps in ((["--tokens-per-step", "4"], 2), (["--steps-per-block=8"], 8)):
        line = ["rollout", "--config", str(own.with_name("own.parquet.yaml")), *flags]
        assert main([*line, "--output", str(tmp_path / f"in{steps}.parquet")]) == 0
        (record,) = read_trajectories(tmp_path / f"in{steps}.parquet")
        assert record.decode_params["steps_per_block"] == steps
    line = ["rollout", "--config", str(tmp_path / "4.parquet.yaml"), "--steps-per-block", "1"]
    assert main([*line, "--output", str(tmp_path / "one.parquet")]) == 0
    other = [*command, "--output", str(tmp_path / "no.parquet"), "--tokens-per-step"]
    assert "tokens_per_step=3: does not divide block_size=8" in run_failing([*other, "3"], capsys)
    both = [*other, "2", "--steps-per-block", "4"]
    assert "tokens_per_step=2: steps_per_block says the same" in run_failing(both, capsys)


def test_a_flag_wins_over_the_file(student, prompts, tmp_path):
    (tmp_path / "some.yaml").write_text("block_size: 2\nsteps_per_block: 1\n")
    command = ["rollout", "--model", str(student), "--prompts", str(prompts), "--limit", "1", *SHORT]
    command += ["--config", str(tmp_path / "some.yaml"), "--output", str(tmp_path / "r.parquet")]
    assert main([*command, "--block-size", "4"]) == 0
    (record,) = read_trajectories(tmp_path / "r.parquet")
    assert (record.block_size, record.decode_params["steps_per_block"]) == (4, 1)


def test_the_block_size_of_a_base_is_that_of_its_config(base, prompts, tmp_path, capsys):
    """Published as SDAR-...-b16."""
    wide = tmp_path / "b16"
    shutil.copytree(base, wide)
    edit(wide / "config.json", block_size=16)
    assert decoded(LLM(wide, device="cpu"))[:2] == [16, 16]
    shared = ["--model", str(wide), "--prompts", str(prompts), "--limit", "1", *SHORT]
    assert main(["rollout", *shared, "--output", str(tmp_path / "r.parquet")]) == 0
    assert read_trajectories(tmp_path / "r.parquet")[0].block_size == 16
    assert main(["eval", *shared, "--output", str(tmp_path / "e")]) == 0
    assert evaluated(tmp_path / "e") == ["B16-T1"]
    capsys.readouterr()
    assert main(["generate", *shared, "--show-steps"]) == 0
    assert "block_size=16, steps_per_block=16" in capsys.readouterr().err


def evaluated(folder):
    return [entry["setting"] for entry in json.loads((folder / "results.json").read_text())["results"]]


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ([], ["B8-T4"]),
        (["--tokens-per-step", "1,2", "--dynamic", "0.9"], ["B8-T1", "B8-T2", "B8-dynamic"]),
        (["--block-size", "4"], ["B4-T1"]),
        (["--block-size", "8"], ["B8-T4"]),
        (["--block-size", "4,8"], ["B4-T1", "B8-T1"]),
        (
            ["--left-to-right", "--self-speculative", "--draft-groups", "all"],
            ["B8-left-to-right", "B8-self-speculative-all"],
        ),
    ],
)
def test_a_student_is_evaluated_as_it_was_trained_unless_flags_say_otherwise(
    student, prompts, tmp_path, flags, settings
):
    command = ["eval", "--model", str(student), "--prompts", str(prompts), "--limit", "1", *SHORT, *flags]
    assert main([*command, "--output", str(tmp_path / "e")]) == 0
    assert evaluated(tmp_path / "e") == settings
    plan = json.loads((tmp_path / "e" / "results.json").read_text())["plan"]
    written = yaml.safe_load((tmp_path / "e" / "config.yaml").read_text())
    assert written["temperature"] == 1.0
    assert (
        main(["eval", "--config", str(tmp_path / "e" / "config.yaml"), "--output", str(tmp_path / "f")]) == 0
    )
    assert json.loads((tmp_path / "f" / "results.json").read_text())["plan"] == plan


def test_a_student_made_for_dynamic_decoding_is_evaluated_so(train, prompts, tmp_path):
    student = train("--dynamic", "0.8")
    assert load_own_settings(student) == {
        "block_size": 8,
        "steps_per_block": 8,
        "remasking": "low_confidence_dynamic",
        "confidence_threshold": 0.8,
        "temperature": 1.0,
    }
    command = ["eval", "--model", str(student), "--prompts", str(prompts), "--limit", "1", *SHORT]
    assert main([*command, "--output", str(tmp_path / "e")]) == 0
    assert evaluated(tmp_path / "e") == ["B8-dynamic-0.8"]


def test_a_checkpoint_that_says_so_is_decoded_with_drafts(base, prompts, tmp_path, capsys):
    """By eval, generate and rollout; other flags leave its strategy out."""
    own = tmp_path / "own"
    shutil.copytree(base, own)
    says = {"block_size": 4, "remasking": "self_speculative", "draft_groups": "all"}
    edit(own / "generation_config.json", block_diffusion=says)
    command = ["--model", str(own), "--prompts", str(prompts), "--limit", "1", *SHORT]
    assert main(["eval", *command, "--output", str(tmp_path / "e")]) == 0
    assert evaluated(tmp_path / "e") == ["B4-self-speculative-all"]
    assert main(["eval", *command, "--tokens-per-step", "2", "--output", str(tmp_path / "f")]) == 0
    assert evaluated(tmp_path / "f") == ["B4-T2"]
    capsys.readouterr()
    assert main(["generate", *command, "--show-steps"]) == 0
    *_, counts, legend = capsys.readouterr().out.splitlines()
    tokens, forwards = (int(count) for count in re.findall(r"\d+", counts)[::2])
    marked = [int(count) for count in re.findall(r"\d+", legend)]
    assert legend.startswith("= accepted draft (") and len(marked) == 5
    assert marked[0] + sum(marked[2:]) == tokens and sum(marked[2:]) in (forwards - 1, forwards)
    assert main(["rollout", *command, "--output", str(tmp_path / "r.parquet")]) == 0
    (record,) = read_trajectories(tmp_path / "r.parquet")
    assert record.visible_length == len(record.response_ids)
    assert record.decode_params["remasking"] == "self_speculative"


def test_lm_eval_decodes_a_student_as_it_was_trained_unless_model_args_say_otherwise(student):
    def params(**arguments):
        decode = T3dLM(str(student), device="cpu", **arguments).config.decode
        return decode.block_size, decode.steps_per_block, decode.temperature

    assert params() == (8, 2, 1.0)
    assert params(tokens_per_step=2) == (8, 4, 1.0)
    assert params(block_size=4, temperature=0) == (4, 4, 0.0)
    loaded = load_model(student, device="cpu")
    assert T3dLM(loaded).config.decode.block_size == 8


def test_the_suites_and_the_demo_never_inherit(base, student, tmp_path):
    """The same weights, with and without settings of their own: the same responses under a suite's."""
    plain = tmp_path / "plain"
    shutil.copytree(student, plain)
    shutil.copy(base / "generation_config.json", plain)
    edit(plain / "config.json", block_size=4)
    assert load_own_settings(plain) == {"block_size": 4}
    task = mini_task("chain")
    posed = [PosedTask(task=task, problems=task.problems("test", 2, 0))]
    settings = {name: dataclasses.replace(params, max_new_tokens=8) for name, params in MINI.settings.items()}
    params = dataclasses.replace(rollout_params(MINI, 0), max_new_tokens=8)
    found = []
    for folder in (student, plain):
        pipeline = Pipeline(device="cpu", dtype="float32", batch_size=8)
        output = tmp_path / f"made-{folder.name}"
        output.mkdir()
        made = Product(path=output / "e", record=output / "e.json", plan={})
        pipeline.evaluate(made, folder, posed, settings, label="e")
        records = Product(path=output / "r.parquet", record=output / "r.json", plan={})
        pipeline.roll_out(records, folder, posed[0].problems, params)
        rolled = read_trajectories(output / "r.parquet")
        found.append(
            (
                (output / "e" / "samples.jsonl").read_text(),
                [(one.response_ids, one.step_map, one.decode_params) for one in rolled],
            )
        )
    assert found[0] == found[1]


def test_training_chooses_the_block_size_by_flag_then_a_students_own_then_eight(train, checkpoint, tmp_path):
    assert load_own_settings(train(output="base"))["block_size"] == 8
    four = train("--block-size", "4", output="four")
    assert load_own_settings(four) == {
        "block_size": 4,
        "steps_per_block": 1,
        "remasking": "low_confidence_static",
        "temperature": 1.0,
    }
    assert load_own_settings(train(model=four, output="again"))["block_size"] == 4
    shutil.copytree(checkpoint, tmp_path / "b16")
    edit(tmp_path / "b16" / "config.json", block_size=16)
    wide = train("--tokens-per-step", "2", model=tmp_path / "b16", output="wide")
    settings = load_own_settings(wide)
    assert (settings["block_size"], settings["steps_per_block"]) == (16, 8)
    assert yaml.safe_load((tmp_path / "wide" / "config.yaml").read_text())["block_size"] == 16


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokens-per-step", "3"], "tokens_per_step=3: does not divide block_size=8"),
        (["--tokens-per-step", "2", "--dynamic", "0.9"], "dynamic=0.9: tokens_per_step is given too"),
        (["--dynamic", "2"], "confidence_threshold=2.0: not in [0, 1]"),
    ],
)
def test_what_no_student_can_be_made_for_is_refused_before_training(
    checkpoint, trajectories, tmp_path, capsys, flags, message
):
    write_trajectories(tmp_path / "r.parquet", trajectories)
    command = ["train", "--model", str(checkpoint), "--trajectories", str(tmp_path / "r.parquet")]
    command += ["--output", str(tmp_path / "run"), "--device", "cpu", *flags]
    assert message in run_failing(command, capsys)
    assert not (tmp_path / "run").exists()


def test_the_student_of_a_base_in_16_bits_has_16_bits_and_says_so(train, checkpoint, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(checkpoint, half)
    weights = {name: value.bfloat16() for name, value in load_file(half / "model.safetensors").items()}
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    edit(half / "config.json", dtype="bfloat16")
    student = train(model=half)
    assert {str(value.dtype) for value in load_file(student / "model.safetensors").values()} == {
        "torch.bfloat16"
    }
    written = json.loads((student / "config.json").read_text())
    assert (written["dtype"], written["torch_dtype"]) == ("bfloat16", "bfloat16")


def test_whatever_decodes_does_so_in_the_checkpoints_own_precision(checkpoint, tmp_path, monkeypatch):
    """Where the processor has arithmetic for it."""
    monkeypatch.setattr("t3d.models.placement.cpu_has_bfloat16", lambda: True)
    half = tmp_path / "half"
    shutil.copytree(checkpoint, half)
    edit(half / "config.json", dtype="bfloat16")
    model = {"model": str(half), "device": "cpu"}
    commands = [
        Generate(**model, prompt="now?"),
        Rollout(**model, task="chain", output="r.parquet"),
        Eval(**model, tasks="chain", output="e"),
        Serve(**model),
    ]
    assert {str(command.load().model.dtype) for command in commands} == {"torch.bfloat16"}
    assert LLM(half, device="cpu").loaded.model.dtype == torch.bfloat16
    assert read_model_args({}).dtype == "auto"
    assert load_model(half, device="cpu").model.dtype == torch.float32  # it may be trained


@pytest.mark.parametrize("command", ["rollout", "generate", "eval"])
def test_own_settings_that_cannot_be_used_end_in_a_line(student, prompts, tmp_path, capsys, command):
    shutil.copytree(student, tmp_path / "bad")
    edit(tmp_path / "bad" / "generation_config.json", block_diffusion={"steps_per_block": 99})
    flags = ["--model", str(tmp_path / "bad"), "--prompts", str(prompts), *SHORT]
    output = [] if command == "generate" else ["--output", str(tmp_path / "out")]
    text = run_failing([command, *flags, *output], capsys)
    assert "steps_per_block=99: exceeds block_size=8" in text and "generation_config.json" in text
    assert not (tmp_path / "out").exists()


def test_the_help_names_the_default_of_a_checkpoint_that_says_nothing(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in OWN_FIELDS:
        _, _, rest = text.partition(f" --{name.replace('_', '-')} {{None")  # not where other texts mention it
        assert f"else {getattr(DecodeParams, name)}. (default: None)" in rest.partition(" --")[0], name


def test_unfit_flags_of_eval_are_named_before_the_checkpoint_is_looked_for(tmp_path, capsys):
    command = ["eval", "--model", "org/nowhere", "--output", str(tmp_path / "e")]
    text = run_failing([*command, "--tasks", "chain", "--temperature", "-1"], capsys)
    assert "temperature=-1.0: not a number of 0 or more" in text
    assert "tasks='chian': not known" in run_failing([*command, "--tasks", "chian"], capsys)

"""``t3d plan`` and the recipes: every recipe is resolved, and what does not fit is refused with a way out."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from t3d.cli.config_file import stages_of
from t3d.cli.main import main
from t3d.cli.plan_inputs import model_shape, read_measured
from t3d.cli.recipe import STAGES, read_recipe
from t3d.cli.rollout import Rollout
from t3d.errors import InputError

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
NAMES = {f"sdar_{size}_{kind}" for size in ("1.7b", "4b", "8b") for kind in ("math", "code")}
ADAPTER = "sdar_4b_math_lora"


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


SMALL = """
rollout: {model: mini, task: chain, limit: 64, max_new_tokens: 56, output: r.parquet}
train: {model: mini, trajectories: r.parquet, output: run, block_size: 8}
plan: {gpus: 2x8GB, longest_prompt: 64}
"""


def test_there_is_a_recipe_for_every_size_and_kind():
    assert {path.stem for path in RECIPES} == NAMES | {ADAPTER}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_resolved(path):
    recipe = read_recipe(str(path))
    config = recipe.train.trainer_config()
    # The paper's numbers, and the released configuration's where it has none (docs/paper_map.md).
    assert (config.block_size, config.path_weight, config.random_token_prob) == (8, 0.2, 0.1)
    assert (config.refresh_every, config.ddo_alpha, config.ddo_beta) == (10, 0.5, 0.1)
    assert (config.warmup_steps, config.weight_decay) == (20, 0.01)
    assert (config.learning_rate, config.lora_rank) == ((1e-4, 16) if path.stem == ADAPTER else (1e-5, 0))
    assert recipe.train.batch_size == 256 and config.activation_checkpointing
    decode = recipe.rollout.decode
    assert (decode.block_size, decode.steps_per_block, decode.temperature) == (4, 4, 0.1)
    assert recipe.prompts is not None and recipe.evaluation is not None
    assert recipe.prompts.output == recipe.rollout.prompts
    assert recipe.rollout.output == recipe.train.trajectories
    assert recipe.evaluation.model == f"{recipe.train.output}/student"
    assert recipe.rollout.model == recipe.train.model


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_value_of_a_recipe_says_where_it_is_from(path):
    values = [line for line in path.read_text().splitlines() if re.match(r"  \w+: ", line)]
    told = [line for line in values if re.search(r"# (paper( silent)?\b|released: )", line)]
    assert len(values) > 40 and told == values


def test_a_command_takes_its_own_section(tmp_path, capsys):
    path = written(tmp_path, SMALL)
    assert main(["rollout", "--config", path, "--task", "none"]) == 2
    assert "task='none'" in capsys.readouterr().err
    assert main(["eval", "--config", path]) == 2
    assert "without eval" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("limit: 64", "limits: 64"), ("limits", "recipe.yaml, section rollout", "did you mean 'limit'")),
        (("limit: 64", "limit: many"), ("limit", "'many'")),
        (("rollout:", "rolout:"), ("rolout", "no stage of a recipe", "rollout")),
        (("gpus:", "gpu:"), ("gpu", "section plan", "did you mean 'gpus'")),
        (("2x8GB", "two"), ("gpus", "8x80GB")),
        (("\nrollout", "\nseed: 1\nrollout"), ("seed", "beside sections")),
        (("block_size: 8", "block_size: 8, batch_size: 5"), ("batch_size", "2 GPUs")),
    ],
)
def test_a_wrong_key_or_value_is_named_with_a_way_out(tmp_path, capsys, change, said):
    assert main(["plan", written(tmp_path, SMALL.replace(*change))]) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in said), error


def test_a_plan_prints_parts_batches_hours_and_assumptions(tmp_path, capsys):
    path = written(tmp_path, SMALL)
    assert main(["plan", path, "--training-utilisation", "0.25"]) == 0
    text = capsys.readouterr().out
    for part in ("weights", "optimizer (AdamW)", "reference", "keys and values", "largest micro-batch"):
        assert part in text
    assert "training_utilisation = 0.25 of the peak" in text and "(given)" in text
    assert "rollout of 64 prompts" in text and "assumed" in text


def test_measured_values_take_the_place_of_assumptions(tmp_path, capsys):
    measured = tmp_path / "measured.yaml"
    measured.write_text("training_utilisation: 0.41\n")
    assert main(["plan", written(tmp_path, SMALL), "--measured", str(measured)]) == 0
    assert f"0.41 of the peak: arithmetic that a training step reaches (measured ({measured}))" in (
        capsys.readouterr().out
    )
    for text, said in (("mfu: 1", "unknown key"), ("peak_tflops: fast", "no number"), ("- 1", "mapping")):
        measured.write_text(text)
        with pytest.raises(InputError, match=said):
            read_measured(str(measured))


def test_where_nothing_fits_the_plan_says_what_to_change(capsys):
    path = str(ROOT / "recipes" / "sdar_4b_math.yaml")
    assert main(["plan", path, "--gpus", "8x40GB", "--parallel", "ddp"]) == 2
    said = capsys.readouterr()
    assert "together" in said.out
    assert "training takes" in said.err and "parallel fsdp2" in said.err and "lora_rank 16" in said.err


def test_the_paper_trains_its_models_on_eight_gpus_of_40_gb(capsys):
    for size in ("1.7b", "4b"):
        assert main(["plan", str(ROOT / "recipes" / f"sdar_{size}_math.yaml")]) == 0
    assert "fsdp2, with gradient checkpointing, 1 trajectory per micro-batch" in capsys.readouterr().out


def test_an_adapter_is_trained_on_one_gpu_of_40_gb(capsys):
    assert main(["plan", str(ROOT / "recipes" / f"{ADAPTER}.yaml")]) == 0
    text = capsys.readouterr().out
    assert "an adapter of rank 16, one GPU, with gradient checkpointing" in text
    assert "exchange between GPUs" not in text


def test_the_script_of_one_node_starts_training_with_shipped_settings():
    text = (ROOT / "recipes" / "train_node.sh").read_text().partition("exec t3d ")[2]
    words = shlex.split(text)
    command = ["train", "--config", "$RECIPE", "--num-processes", "${T3D_GPUS:-8}"]
    assert words == [*command, "--accelerate-config", "fsdp2", "$@"]


def test_the_script_of_two_nodes_starts_training_with_flags_that_accelerate_has():
    text = (ROOT / "recipes" / "train_slurm.sh").read_text().partition("accelerate launch ")[2]
    words = shlex.split(text.replace("\\\n", " ").replace("'", "").partition("\n")[0])
    numbers = {"$SLURM_NNODES": "2", "$SLURM_NODEID": "1", "$((8": "16"}
    words = [numbers.get(word, word) for word in words if word not in ("*", "SLURM_NNODES))")]
    words = [word.replace("$HEAD", "host") for word in words]
    options = launch_command_parser().parse_args(words)
    assert options.module and options.training_script == "t3d" and options.use_fsdp
    assert (options.fsdp_version, options.mixed_precision) == ("2", "bf16")
    assert options.fsdp_cpu_ram_efficient_loading == "false"
    assert options.training_script_args[:3] == ["train", "--config", "$RECIPE"]


def lines_of(script: str, folder: Path, *arguments: str) -> list[list[str]]:
    """What a script of ours calls t3d with."""
    told = folder / "told"
    (folder / "t3d").write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    (folder / "t3d").chmod(0o755)
    path = {"PATH": f"{folder}:/usr/bin:/bin"}
    subprocess.run(["bash", str(ROOT / "recipes" / script), *arguments], check=True, env=path)
    return [line.split() for line in told.read_text().splitlines()]


def test_the_script_of_one_gpu_runs_every_section_of_the_recipe(tmp_path):
    lines = lines_of("one_gpu.sh", tmp_path, "r.yaml")
    names = [["data", "prompts"], ["rollout"], ["train"], ["eval"]]
    assert lines == [["plan", "r.yaml"], *([*name, "--config", "r.yaml"] for name in names)]


def test_the_script_of_a_ray_cluster_rolls_out_with_flags_that_the_command_has(tmp_path, monkeypatch):
    recipe, seen = str(ROOT / "recipes" / f"{ADAPTER}.yaml"), []
    (line,) = lines_of("rollout_ray.sh", tmp_path, recipe, "--output", "s3://b/o.parquet")

    def keep(self):
        seen.append(self)

    monkeypatch.setattr(Rollout, "run", keep)
    assert main(line) == 0
    (command,) = seen
    assert (command.output, command.model) == ("s3://b/o.parquet", "JetLM/SDAR-4B-Chat")
    workers = command.workers
    assert (workers.ray, workers.address, workers.num_workers) == (True, "auto", 8)


def test_a_folders_own_config_is_read():
    shape, how = model_shape("mini")
    assert how == "its config.json" and 1e6 < shape.num_parameters < 3e6


def test_sections_are_those_of_the_file():
    for path in RECIPES:
        assert set(stages_of(str(path))) == {*STAGES, "plan"}

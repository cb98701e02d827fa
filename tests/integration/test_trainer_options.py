"""What one can ask of the trainer: evaluation while it trains, kinds of reference, LoRA, logs, schedules."""

import math

import pytest
import torch
from training_helpers import config, logged, trainer, weights

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.evaluation.monitor import student_evaluator
from t3d.models.loading import load_model
from t3d.problems.problem import Problem
from t3d.tasks.prompt_file import PromptFileTask
from t3d.training.lora import add_adapter
from t3d.training.run import distil
from t3d.training.selection import as_trajectories
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import write_trajectories
from t3d.work.checkpoints import DivergedError, checkpoints, newest_checkpoint


def scripted(scores):
    """An evaluator that gives these few-step accuracies in turn, and the list of its calls."""
    calls = []

    def score(student):
        assert not student.training
        calls.append(student)
        return {"few_step_accuracy": scores[len(calls) - 1], "full_step_accuracy": 50.0}

    return score, calls


# --- learning rate ------------------------------------------------------------------------------------


def test_the_learning_rate_follows_warmup_and_cosine_in_optimizer_steps(checkpoint, trajectories, tmp_path):
    """Peak 0.01, 2 warm-up steps, 6 in all, floor 10 %, two micro-batches each. The rate of optimizer step
    k (from 0): 0.01 k / 2 in warm-up, then 0.01 (0.1 + 0.9 (1 + cos(pi (k - 2) / 4)) / 2)."""
    fields = {"max_steps": 6, "warmup_steps": 2, "learning_rate": 0.01, "gradient_accumulation_steps": 2}
    run = trainer(checkpoint, trajectories, tmp_path, **fields, per_device_train_batch_size=2)
    run.train()
    expected = [0.0, 0.005, 0.01, 0.0086819805, 0.0055, 0.0023180195]
    assert logged(run, "learning_rate") == pytest.approx(expected, rel=1e-6)


def test_a_warm_up_of_the_whole_run_is_warned_of(checkpoint, trajectories, tmp_path, caplog):
    """Its only rate is 0: the student stays its teacher."""
    for name, warmup_steps in (("warm", 1), ("plain", 0)):
        loaded = load_model(checkpoint, device="cpu")
        settings = config(tmp_path / name, max_steps=1, warmup_steps=warmup_steps)
        distil(loaded, trajectories, settings, tmp_path / name / "student")
        warned = [line for line in caplog.messages if "covers all 1 optimizer steps" in line]
        assert len(warned) == 1
        student = load_model(tmp_path / name / "student", device="cpu")
        assert (student.weights_hash == load_model(checkpoint).weights_hash) is (name == "warm")


# --- logs ---------------------------------------------------------------------------------------------


def test_every_part_of_the_loss_speed_and_memory_are_logged(checkpoint, trajectories, tmp_path):
    run = trainer(checkpoint, trajectories, tmp_path, max_steps=2, mask_ratios=(1.0, 0.5), mask_ratio_power=0)
    run.train()
    names = {
        *("loss/ddo_real", "loss/ddo_fake", "loss/path", "loss/total", "margin/real", "margin/fake"),
        *("margin/saturated", "reference/agreement", "speed/tokens_per_second", "memory/peak_gib"),
        *("speed/trajectories_per_second", "nll/mask_ratio_1", "nll/mask_ratio_0.5", "learning_rate"),
    }
    for entry in run.state.log_history[:2]:
        assert names <= set(entry)
        assert all(math.isfinite(entry[name]) for name in names)
    assert 0 <= logged(run, "reference/agreement")[0] <= 1
    assert logged(run, "memory/peak_gib")[0] > 0.05


def test_nll_by_mask_ratio_is_the_mean_of_its_tokens(checkpoint, trajectories, tmp_path):
    """With one ratio it is the cross-entropy per token, which naive distillation minimises."""
    fields = {"objective": "cross_entropy", "mask_ratios": (1.0,), "max_steps": 2}
    run = trainer(checkpoint, trajectories, tmp_path, **fields)
    run.train()
    assert logged(run, "nll/mask_ratio_1") == pytest.approx(logged(run, "loss/cross_entropy"), rel=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(checkpoint, trajectories, tmp_path):
    """Also after good steps: the weights of the last checkpoint stay."""
    run = trainer(checkpoint, trajectories, tmp_path, save_strategy="steps", save_steps=1)

    class Poison(torch.nn.Module):
        def forward(self, hidden):
            return hidden * (math.nan if run.state.global_step == 2 else 1.0)

    run.model.model.norm = torch.nn.Sequential(run.model.model.norm, Poison())
    with pytest.raises(
        DivergedError, match=r"loss is nan .*samples.*: \d.* after 2 optimizer steps"
    ) as caught:
        run.train()
    named = str(caught.value).split("micro-batch: ")[1].split(")")[0].split(", ")
    assert set(named) <= {trajectory.id for trajectory in trajectories}
    assert len(named) == 4
    assert newest_checkpoint(tmp_path).name == "checkpoint-2"


# --- evaluation during training -----------------------------------------------------------------------


def test_evaluation_changes_no_weight_and_is_logged(checkpoint, trajectories, tmp_path, caplog):
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    problems = [Problem(id=str(n), question="how many apples", answer=str(n)) for n in range(3)]
    task = PromptFileTask(tmp_path / "apples.jsonl")
    few, full = (DecodeParams(block_size=4, steps_per_block=n, max_new_tokens=8) for n in (2, 4))
    evaluator = student_evaluator(loaded, [(task, problems)], few_steps=few, full_steps=full, batch_size=2)
    plain = trainer(checkpoint, trajectories, tmp_path / "plain")
    plain.train()
    fields = {"eval_strategy": "steps", "eval_steps": 2}
    watched = T3DTrainer(
        loaded.model, config(tmp_path / "watched", **fields), trajectories, loaded.tokenizer, evaluator
    )
    watched.train()
    assert torch.equal(weights(watched), weights(plain))
    names = ("eval_few_step_accuracy", "eval_full_step_accuracy", "eval_few_step_accuracy/apples")
    for name in names:
        assert len(logged(watched, name)) == 2
        assert all(0 <= value <= 100 for value in logged(watched, name))
    for name in ("few step accuracy", "full step accuracy"):
        said = [line for line in caplog.messages if line.startswith(f"{name}: ")]
        assert said and all("hit the length limit (max_new_tokens)" in line for line in said), "as a rollout"


def test_the_best_checkpoint_is_kept_beside_the_newest(checkpoint, trajectories, tmp_path):
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    score, calls = scripted([10.0, 40.0, 30.0, 20.0, 15.0])
    fields = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    settings = config(tmp_path, **fields, max_steps=5, save_total_limit=2)
    run = T3DTrainer(loaded.model, settings, trajectories, loaded.tokenizer, score)
    run.train()
    assert len(calls) == 5
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]
    assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    resumed = trainer(checkpoint, trajectories, tmp_path, save_strategy="steps", max_steps=5)
    resumed.train_from(newest_checkpoint(tmp_path))
    assert resumed.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert resumed.state.best_metric == 40.0


@pytest.mark.parametrize(
    ("count", "max_new_tokens", "message"),
    [
        (1, 1000, "max_new_tokens=1000: request '0' has"),
        (2, 8, "tasks='apples': given twice"),
        (0, 8, "no problem of 'apples' to evaluate"),
    ],
)
def test_an_evaluator_refuses_what_it_could_not_decode(checkpoint, tmp_path, count, max_new_tokens, message):
    loaded = load_model(checkpoint, device="cpu")
    problems = [Problem(id="0", question="how many apples", answer="1")]
    held_out = [(PromptFileTask(tmp_path / "apples.jsonl"), problems[:count])] * max(1, count)
    params = DecodeParams(block_size=4, max_new_tokens=max_new_tokens)
    with pytest.raises(InputError, match=message):
        student_evaluator(loaded, held_out, few_steps=params, full_steps=params)


@pytest.mark.parametrize(
    "fields", [{"eval_strategy": "steps", "eval_steps": 1}, {"reference_choice": "best"}]
)
def test_evaluation_without_an_evaluator_is_refused(checkpoint, trajectories, tmp_path, fields):
    with pytest.raises(InputError, match="evaluator"):
        trainer(checkpoint, trajectories, tmp_path, **fields)


# --- the reference ------------------------------------------------------------------------------------


def test_a_best_reference_is_refreshed_by_better_students_only(checkpoint, trajectories, tmp_path):
    """Refresh every step; the untouched student scores 30, then 20 (kept out), 35 (in), 10 (out)."""
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    score, _ = scripted([30.0, 20.0, 35.0, 10.0])
    fields = {"refresh_every": 1, "reference_choice": "best", "max_steps": 3}
    run = T3DTrainer(loaded.model, config(tmp_path, **fields), trajectories, loaded.tokenizer, score)
    seen = []
    refresh = run.reference.refresh
    run.reference.refresh = lambda student: (seen.append(run.state.global_step), refresh(student))
    run.train()
    assert seen == [2]
    assert run.reference.score == 35.0


def test_a_reference_in_cpu_memory_trains_the_same_student(checkpoint, trajectories, tmp_path):
    results = []
    for placement in ("device", "cpu"):
        run = trainer(checkpoint, trajectories, tmp_path, reference_placement=placement)
        run.train()
        results.append(weights(run))
    assert torch.equal(*results)


# --- LoRA ---------------------------------------------------------------------------------------------

LORA = {"lora_rank": 2, "learning_rate": 1e-2}


def lora_trainer(checkpoint, trajectories, folder, **fields):
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    settings = config(folder, **(LORA | fields))
    torch.manual_seed(0)
    return T3DTrainer(add_adapter(loaded.model, settings.lora_rank), settings, trajectories, loaded.tokenizer)


def test_lora_trains_the_adapter_only_and_refreshes_its_reference(checkpoint, trajectories, tmp_path):
    run = lora_trainer(checkpoint, trajectories, tmp_path, max_steps=3, refresh_every=2)
    before = {name: value.detach().clone() for name, value in run.model.named_parameters()}
    run.train()
    changed = {name for name, value in run.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert all(".lora_" in name for name in changed)
    assert {part for name in changed for part in name.split(".")} >= {"default", "reference"}
    optimized = {id(weight) for group in run.optimizer.param_groups for weight in group["params"]}
    trained = {id(v) for name, v in run.model.named_parameters() if ".default." in name}
    assert optimized == trained


def test_a_resumed_lora_run_is_the_uninterrupted_one(checkpoint, trajectories, tmp_path):
    fields = {"save_strategy": "steps", "save_steps": 3, "max_steps": 5, "refresh_every": 2}
    whole = lora_trainer(checkpoint, trajectories, tmp_path / "whole", **fields)
    whole.train()
    assert not (tmp_path / "whole" / "checkpoint-3" / "reference").exists()
    again = lora_trainer(checkpoint, trajectories, tmp_path / "again", **fields)
    again.train_from(tmp_path / "whole" / "checkpoint-3")
    for (name, expected), found in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(found, expected), name


def test_a_lora_student_is_exported_merged_and_loads_anywhere(checkpoint, trajectories, tmp_path):
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    before = loaded.model.state_dict()["model.layers.0.self_attn.q_proj.weight"].clone()
    settings = config(tmp_path / "run", **LORA, save_strategy="steps", save_steps=2)
    student = distil(loaded, trajectories, settings, tmp_path / "student")
    exported = load_model(student, device="cpu", dtype="float64").model.state_dict()
    assert not any("lora" in name for name in exported)
    assert not torch.equal(exported["model.layers.0.self_attn.q_proj.weight"], before)
    ours = loaded.model.state_dict()
    assert set(ours) == set(exported)
    assert all(torch.equal(ours[name], exported[name]) for name in ours)
    again = load_model(checkpoint, device="cpu", dtype="float64")
    assert distil(again, trajectories, settings, tmp_path / "student") == student
    assert all(torch.equal(value, exported[name]) for name, value in again.model.state_dict().items())


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"lora_rank": -1}, "lora_rank"),
        ({"lora_rank": 4, "reference_placement": "device"}, "reference_placement"),
        ({"reference_placement": "adapter"}, "reference_placement"),
        ({"lora_rank": 4, "lora_target_modules": ("q_proj", "lm_head")}, "target_modules"),
        ({"lora_rank": 4, "lora_target_modules": ("model.embed_tokens",)}, "target_modules"),
        ({"lora_rank": 4, "lora_target_modules": ()}, "target_modules"),
        ({"lora_rank": 4, "lora_alpha": 0.0}, "lora_alpha"),
        ({"lora_rank": 4, "lora_dropout": 1.0}, "lora_dropout"),
    ],
)
def test_bad_lora_settings_are_named(tmp_path, fields, named):
    with pytest.raises(InputError, match=named):
        config(tmp_path, **fields)


def test_a_data_set_of_trajectories_trains_as_they_do(checkpoint, trajectories, tmp_path):
    """What ``load_dataset("parquet", ...)`` makes of a rollout's file."""
    datasets = pytest.importorskip("datasets")
    write_trajectories(tmp_path / "rollout.parquet", trajectories)
    rows = datasets.Dataset.from_parquet(str(tmp_path / "rollout.parquet"), cache_dir=str(tmp_path / "cache"))
    assert as_trajectories(rows) == trajectories
    assert as_trajectories(trajectories) is trajectories
    logs = []
    for name, given in (("rows", rows), ("records", trajectories)):
        run = trainer(checkpoint, given, tmp_path / name, max_steps=2)
        run.train()
        logs.append((logged(run, "loss"), weights(run)))
    assert logs[0][0] == logs[1][0] and torch.equal(logs[0][1], logs[1][1])
    loaded, how = load_model(checkpoint, device="cpu"), config(tmp_path / "run", max_steps=2)
    student = distil(loaded, rows, how, tmp_path / "student")
    told = (student / "training.json").read_bytes()
    assert distil(load_model(checkpoint, device="cpu"), trajectories, how, student) == student, "finished"
    assert (student / "training.json").read_bytes() == told
    with pytest.raises(InputError, match=r"^train_dataset='Dataset': the columns step_map are missing"):
        as_trajectories(rows.remove_columns("step_map"))

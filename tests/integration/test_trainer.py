"""The trainer's invariants, on the tiny model and its own trajectories."""

import copy
import dataclasses
import json
import math
import shutil
from contextlib import nullcontext

import pytest
import torch
from training_helpers import OF_EVERY_WAY, config, logged, trainer, weights

from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out
from t3d.errors import InputError
from t3d.models.loading import load_model
from t3d.problems.problem import Problem
from t3d.training.presets import PRESETS, preset_fields
from t3d.training.run import distil
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import Trajectory


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_and_changes_the_student(checkpoint, trajectories, tmp_path, preset):
    run = trainer(checkpoint, trajectories, tmp_path, **preset_fields(preset))
    before = weights(run)
    run.train()
    assert torch.isfinite(weights(run)).all()
    assert not torch.equal(before, weights(run))


def test_first_loss_is_one_plus_alpha_times_ln_2_plus_the_weighted_path_term(
    checkpoint, trajectories, tmp_path
):
    """At theta = reference both margins are 0 and -log sigma(0) = ln 2."""
    run = trainer(checkpoint, trajectories, tmp_path, max_steps=1)
    run.train()
    (total,), (path,) = logged(run, "loss/total"), logged(run, "loss/path")
    assert total == pytest.approx((1 + 0.5) * math.log(2) + 0.2 * path, abs=1e-5)
    assert logged(run, "margin/real") == pytest.approx([0.0], abs=1e-6)


def test_a_tokenizer_without_a_pad_token_trains_the_same_student(checkpoint, trajectories, tmp_path):
    """No attention and no loss reads padding, so that any id will do."""
    trained = []
    for name in ("with", "without"):
        run = trainer(checkpoint, trajectories, tmp_path / name, max_steps=2)
        if name == "without":
            tokenizer = copy.deepcopy(run.processing_class)
            tokenizer.pad_token = None
            run = T3DTrainer(
                model=run.model,
                args=run.args,
                train_dataset=trajectories,
                processing_class=tokenizer,
            )
        run.train()
        trained.append(weights(run))
    assert torch.equal(*trained)


def test_the_presets_of_every_way_stand_for_all(tmp_path):
    names = ("objective", "loss_normaliser", "log_ratio", "path_reduction", "state_source")

    def ways(presets):
        made = [config(tmp_path, **preset_fields(preset)) for preset in presets]
        return {tuple(getattr(one, name) for name in names) for one in made}

    assert ways(OF_EVERY_WAY) == ways(PRESETS)


@pytest.mark.parametrize("preset", OF_EVERY_WAY)
def test_accumulating_micro_batches_equals_one_large_batch(checkpoint, trajectories, tmp_path, preset):
    """8 x 1, 4 x 2 and 1 x 8: same weights after three optimizer steps, whatever the lengths."""
    results = []
    for micro_batch in (8, 4, 1):
        fields = {
            **preset_fields(preset),
            "per_device_train_batch_size": micro_batch,
            "gradient_accumulation_steps": 8 // micro_batch,
            "max_steps": 3,
        }
        run = trainer(checkpoint, trajectories, tmp_path / str(micro_batch), **fields)
        run.train()
        results.append((weights(run), logged(run, "loss")))
    for other_weights, other_losses in results[1:]:
        torch.testing.assert_close(other_weights, results[0][0], rtol=1e-6, atol=1e-8)
        assert other_losses == pytest.approx(results[0][1], rel=1e-3)


@pytest.mark.parametrize(("num_steps", "is_fresh"), [(2, True), (3, False), (4, True)])
def test_reference_is_the_student_right_after_every_second_optimizer_step(
    checkpoint, trajectories, tmp_path, num_steps, is_fresh
):
    run = trainer(checkpoint, trajectories, tmp_path, max_steps=num_steps)
    run.train()
    assert run.reference is not None
    with run.reference.active() as reference:
        pairs = zip(reference.parameters(), run.model.parameters(), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs) == is_fresh


def test_same_seed_gives_the_same_student_and_another_seed_does_not(checkpoint, trajectories, tmp_path):
    runs = [trainer(checkpoint, trajectories, tmp_path, seed=seed) for seed in (1, 1, 2)]
    for run in runs:
        run.train()
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))


def test_terminal_filler_takes_loss_only_on_request(checkpoint, trajectories, tmp_path):
    cut = [dataclasses.replace(trajectory, visible_length=3) for trajectory in trajectories]
    counts = {}
    for filler in (False, True):
        run = trainer(checkpoint, cut, tmp_path, terminal_filler_loss=filler, mask_ratios=(1.0,))
        batch = next(iter(run.get_train_dataloader()))
        counts[filler] = len(batch["labels"])
    assert counts[False] == 4 * 3
    assert counts[True] > counts[False]


def test_unusable_trajectories_are_named(checkpoint, trajectories, tmp_path):
    with pytest.raises(InputError, match="no trajectories"):
        trainer(checkpoint, [], tmp_path)
    with pytest.raises(InputError, match="used by two trajectories"):
        trainer(checkpoint, [trajectories[0], trajectories[0]], tmp_path)
    fields = {name: getattr(trajectories[0], name) for name in Trajectory.__dataclass_fields__}
    foreign = Trajectory(**{**fields, "prompt_ids": (10**6, *trajectories[0].prompt_ids[1:])})
    with pytest.raises(InputError, match="token id 1000000"):
        trainer(checkpoint, [foreign], tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("block_size", 0),
        ("mask_ratios", (1.5,)),
        ("path_weight", -1.0),
        ("refresh_every", 0),
    ],
)
def test_bad_settings_are_named(tmp_path, field, value):
    with pytest.raises(InputError, match=field):
        config(tmp_path, **{field: value})


def test_trajectories_of_another_tokenizer_are_refused(checkpoint, trajectories, tmp_path):
    for field, value in (("tokenizer_hash", "0" * 64), ("mask_token_id", 3)):
        foreign = [dataclasses.replace(trajectory, **{field: value}) for trajectory in trajectories]
        with pytest.raises(InputError, match=field):
            trainer(checkpoint, foreign, tmp_path)


@pytest.mark.parametrize(
    ("rollout_size", "student_size", "nests"), [(4, 8, True), (4, 2, True), (4, 6, False)]
)
def test_block_grids_of_rollout_and_student_must_nest(
    checkpoint, trajectories, tmp_path, rollout_size, student_size, nests
):
    assert {trajectory.block_size for trajectory in trajectories} == {rollout_size}
    expected = nullcontext() if nests else pytest.raises(InputError, match=r"block_size=6: .* do not nest")
    with expected:
        trainer(checkpoint, trajectories, tmp_path, block_size=student_size)


def test_mixed_block_sizes_are_refused(checkpoint, trajectories, tmp_path):
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    problem, params = Problem(id="other", question="so"), DecodeParams(block_size=8, max_new_tokens=8)
    mixed = [*trajectories, *roll_out(loaded, [problem], params)]
    with pytest.raises(InputError, match=r"block_size=8: trajectory 'other' .* '0' in 4"):
        trainer(checkpoint, mixed, tmp_path)


def test_an_unknown_choice_is_named(tmp_path):
    settings = config(tmp_path)
    settings.log_ratio = "max"  # past the type check of the tests' import hook
    with pytest.raises(InputError, match=r"log_ratio.*use one of mean, sum"):
        settings.__post_init__()


def test_student_is_exported_with_its_teachers_tokenizer_and_code_files(checkpoint, trajectories, tmp_path):
    teacher = tmp_path / "teacher"
    shutil.copytree(checkpoint, teacher)
    (teacher / "modeling_sdar.py").write_text("# the base's own code, copied and never run\n")
    (teacher / "generation_config.json").write_text('{"eos_token_id": [3, 5]}')
    settings = json.loads((teacher / "config.json").read_text())
    del settings["rope_parameters"], settings["dtype"]  # as transformers 4 wrote them
    settings |= {"rope_theta": 1e6, "torch_dtype": "float32", "auto_map": {"AutoConfig": "x.SDARConfig"}}
    (teacher / "config.json").write_text(json.dumps(settings))
    loaded = load_model(teacher, device="cpu")
    student = distil(loaded, trajectories, config(tmp_path / "run", max_steps=1), tmp_path / "student")
    reloaded = load_model(student, device="cpu")
    assert reloaded.tokenizer_hash == loaded.tokenizer_hash
    assert reloaded.stop_token_ids == loaded.stop_token_ids
    assert list(loaded.model.generation_config.eos_token_id) == [3, 5]
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (teacher, student))
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed <= {"transformers_version", "block_size"}
    assert (before["block_size"], after["block_size"]) == (4, 8), "as the student decodes"
    assert reloaded.model.config.rope_parameters["rope_theta"] == 1e6
    assert (student / "modeling_sdar.py").read_text() == (teacher / "modeling_sdar.py").read_text()
    assert (student / "tokenizer.json").read_bytes() == (teacher / "tokenizer.json").read_bytes()
    generation = json.loads((student / "generation_config.json").read_text())
    assert generation.pop("block_diffusion")["block_size"] == 8
    # All that end an answer, the tokenizer's too, for code that reads this file alone.
    assert generation == {"eos_token_id": list(loaded.stop_token_ids)}

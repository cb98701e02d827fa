"""The sides of benchmarks/training.py compute one loss and one gradient: else their times mean nothing."""

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from t3d.training.config import T3DConfig
from t3d.training.presets import preset_fields

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
LENGTHS = [(5, 7), (9, 11), (3, 25), (8, 16), (6, 2)]
"""Prompts that end inside a block, responses with a last block that is not full, padding on both sides."""


@pytest.fixture(scope="module", autouse=True)
def _benchmarks_can_be_imported():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


@pytest.fixture
def setting(tiny_config):
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    names += ("num_key_value_heads", "head_dim", "vocab_size", "initializer_range")
    config = tiny_config()
    return importlib.import_module("training_sides").Setting(
        model={name: getattr(config, name) for name in names},
        lengths=LENGTHS,
        micro_batch=2,
        dtype=torch.float64,
    )


def gradient(student) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in student.parameters()])


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("name", ["authors_step", "careful_step"])
def test_baseline_has_the_trainers_loss_and_gradient(setting, name, gradient_checkpointing):
    training = importlib.import_module("training_sides")
    setting = replace(setting, gradient_checkpointing=gradient_checkpointing)
    ours, other = training.make_side("ours", setting), training.make_side(name, setting)
    ids = range(len(LENGTHS))
    assert other.accumulate(ids) == pytest.approx(ours.accumulate(ids), rel=1e-6)
    torch.testing.assert_close(gradient(other.student), gradient(ours.student), rtol=1e-4, atol=1e-7)


def test_ddo_is_known_where_student_and_reference_are_equal_and_not_where_the_student_moved(setting):
    """(1 + alpha) ln 2 without the path term; the benchmark's student must be elsewhere."""
    training, baselines = (importlib.import_module(name) for name in ("training_sides", "training_baselines"))
    lengths = importlib.import_module("training_lengths")
    config = setting.config
    config.path_weight = 0.0
    reference, student = training.build_model(setting), training.build_model(setting)
    trajectories = [lengths.random_trajectory(row, *pair, 40) for row, pair in enumerate(LENGTHS)]
    states = [baselines.draw_state(trajectory, config, 40) for trajectory in trajectories]

    def loss() -> float:
        counts = {"mask_token_id": 39, "num_samples": len(states)}
        return baselines.careful_step(student, reference, states, config, **counts).item()

    assert loss() == pytest.approx(1.5 * math.log(2), abs=1e-9)
    training.start_student(student, setting)
    assert abs(loss() - 1.5 * math.log(2)) > 1e-3


@pytest.mark.parametrize("mask_ratios", [(1.0,), (0.5,), (1.0, 0.75, 0.5, 0.25)])
def test_states_are_the_collators(mask_ratios):
    """Noisy tokens at the loss positions of ``T3DTrainer``'s batch, and which of them are masked."""
    baselines, lengths = (importlib.import_module(f"training_{name}") for name in ("baselines", "lengths"))
    states = importlib.import_module("t3d.training.states")
    config = T3DConfig(
        output_dir="unused", use_cpu=True, **preset_fields("released") | {"mask_ratios": mask_ratios}
    )
    trajectories = [lengths.random_trajectory(row, *pair, 40) for row, pair in enumerate(LENGTHS)]
    collator = states.TrajectoryCollator(config=config, pad_token_id=0, mask_token_id=39, vocab_size=40)
    dataset = states.TrajectoryDataset(trajectories, config)
    batch = collator([dataset[row] for row in range(len(LENGTHS))])
    drawn = [baselines.draw_state(trajectory, config, 40) for trajectory in trajectories]
    noisy_ids = batch["input_ids"].flatten()[batch["loss_positions"]]
    assert torch.equal(noisy_ids, torch.cat([state.noisy_ids for state in drawn]))
    assert torch.equal(batch["is_masked"], torch.cat([state.is_masked for state in drawn]))


def test_committed_lengths_are_what_the_docstring_says():
    lengths = importlib.import_module("training_lengths")
    pairs = json.loads(lengths.LENGTHS_FILE.read_text(encoding="utf-8"))
    assert len(pairs) == 256
    assert all((prompt + response) % 4 == 0 and 0 < response <= 1024 for prompt, response in pairs)
    long = [sum(response >= 300 for _, response in pairs[first : first + 10]) for first in range(0, 250, 10)]
    assert min(long) >= 1


def test_released_mask_is_the_rule_of_the_paper_code():
    """Brute force: prompt blocks count backwards from the response, columns are prompt, clean, noisy."""
    baselines = importlib.import_module("training_baselines")
    prompt, response, size = 5, 7, 4
    mask = baselines.released_mask(prompt, response, size)

    def place(column):
        if column < prompt:
            return "clean", -((prompt - column - 1) // size) - 1
        kind = "clean" if column < prompt + response else "noisy"
        return kind, (column - prompt) % response // size

    for query in range(prompt + 2 * response):
        for key in range(prompt + 2 * response):
            (query_kind, query_block), (key_kind, key_block) = place(query), place(key)
            if key_kind == "clean":
                expected = key_block < query_block + (query_kind == "clean")
            else:
                expected = query_kind == "noisy" and key_block == query_block
            assert mask[query, key] == expected, (query, key)


def test_continued_pretraining_under_autocast_has_the_loss_of_float32(setting):
    """A Llama, as ``--shape smollm2``: its weights stay float32, and so do its gradients."""
    training = importlib.import_module("training_sides")
    model = {name: value for name, value in setting.model.items() if name != "head_dim"}
    fields = {"architecture": "llama", "preset": "sft", "dtype": torch.float32, "micro_batch": 5}
    found = []
    for has_autocast in (False, True):
        tied = replace(setting, model=model | {"tie_word_embeddings": True}, **fields)
        side = training.make_side("ours", replace(tied, has_autocast=has_autocast))
        found.append(side.accumulate(range(len(LENGTHS))))
        assert {weight.grad.dtype for weight in side.student.parameters()} == {torch.float32}
    assert found[0] != found[1] == pytest.approx(found[0], rel=0.05)


def test_a_step_of_a_shape_on_a_cpu_has_time_memory_and_profile(setting, monkeypatch):
    shapes = importlib.import_module("training_shapes")
    monkeypatch.setattr(shapes, "peak_bytes_apart", lambda name, _: {"ours": 3 * 2**20}[name])
    report = shapes.run_shape(setting, "smollm2", 1.0, is_quick=True)
    (row,) = report["rows"]
    assert row["shape"] == "smollm2" and row["peak_mib"] == 3
    assert row["seconds_best"] > 0 and row["samples_per_second"] > 0
    assert {"head", "attention"} < set(report["profile"])

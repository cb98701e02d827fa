"""Every baseline as the trainer computes it, against its formula on whole logits; and its data."""

import pytest
import torch
from packing_helpers import loss_logits
from training_helpers import trainer, weights

from t3d.cli.main import main
from t3d.training.presets import preset_fields
from t3d.trajectory import read_trajectories


def batch_of(run):
    return run.data_collator([run.train_dataset[row] for row in range(len(run.train_dataset))])


def formula(preset, logits, batch, num_responses):
    """The loss as its source prints it, from the logits at the loss positions."""
    log_p = logits.log_softmax(-1)
    nll = -log_p.gather(-1, batch["labels"][:, None])[:, 0]
    if preset in ("sft", "redi", "redi_random_start"):
        return (nll / batch["mask_prob"]).sum() / batch["num_response_tokens"]
    if preset == "sft_dllm_rl":
        return nll.sum() / batch["num_response_tokens"]
    if preset in ("naive_td", "naive_td_random"):
        return nll.mean()
    if preset in ("naive_td_path", "naive_td_path_random"):
        return nll.mean() + 0.2 * (batch["token_weight"] * nll).mean()
    assert preset == "dparallel"
    log_q = (logits / 0.5).log_softmax(-1)
    entropy = -(log_q.exp() * log_q).sum(-1)
    is_correct = logits.argmax(-1) == batch["labels"]
    total = torch.zeros((), dtype=logits.dtype)
    for copy in range(batch["num_copies"]):
        own = batch["loss_copy"] == copy
        total += nll[own].mean()
        if (own & is_correct).any():
            total += 2 * entropy[own & is_correct].mean()
    return total / num_responses


@pytest.mark.parametrize(
    "preset",
    [
        *("sft", "sft_dllm_rl", "redi", "redi_random_start", "dparallel"),
        *("naive_td", "naive_td_path", "naive_td_random", "naive_td_path_random"),
    ],
)
def test_the_loss_is_the_methods_formula(checkpoint, trajectories, tmp_path, preset):
    run = trainer(checkpoint, trajectories, tmp_path, **preset_fields(preset))
    assert run.reference is None
    run.model.eval()
    batch = batch_of(run)
    with torch.no_grad():
        loss = run.compute_loss(run.model, batch)
        logits = loss_logits(run.model, batch)
        logits[:, run.mask_token_id] -= 1e-9  # of equals, not the mask
        expected = formula(preset, logits, batch, len(trajectories))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)


def test_dparallel_pulls_entropy_down_only_where_the_student_is_right(checkpoint, trajectories, tmp_path):
    """The tiny model is right somewhere and wrong elsewhere, and its log says so."""
    run = trainer(checkpoint, trajectories, tmp_path, **preset_fields("dparallel"), max_steps=1)
    run.train()
    (entry,) = (entry for entry in run.state.log_history if "loss/entropy" in entry)
    assert entry["loss/entropy"] > 0
    assert 0 < entry["student/correct"] < 1
    assert entry["loss/total"] == pytest.approx(
        entry["loss/cross_entropy"] + 2 * entry["loss/entropy"], rel=1e-5
    )


@pytest.mark.parametrize("preset", ["sft", "dparallel", "naive_td_path", "t3d"])
def test_a_micro_batch_without_a_masked_token_adds_nothing(checkpoint, trajectories, tmp_path, preset):
    """Random masks may take none of a micro-batch's tokens: a loss of zero, and gradients of zero."""
    rare = {"state_source": "random_mask", "mask_prob_range": (1e-12, 1e-12), "complementary_states": False}
    fields = preset_fields(preset) | rare | {"loss_weighting": "uniform"}
    run = trainer(checkpoint, trajectories, tmp_path, **fields)
    batch = batch_of(run)
    assert len(batch["labels"]) == 0
    loss = run.compute_loss(run.model, batch)
    loss.backward()
    assert loss.item() == pytest.approx(1.5 * 0.6931472 if preset == "t3d" else 0, abs=1e-6)
    assert all(weight.grad is None or not weight.grad.any() for weight in run.model.parameters())


def test_redi_iterates_by_rolling_out_again(checkpoint, prompts, tmp_path):
    """Two iterations on the command line: the second rolls out the student of the first."""
    short = ["--device", "cpu", "--max-new-tokens", "12"]
    sizes = ["--num-optimizer-steps", "2", "--batch-size", "4", "--device", "cpu"]
    sizes += ["--learning-rate", "1e-3", "--warmup-steps", "0"]
    model = str(checkpoint)
    for iteration in range(2):
        path, run = str(tmp_path / f"{iteration}.parquet"), str(tmp_path / f"run-{iteration}")
        rollout = ["rollout", "--model", model, "--prompts", str(prompts), "--output", path, *short]
        assert main(rollout) == 0
        train = ["train", "--model", model, "--trajectories", path, "--preset", "redi", "--output", run]
        assert main([*train, *sizes]) == 0
        model = f"{run}/student"
    assert {record.teacher for record in read_trajectories(path)} == {str(tmp_path / "run-0" / "student")}


@pytest.mark.parametrize("preset", ["sft", "sft_dllm_rl"])
def test_solutions_of_a_mini_task_become_records_that_fine_tune_a_student(tmp_path, capsys, preset):
    path = tmp_path / "solutions.parquet"
    problems = ["--task", "chain", "--limit", "8", "--model", "mini"]
    assert main(["data", "solutions", *problems, "--output", str(path)]) == 0
    assert "8 records in" in capsys.readouterr().out
    assert main(["data", "validate", "--trajectories", str(path), "--model", "mini"]) == 0
    assert main(["data", "stats", "--trajectories", str(path)]) == 0
    records = read_trajectories(path)
    run = trainer("mini", records, tmp_path / "run", **preset_fields(preset), max_steps=2)
    before = weights(run)
    run.train()
    assert not torch.equal(before, weights(run))


def test_solutions_of_a_file_and_lines_without_one(checkpoint, prompts, tmp_path, capsys):
    arguments = ["data", "solutions", "--model", str(checkpoint), "--output", str(tmp_path / "x.parquet")]
    file = tmp_path / "solved.jsonl"
    file.write_text('{"question": "how many?", "solution": "so the answer is 5"}\n')
    assert main([*arguments, "--prompts", str(file)]) == 0
    (record,) = read_trajectories(tmp_path / "x.parquet")
    assert (record.id, record.block_size, record.num_denoising_steps > 1) == ("solved/1", 8, True)
    assert main([*arguments, "--prompts", str(prompts)]) == 2
    assert "has none" in capsys.readouterr().err

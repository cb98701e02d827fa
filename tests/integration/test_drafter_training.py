"""A drafter is trained on its base's rollouts, and the base stays what it was."""

import copy
import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from command_helpers import run_failing
from training_helpers import config, logged, trainer
from transformers import TrainerCallback

from t3d.attention.forward import block_forward
from t3d.cli.main import main
from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out
from t3d.errors import InputError
from t3d.models.drafter import load_drafter
from t3d.models.gated import add_gated_adapter, attached
from t3d.models.head import HeadScores
from t3d.models.loading import load_model
from t3d.tasks.mini.suite import TASKS
from t3d.training import run as run_module
from t3d.training.held_out_drafts import draft_evaluator
from t3d.training.loss import BatchCounts, count_batch, draft_objective, drafts_of
from t3d.training.presets import preset_fields
from t3d.training.run import distil
from t3d.training.scoring import check_scores, refuse_sharding
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import write_trajectories
from t3d.work.checkpoints import checkpoints

DRAFTER = preset_fields("drafter")


def left_to_right(model, tokens, block_size, mask_token_id):
    """The base's likeliest next token: closed blocks whole, its block's tokens causally, then a mask."""
    size = len(tokens) + 1
    start = len(tokens) // block_size * block_size
    sees = [
        [key <= query or (key < start and key // block_size <= query // block_size) for key in range(size)]
        for query in range(size)
    ]
    ids, positions = torch.tensor([[*tokens, mask_token_id]]), torch.arange(size)[None]
    with torch.no_grad():
        logits = block_forward(model, ids, positions, torch.tensor([sees]))[0, -1]
    logits[mask_token_id] = -torch.inf
    return int(logits.argmax())


def test_labels_are_the_bases_own_tokens_left_to_right(checkpoint, trajectories, tmp_path):
    run = trainer(checkpoint, trajectories, tmp_path, **DRAFTER)
    base = run.model.base
    for index in range(3):
        trajectory = trajectories[index]
        batch = run.data_collator([run.train_dataset[index]])
        checked = check_scores(base, batch, run.args, run.mask_token_id)
        tokens = [*trajectory.prompt_ids, *trajectory.response_ids]
        expected = [
            left_to_right(base, tokens[:position], run.args.block_size, run.mask_token_id)
            for position in batch["loss_position_ids"].tolist()
        ]
        assert checked.picked.tolist() == expected


def test_training_changes_the_adapter_and_not_a_bit_of_the_base(checkpoint, trajectories, tmp_path):
    run = trainer(checkpoint, trajectories, tmp_path, max_steps=3, **DRAFTER)
    before = copy.deepcopy(run.model.base.state_dict())
    run.train()
    after = run.model.base.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(name.endswith(("lora_A", "lora_B")) for name, _ in run.model.named_parameters())
    assert all(weight.abs().max() > 0 for weight in run.model.parameters())


def test_a_new_drafter_s_loss_is_the_bases_and_its_log_says_what_is_accepted(
    checkpoint, trajectories, tmp_path
):
    run = trainer(checkpoint, trajectories, tmp_path, max_steps=2, logging_steps=1, **DRAFTER)
    run.train()
    accepted, most = logged(run, "draft/accepted"), logged(run, "draft/acceptable")
    assert len(accepted) == 2 and all(0 <= a <= n <= 7 for a, n in zip(accepted, most, strict=True))
    (first, *_) = logged(run, "loss/total")
    parts = [logged(run, f"loss/{name}")[0] for name in ("prefix", "first_error")]
    assert first == pytest.approx(sum(parts))


@pytest.mark.parametrize("targets", ["tokens", pytest.param("distribution", marks=pytest.mark.slow)])
def test_it_learns_what_the_base_accepts(checkpoint, trajectories, tmp_path, targets):
    """On eight rollouts, by heart: an adapter of full rank of a model of 32 dimensions."""
    fields = DRAFTER | {"draft_targets": targets, "lora_rank": 32, "learning_rate": 0.01}
    run = trainer(checkpoint, trajectories, tmp_path, max_steps=40, per_device_train_batch_size=8, **fields)
    run.train()
    accepted = logged(run, "draft/accepted")
    assert sum(accepted[-5:]) > 1.5 * sum(accepted[:5])


def test_the_rollout_s_tokens_are_labels_without_a_forward_of_the_base(checkpoint, trajectories, tmp_path):
    run = trainer(checkpoint, trajectories, tmp_path, max_steps=1, **DRAFTER | {"draft_targets": "rollout"})
    batch = run.data_collator([run.train_dataset[index] for index in range(4)])
    assert "checks" not in batch
    scores = check_scores(run.model.base, batch, run.args, run.mask_token_id)
    assert torch.equal(scores.picked, batch["labels"])
    run.train()
    drafts = drafts_of(scores, batch)
    assert drafts.is_counted_M.all() and int(drafts.is_given_M.sum()) == batch["num_states"]


def test_a_draft_that_rides_takes_no_loss_at_its_first_mask(checkpoint, trajectories, tmp_path):
    """Its gradient does not depend on what is said there; where drafts are alone it does."""
    for rides in (True, False):
        run = trainer(checkpoint, trajectories, tmp_path, **DRAFTER | {"draft_rides": rides})
        batch = run.data_collator([run.train_dataset[index] for index in range(8)])
        counts = BatchCounts(*torch.tensor(count_batch(batch)).unbind())
        log_prob = torch.rand(1, len(batch["labels"]), dtype=torch.float64).sub(2).requires_grad_()
        scores = HeadScores(log_probs=log_prob, picked=batch["labels"])
        output = draft_objective(scores, HeadScores(picked=batch["labels"]), batch, counts, run.args)
        output.loss.backward()
        is_first = torch.ones(len(batch["labels"]), dtype=torch.bool)
        is_first[1:] = batch["loss_state"][1:] != batch["loss_state"][:-1]
        assert ((log_prob.grad[0] == 0) == (is_first & rides)).all()


def test_a_drafter_is_not_sharded():
    args = SimpleNamespace(objective="prefix_acceptance")
    for kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        with pytest.raises(InputError, match=f"distributed='{kind.value}': it would shard the drafter"):
            refuse_sharding(SimpleNamespace(distributed_type=kind), args)
    refuse_sharding(SimpleNamespace(distributed_type=DistributedType.MULTI_GPU), args)


def test_a_trained_mask_embedding_and_checkpointed_layers(checkpoint, trajectories, tmp_path):
    """The same weights, with and without recomputing the layers in the backward pass."""
    trained = []
    for recomputes in (False, True):
        loaded = load_model(checkpoint, device="cpu", dtype="float64")
        torch.manual_seed(0)
        adapter = add_gated_adapter(loaded.model.requires_grad_(False), 4, mask_token_id=loaded.mask_token_id)
        args = config(tmp_path, **DRAFTER | {"lora_rank": 4, "activation_checkpointing": recomputes})
        T3DTrainer(adapter, args, trajectories, processing_class=loaded.tokenizer).train()
        own = loaded.model.get_input_embeddings().weight[loaded.mask_token_id]
        assert (adapter.mask_embedding - own).abs().max() > 0
        trained.append(torch.cat([weight.detach().flatten() for weight in adapter.parameters()]))
    torch.testing.assert_close(*trained)


def distilled(checkpoint, trajectories, folder, **overrides):
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    args = config(
        folder / "checkpoints", **(DRAFTER | {"save_strategy": "steps", "save_steps": 2} | overrides)
    )
    return loaded, distil(loaded, trajectories, args, folder / "drafter")


def test_a_run_gives_a_folder_that_its_base_loads(checkpoint, trajectories, tmp_path):
    loaded, folder = distilled(checkpoint, trajectories, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "drafter.json",
        "training.json",
    ]
    assert json.loads((folder / "drafter.json").read_text())["base"]["weights"] == loaded.weights_hash
    assert attached(loaded.model) is None
    assert all(weight.requires_grad for weight in loaded.model.parameters())
    assert loaded.own_settings == load_model(checkpoint, device="cpu").own_settings
    adapter = load_drafter(loaded, folder)
    assert all(weight.abs().max() > 0 for weight in adapter.parameters())


def test_a_cut_run_continues_to_the_same_drafter_and_a_finished_one_is_kept(
    checkpoint, trajectories, tmp_path
):
    _, whole = distilled(checkpoint, trajectories, tmp_path / "whole")
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    args = config(tmp_path / "cut" / "checkpoints", **DRAFTER | {"save_strategy": "steps", "save_steps": 2})

    class Cut(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    class CutTrainer(T3DTrainer):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.add_callback(Cut())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "T3DTrainer", CutTrainer)
        with pytest.raises(KeyboardInterrupt):
            distil(loaded, trajectories, args, tmp_path / "cut" / "drafter")
    _, cut = distilled(checkpoint, trajectories, tmp_path / "cut")
    name = "adapter_model.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()
    written = (cut / name).stat().st_mtime_ns
    loaded, again = distilled(checkpoint, trajectories, tmp_path / "cut")
    assert again == cut and (cut / name).stat().st_mtime_ns == written
    assert attached(loaded.model) is None


def test_held_out_drafts_are_counted_by_task(checkpoint, trajectories, tmp_path):
    """As the collator's batch of all masked blocks says, in any batch size, trained or not."""
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    held_out = [dataclasses.replace(one, task="ab"[index % 2]) for index, one in enumerate(trajectories)]
    args = config(tmp_path, **DRAFTER)
    found = [draft_evaluator(loaded, held_out, args, size)(loaded.model) for size in (3, 8)]
    assert found[0] == pytest.approx(found[1])
    assert found[0].keys() == {
        "accepted_per_draft",
        "acceptable_per_draft",
        "whole_drafts",
        "a/accepted_per_draft",
        "b/accepted_per_draft",
    }
    run = trainer(
        checkpoint,
        held_out,
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=8,
        **DRAFTER | {"draft_open_prob": 0.0},
    )
    run.train()  # the first batch is of the same states, under a drafter that adds nothing yet
    assert logged(run, "draft/accepted") == pytest.approx([found[0]["accepted_per_draft"]])
    assert logged(run, "draft/acceptable") == pytest.approx([found[0]["acceptable_per_draft"]])
    assert logged(run, "draft/whole") == pytest.approx([found[0]["whole_drafts"]])


def test_the_best_checkpoint_is_the_one_whose_drafts_are_accepted_most(checkpoint, trajectories, tmp_path):
    """By the preset's own metric, whatever the other scores say."""
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    adapter = add_gated_adapter(loaded.model.requires_grad_(False), 2)
    scores = iter([3.0, 1.0, 2.0, 2.5])

    def score(student):
        accepted = next(scores)
        return {"accepted_per_draft": accepted, "acceptable_per_draft": 4.0, "whole_drafts": -accepted}

    fields = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    args = config(tmp_path, **DRAFTER | fields)
    run = T3DTrainer(adapter, args, trajectories, loaded.tokenizer, score)
    run.train()
    assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")
    assert run.state.best_metric == 3.0
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-3", "checkpoint-4"]


def test_models_and_objectives_that_do_not_go_together_are_refused(checkpoint, trajectories, tmp_path):
    loaded = load_model(checkpoint, device="cpu")
    with pytest.raises(InputError, match="add_gated_adapter"):
        T3DTrainer(loaded.model, config(tmp_path, **DRAFTER), trajectories, loaded.tokenizer)
    for fields, message in (
        ({"lora_rank": 0}, "lora_rank=0"),
        ({"state_source": "random_mask"}, "state_source"),
        ({"objective": "cross_entropy"}, "state_source"),
        ({"random_token_prob": 0.1}, "random_token_prob"),
        ({"draft_open_prob": 1.5}, "draft_open_prob"),
    ):
        with pytest.raises(InputError, match=message):
            config(tmp_path, **DRAFTER | fields)


def test_the_command_trains_a_drafter_of_a_mini_teacher(tmp_path, capsys):
    loaded = load_model("mini-small", device="cpu")
    problems = TASKS["chain"].problems("train", 8, 0)
    params = DecodeParams(block_size=8, steps_per_block=8, temperature=0.0, max_new_tokens=24)
    rollouts = tmp_path / "rollouts.parquet"
    write_trajectories(rollouts, roll_out(loaded, problems, params))
    command = ["train", "--preset", "drafter", "--model", "mini-small", "--device", "cpu"]
    command += ["--trajectories", str(rollouts), "--output", str(tmp_path / "run"), "--lora-rank", "2"]
    command += ["--num-optimizer-steps", "2", "--batch-size", "4", "--warmup-steps", "0"]
    for flags, message in (
        (["--tokens-per-step", "2"], "tokens_per_step=2"),
        (["--eval-tasks", "chain"], "eval_tasks"),
        (["--eval-every", "1"], "eval_trajectories"),
    ):
        assert message in run_failing([*command, *flags], capsys)
    command += ["--eval-every", "1", "--eval-trajectories", str(rollouts)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert f"drafter in {tmp_path / 'run' / 'drafter'}" in told
    assert "accepted per draft" in told and "chain/accepted per draft" in told
    assert load_drafter(loaded, tmp_path / "run" / "drafter").rank == 2


def test_a_student_s_command_has_no_held_out_rollouts(tmp_path, capsys):
    (file := tmp_path / "x.parquet").touch()
    command = ["train", "--model", "mini", "--trajectories", str(file), "--output", str(tmp_path / "run")]
    assert "a student drafts nothing" in run_failing([*command, "--eval-trajectories", "x.parquet"], capsys)


def test_a_mixture_s_drafter_acts_on_its_attention(make_moe_model, tiny_tokenizer, trajectories, tmp_path):
    ids = {name: getattr(tiny_tokenizer, name) for name in ("mask_token_id", "eos_token_id", "pad_token_id")}
    model = make_moe_model(dtype=torch.float32, vocab_size=len(tiny_tokenizer), **ids)
    model.save_pretrained(tmp_path / "mixture")
    tiny_tokenizer.save_pretrained(tmp_path / "mixture")
    fields = {"max_steps": 2, "draft_targets": "rollout"}  # of another model, so not what this one would say
    loaded, folder = distilled(tmp_path / "mixture", trajectories, tmp_path / "run", **fields)
    found = json.loads((folder / "adapter_config.json").read_text())
    assert found["target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert all(weight.abs().max() > 0 for weight in load_drafter(loaded, folder).parameters())

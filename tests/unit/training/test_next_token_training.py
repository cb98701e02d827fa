"""Drafters of bases that predict the next token are trained, scored, and nothing else is."""

import copy
from dataclasses import replace

import pytest
import torch
from model_fixtures import load_copy
from next_token_helpers import (
    continue_greedily,
    drafts_by_hand,
    group_logits,
    next_logits,
    predict_next,
)
from training_helpers import config, logged

from t3d.errors import InputError
from t3d.models.drafter import load_drafter
from t3d.models.gated import add_gated_adapter, attached
from t3d.training.drafts import lay_in_groups
from t3d.training.held_out_drafts import draft_evaluator
from t3d.training.presets import preset_fields
from t3d.training.run import distil
from t3d.training.scoring import check_scores
from t3d.training.selection import check_trajectories, select_trajectories
from t3d.training.states import TrajectoryDataset
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import Trajectory

DRAFTER = preset_fields("drafter")
PAD = 0


@pytest.fixture(scope="module")
def rollouts(checkpoint):
    """Greedy continuations of an autoregressive base, as its own rollouts are."""
    loaded = load_copy(checkpoint)
    model, mask = predict_next(loaded.model), loaded.mask_token_id
    found = []
    for number, length in enumerate((3, 5, 8, 6)):
        prompt = tuple(range(30 + number, 30 + number + length))
        response = tuple(continue_greedily(model, prompt, 10, mask))
        found.append(
            Trajectory(
                id=str(number),
                prompt_ids=prompt,
                response_ids=response,
                step_map=tuple(range(1, 11)),
                visible_length=10,
                finish_reason="length",
                block_size=1,
                mask_token_id=mask,
                decode_params={"block_size": 1, "remasking": "left_to_right"},
                task="ab"[number % 2],
            )
        )
    return found


def run_of(checkpoint, rollouts, folder, evaluator=None, **overrides):
    loaded = load_copy(checkpoint)
    model = predict_next(loaded.model).requires_grad_(False)
    args = config(folder, **DRAFTER | {"lora_rank": 16, "block_size": 4} | overrides)
    torch.manual_seed(0)
    adapter = add_gated_adapter(
        model, args.lora_rank, mask_token_id=loaded.mask_token_id if args.lora_mask_embedding else None
    )
    return T3DTrainer(adapter, args, rollouts, loaded.tokenizer, evaluator=evaluator)


def test_the_base_is_asked_at_the_tokens_themselves(checkpoint, rollouts, tmp_path):
    """Its likeliest next tokens, read causally: of a greedy rollout the labels."""
    run = run_of(checkpoint, rollouts, tmp_path, draft_targets="distribution")
    batch = run.data_collator([run.train_dataset[index] for index in range(4)])
    checked = check_scores(run.model.base, batch, run.args, run.mask_token_id)
    assert torch.equal(checked.picked, batch["labels"])
    head = run.model.base.get_output_embeddings().weight
    for example, place, hidden in zip(
        batch["loss_example"].tolist(), batch["loss_position_ids"].tolist(), checked.hidden, strict=True
    ):
        one = run.train_dataset[example]
        expected = next_logits(run.model.base, [*one.prompt_ids, *one.response_ids])[place]
        torch.testing.assert_close(hidden @ head.T, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "targets", ["distribution", "rollout", pytest.param("tokens", marks=pytest.mark.slow)]
)
def test_it_learns_and_leaves_the_base_alone(checkpoint, rollouts, tmp_path, targets):
    """The loss falls; what the base says at clean tokens is the same to the last bit."""
    run = run_of(
        checkpoint,
        rollouts,
        tmp_path,
        max_steps=20,
        learning_rate=0.01,
        draft_targets=targets,
        lora_mask_embedding=True,
    )
    base = run.model.base
    weights = copy.deepcopy(base.state_dict())
    tokens = [*rollouts[0].prompt_ids, *rollouts[0].response_ids]
    before = group_logits(base, tokens, 4, run.mask_token_id, gated=False)
    run.train()
    after = group_logits(base, tokens, 4, run.mask_token_id)
    assert torch.equal(before[: len(tokens)], after[: len(tokens)])
    assert not torch.equal(before[len(tokens) :], after[len(tokens) :])
    assert all(torch.equal(weights[name], weight) for name, weight in base.state_dict().items())
    losses = logged(run, "loss/total")
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
    assert base.config.block_size == 1 and base.config.predicts == "next"


def test_held_out_drafts_are_counted_as_by_hand(checkpoint, rollouts, tmp_path):
    """The drafter's likeliest tokens against the rollout's, group by group, whatever the seed."""
    loaded = load_copy(checkpoint)
    predict_next(loaded.model)
    mask = loaded.mask_token_id
    args = config(tmp_path, **DRAFTER | {"block_size": 4, "seed": 7})
    evaluate = draft_evaluator(loaded, rollouts, args, batch_size=3)
    assert (args.seed, args.draft_targets) == (7, "tokens")
    run = run_of(checkpoint, rollouts, tmp_path, max_steps=8, learning_rate=0.01)
    run.train()
    model = run.model.base.eval()
    counts = {"a": [], "b": []}
    dataset = TrajectoryDataset(rollouts, args)
    for index, trajectory in enumerate(rollouts):
        grid = lay_in_groups([dataset[index]], 4, PAD, 0)
        first = len(trajectory.prompt_ids) - int(grid.position_RKS[0, 0, 0])
        for group in drafts_by_hand(model, trajectory.prompt_ids, trajectory.response_ids, first, 4, mask):
            accepted = 0
            for _, label, logits in group:
                logits[mask] = -torch.inf
                if int(logits.argmax()) != label:
                    break
                accepted += 1
            counts[trajectory.task].append((accepted, len(group)))
    every = [*counts["a"], *counts["b"]]
    found = evaluate(model)
    assert 0 < sum(accepted for accepted, _ in every) < sum(most for _, most in every)
    assert found["accepted_per_draft"] == pytest.approx(mean(accepted for accepted, _ in every))
    assert found["acceptable_per_draft"] == pytest.approx(mean(most for _, most in every))
    assert found["whole_drafts"] == pytest.approx(mean(accepted == most for accepted, most in every))
    for task, own in counts.items():
        assert found[f"{task}/accepted_per_draft"] == pytest.approx(mean(accepted for accepted, _ in own))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_rollouts_of_single_tokens_fit_groups_of_any_size(checkpoint, rollouts, tmp_path):
    """And are left out where in some epoch a group has no room: its place depends on no epoch."""
    loaded = load_copy(checkpoint)
    model = predict_next(loaded.model)
    for size in (4, 8):
        check_trajectories(rollouts, loaded.tokenizer, size)
        end = max(len(one.prompt_ids) for one in rollouts) + 10
        for limit, number in ((end + size - 1, 0), (end + size - 2, 1)):
            args = config(tmp_path, **DRAFTER | {"block_size": size, "max_length": limit})
            selection = select_trajectories(rollouts, args, model.config)
            assert len(selection.too_long) == number
            collator = run_of(
                checkpoint, selection.kept, tmp_path, block_size=size, max_length=limit
            ).data_collator
            dataset = TrajectoryDataset(selection.kept, args)
            for epoch in range(8):
                dataset.set_epoch(epoch)
                assert collator([dataset[index] for index in range(len(dataset))])
    short = replace(rollouts[0], response_ids=(40,), step_map=(1,), visible_length=1)
    args = config(tmp_path, **DRAFTER)
    assert select_trajectories([short, *rollouts[1:]], args, model.config).empty == ("0",)


def test_rollouts_of_a_model_that_predicts_otherwise_are_refused(checkpoint, rollouts, tmp_path):
    """Both ways; blocks of one token would fit any, and teach nothing."""
    loaded = load_copy(checkpoint)
    args = config(tmp_path, **DRAFTER)
    for own, other in (("self", "next"), ("next", "self")):
        loaded.model.config.predicts = own
        ours, theirs = (replace(rollouts[0], decode_params={"predicts": told}) for told in (own, other))
        assert len(select_trajectories([ours, rollouts[1]], args, loaded.model.config).kept) == 2
        with pytest.raises(InputError, match=f"predicts='{other}': trajectory '0' is of such a model"):
            select_trajectories([rollouts[1], theirs], args, loaded.model.config)


def test_what_does_not_train_such_a_base_is_refused(checkpoint, rollouts, tmp_path):
    loaded = load_copy(checkpoint)
    model = predict_next(loaded.model)
    for preset in ("t3d", "redi", "sft"):
        args = config(tmp_path, **preset_fields(preset))
        with pytest.raises(
            InputError, match=r"model='SDARForCausalLM': predicts the next token.*t3d convert"
        ):
            T3DTrainer(model, args, rollouts, loaded.tokenizer)
    for field in ({"draft_open_prob": 0.7}, {"draft_rides": False}, {"grid_origin": "response"}):
        (name,) = field
        with pytest.raises(InputError, match=f"{name}=.*ignored: the model predicts the next token"):
            run_of(checkpoint, rollouts, tmp_path, **field)


def test_a_run_gives_a_drafter_of_its_base(checkpoint, rollouts, tmp_path):
    """From the command's function on, with scores of held-out drafts; the base is given back as it was."""
    loaded = load_copy(checkpoint)
    predict_next(loaded.model)
    args = config(
        tmp_path / "checkpoints",
        **DRAFTER | {"block_size": 8, "lora_rank": 2, "lora_mask_embedding": True, "max_steps": 2},
        eval_strategy="steps",
        eval_steps=1,
    )
    evaluate = draft_evaluator(loaded, rollouts, args)
    folder = distil(loaded, rollouts, args, tmp_path / "drafter", evaluator=evaluate)
    assert attached(loaded.model) is None
    adapter = load_drafter(loaded, folder)
    assert adapter.rank == 2 and adapter.mask_embedding is not None

"""Drafters of bases that predict the next token: states, labels, training, against forwards written out."""

import copy
from dataclasses import replace

import pytest
import torch
from grid_helpers import MASK, PAD, examples_of
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import exact, load_copy
from next_token_helpers import (
    add_random_adapter,
    continue_greedily,
    drafts_by_hand,
    group_logits,
    next_logits,
    predict_next,
)
from packing_helpers import assert_block_mask_is_dense
from training_helpers import config, logged

from t3d.attention import flex
from t3d.attention.packed_forward import arrange, packed_forward
from t3d.errors import InputError
from t3d.models.adopted import T3DLlamaConfig, T3DLlamaForCausalLM, T3DQwen2Config, T3DQwen2ForCausalLM
from t3d.models.gated import GATE, add_gated_adapter
from t3d.models.head import HeadScores
from t3d.training.drafts import draft_order, lay_in_groups, pack_reading
from t3d.training.held_out_drafts import draft_evaluator
from t3d.training.loss import drafts_of
from t3d.training.packing import pack_copies
from t3d.training.presets import preset_fields
from t3d.training.scoring import check_scores
from t3d.training.selection import check_trajectories, select_trajectories
from t3d.training.states import TrajectoryCollator, TrajectoryDataset
from t3d.training.trainer import T3DTrainer
from t3d.trajectory import Trajectory

DRAFTER = preset_fields("drafter")
LENGTHS = st.lists(st.tuples(st.integers(1, 13), st.integers(1, 13)), min_size=1, max_size=3)
SIZES = st.sampled_from([1, 2, 3, 4, 8])


def collator_of(folder, size, **overrides):
    args = config(folder, **DRAFTER | {"block_size": size, "draft_targets": "rollout"} | overrides)
    return TrajectoryCollator(
        config=args, pad_token_id=PAD, mask_token_id=MASK, vocab_size=40, predicts="next"
    )


def examples_with(lengths):
    """Some of which only a part takes loss, one of them surely with a draft."""
    return examples_of([(3, 6), *lengths])


def num_before(example, collator):
    """Prompt tokens in the first group."""
    args = collator.config
    grid = lay_in_groups([example], args.block_size, PAD, args.seed)
    return len(example.prompt_ids) - int(grid.position_RKS[0, 0, 0])


def by_hand(model, examples, collator):
    """(group, position, label, logits) of all loss positions."""
    groups = []
    for example in examples:
        response = example.response_ids
        found = drafts_by_hand(
            model,
            example.prompt_ids,
            response,
            num_before(example, collator),
            collator.config.block_size,
            MASK,
        )
        end = len(example.prompt_ids) + example.num_loss_tokens
        groups += [[one for one in group if one[0] + 1 < end] for group in found]
    groups = [group for group in groups if group]
    return [(number, *one) for number, group in enumerate(groups) for one in group]


@pytest.fixture(scope="module")
def bases(make_model):
    """Autoregressive models of three classes, with drafters."""
    sizes = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    sizes |= {"max_position_embeddings": 128, "initializer_range": 0.3, "mask_token_id": MASK}
    found = {"sdar": exact(make_model())}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, kind, settings in (
            ("llama", T3DLlamaForCausalLM, T3DLlamaConfig(**sizes)),
            ("qwen2", T3DQwen2ForCausalLM, T3DQwen2Config(**sizes)),
        ):
            found[name] = exact(kind(settings).double().eval())
    for model in found.values():
        add_random_adapter(predict_next(model), mask_token_id=MASK)
    return found


@settings(max_examples=20)
@given(
    LENGTHS,
    SIZES,
    st.integers(0, 9),
    st.sampled_from([None, 40]),
    st.sampled_from(["sdar", "llama", "qwen2"]),
)
def test_a_mask_sees_the_tokens_before_its_group_and_the_group(
    bases, tmp_path_factory, lengths, size, seed, max_length, kind
):
    """Prompts and responses of any length, groups from any token on, rows of any documents."""
    collator = collator_of(tmp_path_factory.getbasetemp(), size, seed=seed, max_length=max_length)
    examples = examples_with(lengths)
    batch = collator(examples)
    expected = by_hand(bases[kind], examples, collator)
    assert batch["loss_state"].tolist() == [group for group, *_ in expected]
    assert batch["loss_position_ids"].tolist() == [position for _, position, *_ in expected]
    assert batch["labels"].tolist() == [label for _, _, label, _ in expected]
    log_probs = torch.stack([logits.log_softmax(-1)[label] for *_, label, logits in expected])
    for attention in ("dense", "documents"):
        head = {"loss_positions": batch["loss_positions"], "targets": batch["labels"][None]}
        with torch.no_grad():
            scores = packed_forward(
                bases[kind], batch, arrange(batch, attention), **head, **{GATE: batch[GATE]}
            )
        torch.testing.assert_close(scores.log_probs[0], log_probs, atol=1e-9, rtol=1e-9)


@settings(max_examples=20)
@given(LENGTHS, st.sampled_from([2, 4, 8]), st.integers(0, 9))
def test_the_block_mask_keeps_groups_apart(lengths, size, seed):
    grid = lay_in_groups(examples_with(lengths), size, PAD, seed)
    masks = grid.valid_RKS | grid.is_open_RKS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "TILE", 8)
        further = draft_order(masks)
        loss_mask = grid.takes_loss_RKS
        for batch in (
            pack_copies(grid, grid.ids_RKS, loss_mask, row_multiple=8, further_EKS=further),
            pack_reading(grid, loss_mask, row_multiple=8),
        ):
            assert_block_mask_is_dense(batch, 8)


def test_every_response_token_but_the_first_is_a_label_once_in_every_epoch(tmp_path):
    """The first is what the base says at the prompt's end."""
    for lengths in ([(5, 9), (8, 4), (2, 13)], [(1, 2)]):
        for epoch in range(6):
            examples = [replace(example, epoch=epoch) for example in examples_of(lengths)]
            batch = collator_of(tmp_path, 4)(examples)
            for row, example in enumerate(examples):
                own = batch["loss_example"] == row
                first, end = len(example.prompt_ids), example.num_loss_tokens
                places = range(first, first + end - 1)
                assert batch["loss_position_ids"][own].tolist() == list(places)
                assert batch["labels"][own].tolist() == list(example.response_ids[1:end])
            is_gated = torch.zeros(batch["input_ids"].numel(), dtype=torch.bool)
            is_gated[batch[GATE]] = True
            assert torch.equal(is_gated, (batch["input_ids"].flatten() == MASK) & batch["is_noisy"].flatten())
            assert is_gated[batch["loss_positions"]].all()
            assert not drafts_of(HeadScores(picked=batch["labels"]), batch).is_given_M.any()


def test_groups_begin_at_every_token_over_the_epochs_and_again_on_resume(tmp_path):
    """And nowhere before the prompt; whatever else is in the batch."""
    long, short = examples_of([(9, 12), (2, 5)])
    starts = []
    for epoch in range(32):
        rows = [replace(example, epoch=epoch) for example in (long, short)]
        first = lay_in_groups(rows, 4, PAD, 0).position_RKS[:, 0, 0]
        assert torch.equal(first.flip(0), lay_in_groups(rows[::-1], 4, PAD, 0).position_RKS[:, 0, 0])
        assert 0 <= first[1] <= 2
        starts.append(int(first[0]))
    assert set(starts) == {6, 7, 8, 9}
    assert max(starts.count(start) for start in set(starts)) < 16


def test_a_group_behind_the_last_token_is_as_wide_as_any(tmp_path):
    """Also where the rollout's last block was whole: blocks of one token always are."""
    (example,) = examples_of([(4, 7)])
    grid = lay_in_groups([example], 4, PAD, 0)
    masks = grid.valid_RKS | grid.is_open_RKS
    assert masks[0, 1:].all() and grid.is_open_RKS.any() == bool((11 - int(grid.position_RKS[0, 0, 0])) % 4)


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


@pytest.mark.parametrize("targets", ["tokens", "distribution", "rollout"])
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
            collator = collator_of(tmp_path, size, max_length=limit)
            dataset = TrajectoryDataset(selection.kept, args)
            for epoch in range(8):
                dataset.set_epoch(epoch)
                assert collator([dataset[index] for index in range(len(dataset))])
    short = replace(rollouts[0], response_ids=(40,), step_map=(1,), visible_length=1)
    args = config(tmp_path, **DRAFTER)
    assert select_trajectories([short, *rollouts[1:]], args, model.config).empty == ("0",)


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

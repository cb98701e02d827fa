"""States of drafters of bases that predict the next token, against forwards written out."""

from dataclasses import replace

import pytest
import torch
from grid_helpers import MASK, PAD, examples_of
from hypothesis import given, settings
from hypothesis import strategies as st
from model_fixtures import exact
from next_token_helpers import (
    add_random_adapter,
    drafts_by_hand,
    predict_next,
)
from packing_helpers import assert_block_mask_is_dense
from training_helpers import config

from t3d.attention import flex
from t3d.attention.packed_forward import arrange, packed_forward
from t3d.models.adopted import T3DLlamaConfig, T3DLlamaForCausalLM, T3DQwen2Config, T3DQwen2ForCausalLM
from t3d.models.gated import GATE
from t3d.models.head import HeadScores
from t3d.training.drafts import draft_order, lay_in_groups, pack_reading
from t3d.training.loss import drafts_of
from t3d.training.packing import pack_copies
from t3d.training.presets import preset_fields
from t3d.training.states import TrajectoryCollator

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


@pytest.mark.many_inputs
@settings(max_examples=10)
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


@pytest.mark.many_inputs
@settings(max_examples=10)
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

"""State sources: what the collator makes of trajectories under the settings of each method."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.errors import InputError
from t3d.training.config import T3DConfig
from t3d.training.presets import PRESETS, preset_fields
from t3d.training.states import TrajectoryCollator, TrajectoryDataset
from t3d.trajectory import Trajectory

MASK, VOCAB = 39, 40
RANDOM = [name for name in PRESETS if PRESETS[name].get("state_source") == "random_mask"]
STATES = [
    "t3d",
    "paper",
    "released",
    "naive_td",
    "drafter",
    *RANDOM,
]  # the other presets draw these states too
PER_POSITION = ("labels", "is_masked", "mask_prob", "mask_ratio", "token_weight", "loss_position_ids")


def trajectory(row, prompt_length, num_blocks):
    """Whole blocks of four with a filler of up to two tokens; one token per step, each block from its end."""
    generator = torch.Generator().manual_seed(row)
    count = 4 * num_blocks - prompt_length % 4
    places = [index + prompt_length for index in range(count)]
    steps = [4 * (place // 4 - prompt_length // 4) + 4 - place % 4 for place in places]
    return Trajectory(
        id=f"t{row}",
        prompt_ids=tuple(range(1, prompt_length + 1)),
        response_ids=tuple(torch.randint(1, MASK, (count,), generator=generator).tolist()),
        step_map=tuple(steps),
        visible_length=max(1, count - row % 3),
        finish_reason="stop",
        block_size=4,
        mask_token_id=MASK,
    )


trajectories = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=4).map(
    lambda sizes: [(row, *pair) for row, pair in enumerate(sizes)]
)


def batch_of(fields, shapes, *, epoch=0, order=None, has_order=True):
    """The batch of these trajectories and what it is made of; without order, blocks are committed whole."""
    config = T3DConfig(output_dir="unused", use_cpu=True, dataloader_pin_memory=False, **fields)
    records = [trajectory(*shape) for shape in shapes]
    if not has_order:
        records = [replace(one, step_map=tuple(-(-step // 4) for step in one.step_map)) for one in records]
    dataset = TrajectoryDataset(records, config)
    dataset.set_epoch(epoch)
    collator = TrajectoryCollator(config=config, pad_token_id=0, mask_token_id=MASK, vocab_size=VOCAB)
    examples = [dataset[row] for row in (order or range(len(records)))]
    return collator(examples), examples


def by_copy(batch):
    """Everything about each noisy copy, under its sample's key and whether it is the first or second."""
    num_examples = len(batch["sample_key"])
    found = {}
    noisy_ids = batch["input_ids"].flatten()[batch["loss_positions"]]
    for copy in range(batch["num_copies"]):
        own = batch["loss_copy"] == copy
        key = batch["sample_key"][copy % num_examples].item(), copy // num_examples
        found[key] = [batch[name][own].tolist() for name in PER_POSITION] + [noisy_ids[own].tolist()]
    return found


@pytest.mark.many_inputs
@pytest.mark.parametrize("preset", STATES)
@settings(max_examples=6)
@given(trajectories, st.randoms(use_true_random=False))
def test_a_samples_state_is_the_same_in_every_batch(preset, shapes, random):
    """Alone, together and in another order: masks, probabilities, weights and the tokens shown."""
    fields = preset_fields(preset)
    together = by_copy(batch_of(fields, shapes)[0])
    order = list(range(len(shapes)))
    random.shuffle(order)
    assert by_copy(batch_of(fields, shapes, order=order)[0]) == together
    alone = {}
    for row in order:
        alone |= by_copy(batch_of(fields, shapes, order=[row])[0])
    assert alone == together


@pytest.mark.parametrize("preset", STATES)
@settings(max_examples=15)
@given(trajectories)
def test_loss_positions_belong_to_their_examples_and_labels_are_clean_tokens(preset, shapes):
    batch, examples = batch_of(preset_fields(preset), shapes)
    assert batch["num_copies"] == len(examples) * (2 if preset == "dparallel" else 1)
    assert torch.equal(batch["loss_example"], batch["loss_copy"] % len(examples))
    assert batch["sample_key"].tolist() == [example.sample_key for example in examples]
    for row, example in enumerate(examples):
        own = batch["loss_example"] == row
        index = batch["loss_position_ids"][own] - len(example.prompt_ids)
        assert ((index >= 0) & (index < example.num_loss_tokens)).all()
        assert batch["labels"][own].tolist() == [example.response_ids[at] for at in index.tolist()]
    expected = sum(example.num_loss_tokens for example in examples) * batch["num_copies"] // len(examples)
    assert batch["num_response_tokens"] == expected


@pytest.mark.many_inputs
@pytest.mark.parametrize("preset", RANDOM)
@settings(max_examples=15)
@given(trajectories, st.integers(0, 50))
def test_random_masks_ignore_the_order_of_commits(preset, shapes, epoch):
    """The same states of records whose blocks were committed whole, within the preset's probabilities."""
    batch, examples = batch_of(preset_fields(preset), shapes, epoch=epoch)
    other, _ = batch_of(preset_fields(preset), shapes, epoch=epoch, has_order=False)
    assert torch.equal(batch["input_ids"], other["input_ids"])
    assert torch.equal(batch["loss_positions"], other["loss_positions"])
    assert batch["is_masked"].all()
    low, high = PRESETS[preset]["mask_prob_range"]
    assert (batch["mask_prob"] >= min(low, 1 - high) - 1e-6).all()
    assert (batch["mask_prob"] <= max(high, 1 - low) + 1e-6).all()
    if PRESETS[preset]["random_token_prob"] == 0:
        assert (batch["input_ids"].flatten()[batch["loss_positions"]] == MASK).all()
    shown = (batch["input_ids"].flatten() == MASK).sum()
    assert shown <= sum(len(example.response_ids) for example in examples)


@given(trajectories, st.integers(0, 20))
def test_on_policy_states_are_those_at_which_a_step_began(shapes, epoch):
    """Of rollouts that commit a block in two steps: all of it is masked, or what the second committed."""
    fields = preset_fields("naive_td") | {
        "state_source": "on_policy",
        "mask_ratio_power": 0.0,
        "block_size": 4,
    }
    config = T3DConfig(output_dir="unused", use_cpu=True, dataloader_pin_memory=False, **fields)
    records = [trajectory(*shape) for shape in shapes]
    records = [replace(one, step_map=tuple(-(-step // 2) for step in one.step_map)) for one in records]
    dataset = TrajectoryDataset(records, config)
    dataset.set_epoch(epoch)
    examples = [dataset[row] for row in range(len(records))]
    collator = TrajectoryCollator(config=config, pad_token_id=0, mask_token_id=MASK, vocab_size=VOCAB)
    batch = collator(examples)
    assert batch["is_masked"].all() and (batch["mask_prob"] == 1).all()
    for row, record in enumerate(records):
        first = len(record.prompt_ids)
        places = batch["loss_position_ids"][batch["loss_example"] == row].tolist()
        masked = {place - first for place in places}
        for number in range(max(record.step_map) // 2):
            block = [at for at, step in enumerate(record.step_map) if (step - 1) // 2 == number]
            takes_loss = {at for at in block if at < record.visible_length}
            second = {at for at in takes_loss if record.step_map[at] == 2 * number + 2}
            assert masked & set(block) in (takes_loss, second)


@given(trajectories)
def test_dparallel_masks_every_response_token_in_exactly_one_of_its_two_states(shapes):
    batch, examples = batch_of(preset_fields("dparallel"), shapes)
    for row, example in enumerate(examples):
        own = batch["loss_example"] == row
        where = (batch["loss_position_ids"][own] - len(example.prompt_ids)).sort().values
        assert where.tolist() == list(range(example.num_loss_tokens))
    assert (batch["mask_prob"] == 0.5).all()
    assert len(batch["documents"]) == 2 * len(examples)


@given(trajectories)
def test_a_probability_of_one_masks_all_blocks_whole(shapes):
    """One-step prediction from all-masked blocks: every token is a loss position."""
    fields = preset_fields("redi") | {"mask_prob_range": (1.0, 1.0), "terminal_filler_loss": True}
    batch, examples = batch_of(fields, shapes)
    assert len(batch["labels"]) == sum(len(example.response_ids) for example in examples)
    assert (batch["mask_prob"] == 1).all() and (batch["mask_ratio"] == 1).all()


def test_sft_has_one_probability_per_response_and_dllm_rl_one_per_token():
    shapes = [(row, 4, 5) for row in range(40)]
    sdar, _ = batch_of(preset_fields("sft"), shapes)
    per_token, _ = batch_of(preset_fields("sft_dllm_rl"), shapes)
    for row in range(len(shapes)):
        assert len(sdar["mask_prob"][sdar["loss_example"] == row].unique()) <= 1
        of_row = per_token["mask_prob"][per_token["loss_example"] == row]
        assert len(of_row.unique()) == len(of_row)
    assert 0.4 < sdar["is_masked"].sum() / sdar["num_response_tokens"] < 0.6
    assert 0.4 < per_token["is_masked"].sum() / per_token["num_response_tokens"] < 0.6


def test_noise_is_fresh_each_epoch_but_a_start_state_stays():
    """Where a token is masked in two epochs, redi_random_start shows the same mask or random token."""
    shapes = [(row, 3, 4) for row in range(10)]
    shown = []
    for epoch in range(2):
        batch, _ = batch_of(preset_fields("redi_random_start"), shapes, epoch=epoch)
        tokens = batch["input_ids"].flatten()[batch["loss_positions"]].tolist()
        places = zip(batch["loss_example"].tolist(), batch["loss_position_ids"].tolist(), strict=True)
        shown.append(dict(zip(places, tokens, strict=True)))
    both = shown[0].keys() & shown[1].keys()
    assert shown[0].keys() != shown[1].keys() and len(both) > 20
    assert all(shown[0][place] == shown[1][place] for place in both)
    assert len({shown[0][place] for place in both}) > 5


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"state_scope": "token"}, "state_scope"),
        ({"complementary_states": True}, "complementary_states"),
        ({"loss_weighting": "inverse_mask_prob"}, "loss_weighting"),
        ({"mask_prob_range": (0.5, 0.4)}, "mask_prob_range"),
        ({"mask_prob_range": (0.0, 1.0)}, "mask_prob_range"),
        ({"mask_prob_range": (0.5, 1.1)}, "mask_prob_range"),
        ({"entropy_temperature": 0.0}, "entropy_temperature"),
        ({"entropy_weight": -1.0}, "entropy_weight"),
    ],
)
def test_settings_that_make_no_sense_are_named(fields, field):
    with pytest.raises(InputError, match=field):
        T3DConfig(output_dir="unused", use_cpu=True, dataloader_pin_memory=False, **fields)


@pytest.mark.parametrize("block_size", [4, 8])
@pytest.mark.parametrize("prompt_length", [5, 6, 7, 8])
def test_a_response_cut_after_its_stop_is_learnt_to_the_stop(block_size, prompt_length):
    """As from the whole record with its filler still masked: same states and targets, with the stop."""
    config = T3DConfig(
        output_dir="unused", use_cpu=True, block_size=block_size, mask_ratios=(1.0,), random_token_prob=0.0
    )
    whole = trajectory(0, prompt_length, 5 if block_size == 4 else 4 + (prompt_length < 8))
    length = len(whole.response_ids) - 2
    whole = replace(whole, visible_length=length, response_ids=(*whole.response_ids[:-2], 1, 2))
    cut = replace(
        whole,
        response_ids=whole.response_ids[:length],
        step_map=whole.step_map[:length],
        terminal_complete=False,
    )
    collator = TrajectoryCollator(config=config, pad_token_id=0, mask_token_id=MASK, vocab_size=VOCAB)
    batches = [collator([TrajectoryDataset([one], config)[0]]) for one in (whole, cut)]
    for name in ("input_ids", "position_ids", "document_ids", "labels", "loss_positions"):
        assert torch.equal(batches[0][name], batches[1][name]), name
    assert batches[1]["labels"][-1] == whole.response_ids[length - 1]
    assert len(batches[1]["labels"]) == length


@pytest.mark.parametrize("preset", STATES)
@pytest.mark.parametrize("epoch", [0, 1])
def test_tokens_that_were_cut_off_are_masks_in_every_state_and_never_targets(preset, epoch):
    whole = trajectory(0, 6, 5)
    length = len(whole.response_ids) - 3
    cut = replace(
        whole,
        response_ids=whole.response_ids[:length],
        step_map=whole.step_map[:length],
        visible_length=length,
        terminal_complete=False,
    )
    config = T3DConfig(output_dir="unused", use_cpu=True, **preset_fields(preset))
    dataset = TrajectoryDataset([cut], config)
    dataset.set_epoch(epoch)
    collator = TrajectoryCollator(config=config, pad_token_id=0, mask_token_id=MASK, vocab_size=VOCAB)
    batch = collator([dataset[0]])
    end = len(cut.prompt_ids) + len(cut.response_ids)
    is_open = batch["is_noisy"] & (batch["position_ids"] >= end) & (batch["document_ids"] >= 0)
    assert is_open.sum() >= 1
    assert (batch["input_ids"][is_open] == MASK).all()
    assert (batch["loss_position_ids"] < end).all()


@pytest.mark.parametrize(("pad", "stop_counts"), [(None, True), (7, True), (9, False)])
def test_the_released_path_term_weighs_the_stop_token_unless_it_is_the_pad(pad, stop_counts):
    """The authors leave out labels that are ``pad_token_id`` (<|endoftext|>), not the stop <|im_end|>.

    Blocks of 8 from the response, k = 4: the mean over two levels of the mean of the first 4 and of all
    commits, here of ten answer tokens in blocks of 8 and 2, the last one the stop, and two of filler.
    """
    steps = (4, 3, 2, 1, 8, 7, 6, 5, 9, 10, 11, 12)
    whole = Trajectory(
        id="a",
        prompt_ids=(1, 2, 3, 4),
        response_ids=(11, 12, 13, 14, 15, 16, 17, 18, 19, 9, 7, 7),
        step_map=steps,
        visible_length=10,
        finish_reason="stop",
        block_size=4,
        mask_token_id=MASK,
    )
    config = T3DConfig(output_dir="unused", use_cpu=True, **preset_fields("released"))
    found = TrajectoryDataset([whole], config, pad)[0].token_weight
    counted = [token != pad for token in whole.response_ids[:10]] + [False, False]
    local = (4, 3, 2, 1, 8, 7, 6, 5, 1, 2, 3, 4)
    levels = [[at for at in range(12) if counted[at] and local[at] <= 4 * level] for level in (1, 2)]
    expected = [sum((at in level) / len(level) for level in levels) / 2 for at in range(12)]
    assert found == pytest.approx(expected)
    assert (found[9] > 0) == stop_counts and found[10] == found[11] == 0


@given(trajectories)
def test_states_are_numbered_block_by_block(shapes):
    """The sigma of Eq. 7 is over one block's masked tokens: all of them share a number, and no others."""
    batch, _ = batch_of(preset_fields("paper"), shapes)
    blocks = list(zip(batch["loss_copy"].tolist(), (batch["loss_position_ids"] // 8).tolist(), strict=True))
    assert len(set(blocks)) == len(set(zip(blocks, batch["loss_state"].tolist(), strict=True)))
    assert sorted(set(batch["loss_state"].tolist())) == list(range(batch["num_states"]))

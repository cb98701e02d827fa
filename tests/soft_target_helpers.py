"""Soft targets in tests: a training step of some texts, and what a model says of their masks, written out."""

from collections import defaultdict

import torch

from t3d.attention.forward import block_forward
from t3d.attention.masks import block_causal_mask
from t3d.trajectory import Trajectory

SIZE = 4
"""Of the blocks of :func:`rollout`."""


def losses(run, indices, size=None):
    """Loss, gradient and metrics of an accumulated batch, in micro-batches of ``size`` texts."""
    size = size or len(indices)
    chunks = [indices[first : first + size] for first in range(0, len(indices), size)]
    batches = [run.data_collator([run.train_dataset[index] for index in chunk]) for chunk in chunks]
    counts = run._get_num_items_in_batch(batches, torch.device("cpu"))
    run.model.zero_grad()
    if run.args.gradient_checkpointing:  # as Trainer.train does
        run.model.activation_checkpointing_enable({"use_reentrant": False})
    loss = sum(run.training_step(run.model, batch, counts).item() for batch in batches)
    return loss, gradient(run.model), batches


def gradient(model):
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.cat([weight.grad.flatten() for weight in trained]).clone()


def masked_logits(model, record, masked, size, origin):
    """Of every masked position: one forward for each block, behind the clean blocks before it."""
    tokens, num_prompt = [*record.prompt_ids, *record.response_ids], len(record.prompt_ids)
    mask, found = record.mask_token_id, {}
    shift = -num_prompt % size if origin == "response" else 0
    end = (len(tokens) + shift + size - 1) // size * size - shift
    if not record.terminal_complete:  # what followed in the last block nobody knows
        tokens += [mask] * (end - len(tokens))
    for first in range(-shift, end, size):
        places = torch.arange(min(first + size, len(tokens)))
        seen = [mask if place in masked and place >= first else tokens[place] for place in places.tolist()]
        if not masked & set(range(first, first + size)):
            continue
        real = torch.ones(1, len(places), dtype=torch.bool)
        shifted = places[None] + shift
        sees = block_causal_mask(shifted, shifted, real, size)
        logits = block_forward(model, torch.tensor([seen]), places[None], sees)[0]
        found |= {place: logits[place] for place in masked & set(range(max(first, 0), first + size))}
    return found


def checked_logits(model, record, position, size, origin):
    """Of one mask behind all tokens before it: closed blocks read whole, its own token by token."""
    tokens = [*record.prompt_ids, *record.response_ids]
    shift = -len(record.prompt_ids) % size if origin == "response" else 0
    block = [(place + shift) // size for place in range(position + 1)]
    sees = [
        [block[key] <= block[query] if block[query] < block[position] else key <= query for key in places]
        for places in [range(position + 1)]
        for query in places
    ]
    ids = torch.tensor([[*tokens[:position], record.mask_token_id]])
    return block_forward(model, ids, torch.arange(position + 1)[None], torch.tensor([sees]))[0, -1]


def rollout(index, prompt, response, visible, mask, num_steps=2):
    """Random letters; each block in two steps, or every token of it in a step of its own."""
    generator = torch.Generator().manual_seed(index)
    ids = torch.randint(1, 200, (prompt + response,), generator=generator).tolist()
    places = range(prompt, prompt + response)
    local = [place * 7 % 5 > 2 if num_steps == 2 else place * 3 % SIZE for place in places]
    return Trajectory(
        id=str(index),
        prompt_ids=tuple(ids[:prompt]),
        response_ids=tuple(ids[prompt:]),
        step_map=tuple(
            num_steps * (place // SIZE - prompt // SIZE) + 1 + rank
            for place, rank in zip(places, local, strict=True)
        ),
        visible_length=visible,
        finish_reason="length",
        block_size=SIZE,
        mask_token_id=mask,
        decode_params={"remasking": "low_confidence_static", "steps_per_block": num_steps},
    )


def divergence(log_p, log_q, args):
    """One entry after the other: of the teacher's p and the student's q, in the direction of the settings."""
    if args.soft_target_top_k is not None:
        kept = sorted(range(len(log_p)), key=lambda v: -log_p[v].item())[: args.soft_target_top_k]
        rest = [v for v in range(len(log_p)) if v not in kept]
        log_p, log_q = (
            [*(values[v] for v in kept), sum(values[v].exp() for v in rest).log()]
            for values in (log_p, log_q)
        )
    pairs = list(zip(log_p, log_q, strict=True))
    if args.soft_target_direction == "reverse":
        return sum(q.exp() * (q - p) for p, q in pairs)
    return sum(p.exp() * (p - q) for p, q in pairs)


def still_masked(record, masked, ratios, args):
    """Of masked places those that a later state masks, block by block; ``ratios``: of each place's block."""
    steps = dict(enumerate(record.step_map, len(record.prompt_ids)))
    kept = set()
    for block in {place // SIZE for place in masked}:
        places = [place for place in masked if place // SIZE == block]
        behind = 1 + min(steps[place] for place in places)
        lower = [ratio for ratio in args.mask_ratios if ratio < ratios[places[0]]]
        if args.state_source == "trajectory" and lower:
            of_block = sorted(step for place, step in steps.items() if place // SIZE == block)
            behind = max(behind, of_block[-max(1, int(len(of_block) * max(lower)))])
        kept |= {place for place in places if steps[place] >= behind}
    return kept


def written_out(model, told, run, batch):
    """(loss, how many positions are soft), position by position."""
    args, masked, ratios = run.args, defaultdict(set), defaultdict(dict)
    of_positions = ("loss_copy", "loss_position_ids", "mask_ratio")
    for copy, place, ratio in zip(*(batch[name].tolist() for name in of_positions), strict=True):
        masked[copy].add(place)
        ratios[copy][place] = ratio
    total, num_soft = 0.0, 0
    for copy, places in masked.items():
        record = run.train_dataset.trajectories[copy]
        tokens, end = (
            [*record.prompt_ids, *record.response_ids],
            len(record.prompt_ids) + record.visible_length,
        )
        filler = set(range(end, len(tokens)))  # is masked with the last block, and takes no loss
        state = places | {place for place in filler if any(place // SIZE == one // SIZE for one in places)}
        said = masked_logits(model, record, state, SIZE, args.grid_origin)
        asked = state
        if args.soft_target_context == "later_state":
            asked = still_masked(record, state, ratios[copy], args)
        taught = masked_logits(told, record, asked, SIZE, args.grid_origin)
        for place in sorted(places):
            log_q = said[place].log_softmax(-1)
            if args.soft_target_context == "before":
                taught[place] = checked_logits(told, record, place, SIZE, args.grid_origin)
            if place not in taught:  # shown in the later state
                total = total - log_q[tokens[place]]
                continue
            log_p = taught[place].log_softmax(-1).detach()
            own, below = log_p[tokens[place]].exp().item(), args.soft_target_below
            is_soft = own < below or below == 1
            share, num_soft = args.soft_target_weight * is_soft, num_soft + is_soft
            soft = divergence(log_p, log_q, args)
            total = total - (1 - share) * log_q[tokens[place]] + share * soft
    return total / len(batch["labels"]), num_soft

"""Soft targets in tests: a training step of some texts, and what a model says of their masks, written out."""

import torch

from t3d.attention.forward import block_forward
from t3d.attention.masks import block_causal_mask


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
    return torch.cat([weight.grad.flatten() for weight in model.parameters()]).clone()


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

"""Autoregressive bases in tests: tiny models whose logits are about the token behind each, written out."""

import torch

from t3d.attention.forward import block_forward
from t3d.models.gated import add_gated_adapter


def predict_next(model):
    """The same weights, as those of a model that predicts the next token."""
    model.config.predicts, model.config.block_size = "next", 1
    return model


def add_random_adapter(model, **options):
    """An adapter that changes what masks say, as a trained one does."""
    adapter = add_gated_adapter(model.requires_grad_(False), 4, **options)
    generator = torch.Generator().manual_seed(1)
    for weight in adapter.parameters():
        weight.data += torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight) / 4
    return adapter


def next_logits(model, tokens):
    """Logits of every token of a text, read causally."""
    size = len(tokens)
    causal = torch.ones(size, size, dtype=torch.bool).tril()[None]
    with torch.no_grad():
        return block_forward(model, torch.tensor([tokens]), torch.arange(size)[None], causal)[0]


def group_logits(model, tokens, num_masks, mask_token_id, *, gated=True):
    """Logits of committed tokens, read causally, and of masks behind them, which see all and each other."""
    ids = torch.tensor([[*tokens, *[mask_token_id] * num_masks]])
    place = torch.arange(ids.shape[1])
    sees = (place <= place[:, None]) | (place[:, None] >= len(tokens))
    gate = {"gated_positions": place[len(tokens) :]} if gated else {}
    with torch.no_grad():
        return block_forward(model, ids, place[None], sees[None], **gate)[0]


def drafts_by_hand(model, prompt, response, num_before, size, mask_token_id):
    """Of each group with masks that take loss: [(position, label, logits)]; one forward for every group."""
    tokens, found = [*prompt, *response], []
    for start in range(len(prompt) - num_before, len(tokens), size):
        first, end = max(start, len(prompt)), start + size
        logits = group_logits(model, tokens[:first], end - first, mask_token_id)
        masks = range(first, min(end, len(tokens) - 1))
        found.append([(position, tokens[position + 1], logits[position]) for position in masks])
    return [group for group in found if group]


def continue_greedily(model, prompt, num_tokens, mask_token_id):
    """The likeliest next token, again and again; never the mask."""
    tokens = list(prompt)
    for _ in range(num_tokens):
        logits = next_logits(model, tokens)[-1]
        logits[mask_token_id] = -torch.inf
        tokens.append(int(logits.argmax()))
    return tokens[len(prompt) :]

"""What one denoising step commits, with its exact probability, under the decoder's own rule.

R states and draws, S positions, A masked positions of the active block.
"""

from itertools import combinations
from math import comb

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from t3d.decoding.params import DecodeParams
from t3d.decoding.transfer import transfer_mask
from t3d.errors import InputError
from t3d.theory.exact.tables import MaskSet, TableModel, Tables, product_of, sum_over


def check_strategy(params: DecodeParams, length: int) -> None:
    """Raise :class:`InputError` unless a step's choice is a function of the state alone, and enumerable."""
    size, steps = params.block_size, params.steps_per_block
    for field, holds, problem, fix in (
        ("block_size", length % size == 0, f"does not divide the length {length}", "use a divisor"),
        ("steps_per_block", size % steps == 0, f"does not divide block_size={size}", "use a divisor"),
        ("remasking", not params.is_left_to_right, "draws behind its own draft", "use 'sequential'"),
        ("top_k", params.top_k == 0, "filters what is drawn", "use 0"),
        ("top_p", params.top_p == 1, "filters what is drawn", "use 1"),
    ):
        if not holds:
            raise InputError(field, getattr(params, field), problem, fix)


def commits(model: TableModel, masked: MaskSet, params: DecodeParams) -> Tables:
    """The probability that a step at a state commits exactly this set of positions with these tokens.

    By set of positions committed; axes V long where a token is visible or committed. Sets that no state of
    the mask set commits are left out. Tokens are drawn at every masked position of the first unfinished block
    and looked at together, so unless the order is fixed or random, what is committed depends on all draws,
    and the tokens of a step are not independent, whatever Eq. 2 says.
    """
    block = min(masked) // params.block_size
    active = [i for i in sorted(masked) if i // params.block_size == block]
    planned = min(len(active), params.block_size // params.steps_per_block)
    probs = {i: table for i, table in model.token_probs(masked).items() if i in active}
    drawn = {i: tempered(table, params.temperature, axis=i) for i, table in probs.items()}
    if params.remasking == "random":
        sets, share = combinations(active, planned), 1 / comb(len(active), planned)
        return {frozenset(chosen): share * product_of(drawn[i] for i in chosen) for chosen in sets}
    if params.remasking == "sequential":
        return {frozenset(active[:planned]): product_of(drawn[i] for i in active[:planned])}
    return _commits_by_confidence(probs, drawn, planned, params)


def tempered(table: Float[Tensor, "..."], temperature: float, *, axis: int) -> Float[Tensor, "..."]:
    """Probabilities of what is drawn at a temperature; at 0 the likeliest token, the first of equals."""
    if temperature == 0:
        first = table.argmax(axis, keepdim=True)
        return torch.zeros_like(table).scatter(axis, first, 1.0)
    if temperature == 1:
        return table
    return (table.log() / temperature).softmax(axis)


def _commits_by_confidence(
    probs: dict[int, Tensor], drawn: dict[int, Tensor], planned: int, params: DecodeParams
) -> Tables:
    """Draw all active positions, ask the rule which to take, and sum over those it leaves masked."""
    active = sorted(probs)
    draw = product_of(drawn.values())
    seen = probs if params.confidence == "model" else drawn
    confidence_SR = torch.stack([seen[i].expand(draw.shape).reshape(-1) for i in active])
    entropy_SR = torch.stack(
        [
            torch.special.entr(table).sum(i, keepdim=True).expand(draw.shape).reshape(-1)
            for i, table in probs.items()
        ]
    )
    chosen_RS = _chosen(confidence_SR.T, entropy_SR.T, planned, params)
    found = {}
    for size in range(planned, len(active) + 1):
        for columns in combinations(range(len(active)), size):
            wanted_S = torch.zeros(len(active), dtype=torch.bool)
            wanted_S[list(columns)] = True
            is_set = (chosen_RS == wanted_S).all(-1).reshape(draw.shape)
            if is_set.any():
                committed = frozenset(active[column] for column in columns)
                found[committed] = sum_over(draw * is_set, set(active) - committed)
    return found


def _chosen(
    confidence_RS: Float[Tensor, "R S"], entropy_RS: Float[Tensor, "R S"], planned: int, params: DecodeParams
) -> Bool[Tensor, "R S"]:
    return transfer_mask(
        confidence_RS,
        torch.ones_like(confidence_RS, dtype=torch.bool),
        torch.full((len(confidence_RS),), planned),
        params,
        entropy_RS=entropy_RS,
    )

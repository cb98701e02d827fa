"""Models that are tables: the probability of every token at every masked position of every state.

V vocabulary, L length. A *mask set* says which positions of a state are masked. A function of the states of
one mask set is a tensor with an axis for each position: V long where the token is visible, 1 where it is
masked; what is drawn at a masked position makes its axis V long. Such tensors multiply by broadcasting.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from t3d.errors import InputError

MaskSet = frozenset[int]
"""Positions of a state that are masked."""
Tables = dict[MaskSet, Tensor]
"""A function of states, by mask set."""
MAX_VOCAB, MAX_LENGTH = 4, 8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TableModel:
    """p(x^i = v | x_t) for every state, position and token; float64."""

    table: Float[Tensor, "..."]
    """Axes: one of V + 1 for each position (V is the mask), then position, then token. Only the rows of
    masked positions mean anything; where no trajectory goes they may be anything that adds up to 1."""

    def __post_init__(self) -> None:
        *states, length, vocab = self.table.shape
        has_shape = len(states) == length and set(states) <= {vocab + 1}
        is_small = 2 <= vocab <= MAX_VOCAB and 1 <= length <= MAX_LENGTH
        fix = f"give [V + 1] * L + [L, V], V from 2 to {MAX_VOCAB}, L to {MAX_LENGTH}"
        if not (has_shape and is_small):
            raise InputError("table", tuple(self.table.shape), "not the table of an enumerable model", fix)
        if self.table.dtype != torch.float64:
            raise InputError("table", self.table.dtype, "not float64", "convert it with .double()")
        if self.table.min() < 0 or not torch.allclose(
            self.table.sum(-1), torch.ones((), dtype=torch.float64)
        ):
            raise InputError("table", "...", "rows that are no distributions", "normalise the last axis")

    @property
    def length(self) -> int:
        """Positions of a sequence."""
        return self.table.shape[-2]

    @property
    def vocab_size(self) -> int:
        """Tokens, the mask not counted."""
        return self.table.shape[-1]

    def token_probs(self, masked: MaskSet) -> dict[int, Float[Tensor, "..."]]:
        """p(x^i = v | x_t) for each masked i and all states of the mask set, v on axis i."""
        mask = self.vocab_size
        view = self.table[
            tuple(slice(mask, mask + 1) if i in masked else slice(0, mask) for i in range(self.length))
        ]
        return {i: view[..., i, :].transpose(i, -1).squeeze(-1) for i in sorted(masked)}

    def one_shot(self, masked: MaskSet) -> Float[Tensor, "..."]:
        """Eq. 2: all masked tokens at once, independently: the product of their probabilities."""
        return product_of(self.token_probs(masked).values())


def mask_sets(length: int, num_masked: int | None = None) -> list[MaskSet]:
    """Every mask set, or every one of that many masks; smaller ones first."""
    every = [frozenset(i for i in range(length) if bits >> i & 1) for bits in range(2**length)]
    chosen = [masked for masked in every if num_masked is None or len(masked) == num_masked]
    return sorted(chosen, key=lambda masked: (len(masked), sorted(masked)))


def sum_over(table: Float[Tensor, "..."], positions: Iterable[int]) -> Float[Tensor, "..."]:
    """Sum over the axes of these positions, which stay with length 1."""
    axes = tuple(sorted(positions))
    return table.sum(axes, keepdim=True) if axes else table


def product_of(tables: Iterable[Float[Tensor, "..."]]) -> Float[Tensor, "..."]:
    """The product of functions of states; of none, 1."""
    return reduce(torch.mul, tables, torch.ones((), dtype=torch.float64))


def random_model(
    vocab_size: int, length: int, *, block_size: int, scale: float, generator: torch.Generator
) -> TableModel:
    """A block-diffusion model without structure: every conditional is the softmax of its own normal logits.

    A token's probabilities depend on its block and those before it, on nothing behind. ``scale``: standard
    deviation of the logits; the larger, the surer the model.
    """
    rows = []
    for position in range(length):
        end = min(length, (position // block_size + 1) * block_size)
        shape = [vocab_size + 1] * end + [1] * (length - end) + [vocab_size]
        logits = scale * torch.randn(shape, dtype=torch.float64, generator=generator)
        rows.append(logits.softmax(-1).expand([vocab_size + 1] * length + [vocab_size]))
    return TableModel(table=torch.stack(rows, -2).clone())


def model_of(posteriors: Tables, otherwise: TableModel) -> TableModel:
    """The factorised optimum of forward KL: at each state, the marginals of its posterior over x_0.

    ``posteriors``: p(x_0 | x_t), as :meth:`~t3d.theory.exact.chain.Chain.posteriors` gives them. States that
    it lacks, or where it is not a number, keep the predictions of the other model.
    """
    table, mask = otherwise.table.clone(), otherwise.vocab_size
    for masked, posterior in posteriors.items():
        place = tuple(
            slice(mask, mask + 1) if i in masked else slice(0, mask) for i in range(otherwise.length)
        )
        for position, probs in token_marginals(posterior, masked).items():
            row = probs.unsqueeze(-1).transpose(position, -1)
            known = table[place][..., position, :]
            table[place][..., position, :] = torch.where(row.isnan(), known, row)
    return TableModel(table=table)


def token_marginals(posterior: Float[Tensor, "..."], masked: MaskSet) -> dict[int, Float[Tensor, "..."]]:
    """p(x_0^i | x_t) for each masked i, of a distribution over the masked tokens."""
    return {i: sum_over(posterior, masked - {i}) for i in sorted(masked)}


def product_of_marginals(posterior: Float[Tensor, "..."], masked: MaskSet) -> Float[Tensor, "..."]:
    """The product of p(x_0^i | x_t) over the masked i: the factorised distribution nearest in forward KL."""
    return product_of(token_marginals(posterior, masked).values())


def exact_posteriors(clean: Float[Tensor, "..."]) -> Tables:
    """p(x_0 | visible tokens) of a distribution over clean sequences, NaN where nothing agrees with them.

    Also the conditional of J_phi(x_0, x_t) = p(x_0) q(x_t | x_0) (Eq. 13), whatever the noise level.
    """
    return {masked: clean / sum_over(clean, masked) for masked in mask_sets(clean.dim())}

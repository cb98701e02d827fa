"""Divergences, total correlation and risk of exact distributions, in nats.

Tables as in :mod:`t3d.theory.exact.tables`. What is averaged over states leaves out those of probability 0.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from t3d.theory.exact.chain import Chain
from t3d.theory.exact.tables import MaskSet, Tables, product_of_marginals, sum_over

Direction = Literal["forward", "reverse"]
"""``forward``: D(P || Q) = KL(P || Q); ``reverse``: D(P || Q) = KL(Q || P)."""


def kl_terms(p: Float[Tensor, "..."], q: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """p log(p / q): 0 where p is 0, infinite where only q is."""
    return torch.special.xlogy(p, p) - torch.special.xlogy(p, q)


def divergence(
    p: Float[Tensor, "..."], q: Float[Tensor, "..."], masked: MaskSet, direction: Direction = "forward"
) -> Float[Tensor, "..."]:
    """D(p || q) of distributions over the masked tokens, at each state of the mask set."""
    of, against = (p, q) if direction == "forward" else (q, p)
    return sum_over(kl_terms(of, against), masked)


def divergence_of_joints(p: Tables, q: Tables, direction: Direction = "forward") -> float:
    """D(P || Q) of joints over (x_0, x_t), or of marginals of x_t; a missing mask set has no mass."""
    of, against = (p, q) if direction == "forward" else (q, p)
    nothing = torch.zeros((), dtype=torch.float64)
    return sum(float(kl_terms(table, against.get(masked, nothing)).sum()) for masked, table in of.items())


def average(weights: Tables, values: Mapping[MaskSet, Float[Tensor, "..."]]) -> float:
    """E of a function of the state under p(x_t)."""
    total = 0.0
    for masked, weight in weights.items():
        value = values[masked].expand_as(weight)
        total += float((weight * value.masked_fill(weight == 0, 0.0)).sum())
    return total


def risk(marginal: Tables, teacher: Tables, student: Tables, direction: Direction = "forward") -> float:
    """R_t (Eq. 19): E over p_phi(x_t) of D(p_phi(x_0 | x_t) || p_theta(x_0 | x_t))."""
    return average(
        marginal,
        {masked: divergence(teacher[masked], student[masked], masked, direction) for masked in marginal},
    )


def factorisation_error(marginal: Tables, posteriors: Tables) -> float:
    """TC(x_0 | x_t) (Def. 4.4, s = 0): forward risk of the product of the posterior's own marginals.

    No factorised student has a lower one, so it is the least forward risk at that t.
    """
    products = {masked: product_of_marginals(posteriors[masked], masked) for masked in marginal}
    return risk(marginal, posteriors, products)


def total_correlation(chain: Chain, *, s: int, t: int) -> float:
    """TC(x_s | x_t) (Def. 4.4) for 0 <= s < t <= T, masks being values of x_s like any token.

    The sum of the positions' entropies given x_t, less the entropy of x_s given x_t.
    """
    values = {}
    marginal = chain.marginal(t)
    for masked in marginal:
        later = chain.after(masked, t - s)
        value = torch.zeros((), dtype=torch.float64)
        for table in later.values():
            value = value - _entropy(table, masked)
        for position in masked:
            value = value + _site_entropy(later, masked, position)
        values[masked] = value
    return average(marginal, values)


def _entropy(table: Float[Tensor, "..."], masked: MaskSet) -> Float[Tensor, "..."]:
    """-sum p log p over what was masked and has been committed."""
    return sum_over(torch.special.entr(table), masked)


def _site_entropy(later: Tables, masked: MaskSet, position: int) -> Float[Tensor, "..."]:
    """Entropy of what stands at one position: a token, or still a mask."""
    tokens = torch.zeros((), dtype=torch.float64)
    mask = torch.zeros((), dtype=torch.float64)
    for still, table in later.items():
        if position in still:
            mask = mask + sum_over(table, masked)
        else:
            tokens = tokens + sum_over(table, masked - {position})
    whole = torch.special.entr(mask) + torch.zeros((), dtype=torch.float64)
    return whole + (_entropy(tokens, frozenset({position})) if tokens.dim() else 0.0)

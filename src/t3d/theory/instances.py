"""Instances small enough to check by hand, on which a statement of the paper fails, or says nothing.

Found by random searches over round numbers, or by hand; the tests hold what each shows. Pairs of binary
tokens are in the order 00, 01, 10, 11.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from t3d.theory.exact.tables import TableModel


def distribution(*probs: float) -> Float[Tensor, "N"]:
    """Probabilities as float64."""
    return torch.tensor(probs, dtype=torch.float64)


def pair_model(
    first: float,
    second: float,
    first_given: tuple[float, float],
    second_given: tuple[float, float],
) -> TableModel:
    """A model of two binary tokens from its probabilities of a 1.

    ``first`` and ``second`` beside a mask, ``first_given`` beside a second token of 0 and of 1, and so on.
    """
    ones = torch.full((3, 3, 2), 0.5, dtype=torch.float64)
    mask = 2
    ones[mask, mask] = distribution(first, second)
    ones[mask, :2, 0] = distribution(*first_given)
    ones[:2, mask, 1] = distribution(*second_given)
    return TableModel(table=torch.stack([1 - ones, ones], -1))


def independent_model(length: int) -> TableModel:
    """Fair coins: every token is 0 or 1 with probability 1/2, whatever else is visible."""
    return TableModel(table=torch.full([3] * length + [length, 2], 0.5, dtype=torch.float64))


def prefix_model(first: float, given: Sequence[Float[Tensor, "4"]]) -> TableModel:
    """Three binary tokens: a first 1 with this probability, then a pair distributed as ``given[first]``.

    Exact for every state whose first token is visible; beside a masked first token the others are fair coins.
    """
    table = torch.full((3, 3, 3, 3, 2), 0.5, dtype=torch.float64)
    table[..., 0, :] = distribution(1 - first, first)
    for head, pair in enumerate(given):
        joint = pair.reshape(2, 2)
        table[head, 2, :, 1, :] = joint.sum(1)
        table[head, :, 2, 2, :] = joint.sum(0)
        table[head, 2, :2, 1, :] = (joint / joint.sum(0)).T
        table[head, :2, 2, 2, :] = joint / joint.sum(1, keepdim=True)
    return TableModel(table=table)


FAIR_PAIR = distribution(0.25, 0.25, 0.25, 0.25)
EQUAL_PAIR = distribution(0.4, 0.1, 0.1, 0.4)
"""Two tokens that are mostly equal: total correlation 0.193 nats."""
MORE_EQUAL_PAIR = distribution(0.45, 0.05, 0.05, 0.45)
"""Nearer to EQUAL_PAIR (0.044 nats) than its product of marginals (0.193), and more correlated (0.368)."""
TWO_MODES = distribution(0.69, 0.01, 0.01, 0.29)
"""00 or 11; anything else is wrong, and half of what independent tokens say is."""

TEACHER_LEFT_OUT = {
    "forward": pair_model(0.3, 0.9, (0.1, 0.9), (0.5, 0.9)),
    "reverse": pair_model(0.5, 0.1, (0.1, 0.9), (0.8, 0.8)),
}
"""Decoded in random order; Proposition 4.3 without Assumption 4.2 at t = 1, with the families below."""
FAMILY_LEFT_OUT = {
    "forward": (
        pair_model(0.2, 0.8, (0.3, 0.1), (0.3, 0.2)),
        pair_model(0.8, 0.1, (0.3, 0.8), (0.7, 0.8)),
    ),
    "reverse": (
        pair_model(0.3, 0.8, (0.3, 0.1), (0.7, 0.8)),
        pair_model(0.5, 0.3, (0.9, 0.9), (0.1, 0.2)),
    ),
}
"""The joint picks the student whose x_t are the teacher's, and whose conditionals are the worse ones."""
MORE_CORRELATED_STUDENT = pair_model(0.1, 0.8, (0.9, 0.1), (0.5, 0.1))
"""A teacher of single tokens in random order whose factorised optimum, decoded so, has the higher TC."""
RARELY_EQUAL = prefix_model(0.1, (FAIR_PAIR, EQUAL_PAIR))
OFTEN_EQUAL = prefix_model(0.9, (FAIR_PAIR, EQUAL_PAIR))
"""The same conditionals at every state; only how often the first token is 1 differs. For Assumption 4.2."""

ROUNDS_TEACHER, ROUNDS_REFERENCE = distribution(0.5, 0.3, 0.2), distribution(0.49, 0.305, 0.205)
"""Eq. 7 is least 0.16 away in total variation from a teacher that its reference is 0.01 away from."""
SURE, UNSURE = distribution(0.9, 0.07, 0.03), distribution(0.55, 0.3, 0.15)
"""Of one token: with argmax fakes of weight 1/2 DDO has a fixed point on the first alone."""
SURE_THEN_UNSURE = pair_model(0.1, 0.4, (0.1, 0.1), (0.4, 0.4))
"""Two independent tokens, 0 with .9 and with .6, which the confidence order makes surer than they are."""

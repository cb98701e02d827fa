"""Theorem 4.5: is the total correlation of the best student at most the teacher's?

Families of students, state by state, that lie between the product of the teacher's marginals and the teacher
itself. Distributions are over the masked tokens, one at each state of a mask set.
"""

from jaxtyping import Float
from torch import Tensor

from t3d.theory.exact.measures import divergence
from t3d.theory.exact.tables import MaskSet, product_of, product_of_marginals, sum_over


def total_correlation_of(p: Float[Tensor, "..."], masked: MaskSet) -> Float[Tensor, "..."]:
    """KL(p || product of its marginals) at each state."""
    return divergence(p, product_of_marginals(p, masked), masked)


def nearest_markov(p: Float[Tensor, "..."], masked: MaskSet, order: int) -> Float[Tensor, "..."]:
    """The distribution nearest to p, in forward KL, whose tokens depend on the ``order`` masked ones before.

    Of all such Markov chains, from left to right; order 0 is the product of marginals, the last order p
    itself. The family is closed under geometric means (log-convex) and holds all products, so it meets every
    assumption of Theorem 4.5.
    """
    places = sorted(masked)
    factors = []
    for number, position in enumerate(places):
        before = set(places[max(0, number - order) : number])
        window = sum_over(p, masked - before - {position})
        factors.append(window / sum_over(window, {position}))
    return product_of(factors)


def tilted(p: Float[Tensor, "..."], masked: MaskSet, power: float) -> Float[Tensor, "..."]:
    """p^power (product of marginals)^(1 - power), normalised: the product at 0, p at 1, beyond it above 1.

    All powers from 0 to h < 1 are a log-convex family that holds the product of p's marginals.
    """
    product = product_of_marginals(p, masked)
    weight = product * (p / product).pow(power)
    return weight / sum_over(weight, masked)

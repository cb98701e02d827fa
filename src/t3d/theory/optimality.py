"""Proposition 4.3: does matching the trajectory joint give the least on-policy risk?

Students are tables; what a student says of x_0 at a state is its one-shot product (Eq. 2). Joints are tables
over x_0 by the mask set of x_t.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, inf

from jaxtyping import Float
from torch import Tensor

from t3d.decoding.params import DecodeParams
from t3d.theory.exact.chain import Chain, chain_of
from t3d.theory.exact.measures import Direction, divergence_of_joints, risk
from t3d.theory.exact.tables import TableModel, Tables, mask_sets, product_of_marginals, sum_over


def corrupted(clean: Float[Tensor, "..."], num_masked: int) -> Tables:
    """J_phi(x_0, x_t) = p(x_0) q(x_t | x_0) (Eq. 13) with exactly that many masks, anywhere equally likely.

    Eq. 1 masks each token by itself, so every number of masks has some probability; see
    :func:`corrupted_independently`.
    """
    share = 1 / comb(clean.dim(), num_masked)
    return dict.fromkeys(mask_sets(clean.dim(), num_masked), share * clean)


def corrupted_independently(clean: Float[Tensor, "..."], mask_prob: float) -> Tables:
    """J_phi(x_0, x_t) (Eq. 13) under Eq. 1: each token masked with probability 1 - alpha_t."""
    length = clean.dim()
    return {
        masked: mask_prob ** len(masked) * (1 - mask_prob) ** (length - len(masked)) * clean
        for masked in mask_sets(length)
    }


def student_joint(student: TableModel, marginal: Tables) -> Tables:
    """J_theta(x_0, x_t) = p_theta(x_t) p_theta(x_0 | x_t) (Eq. 14), with this p_theta(x_t)."""
    return {masked: weight * student.one_shot(masked) for masked, weight in marginal.items()}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which of a family of students each target picks, and what R_t they have."""

    trajectory: int
    """theta_Tra*: nearest to J_Tra; the first of equals."""
    corrupted: int
    """theta*: nearest to J_phi."""
    risks: tuple[float, ...]
    """R_t of every student."""
    distances: tuple[tuple[float, float], ...]
    """D(J_Tra || J_theta) and D(J_phi || J_theta) of every student."""

    @property
    def excess(self) -> float:
        """R_t(theta_Tra*) - R_t(theta*): above 0 the proposition is violated."""
        return self.risks[self.trajectory] - self.risks[self.corrupted]

    @property
    def has_target(self) -> bool:
        """Whether D(J_phi || J_theta) is finite for some student: else theta* is any student."""
        return min(second for _, second in self.distances) < inf


def choose(
    teacher: Chain,
    family: Sequence[TableModel],
    params: DecodeParams,
    t: int,
    direction: Direction,
    *,
    shares_marginal: bool,
) -> Choice:
    """The two minimisers of Proposition 4.3 at one t, in a finite family.

    ``shares_marginal``: Assumption 4.2 is imposed, the student's x_t come from the teacher. Else they come
    from its own decoding. The noise of J_phi masks as many tokens as x_t has masks.
    """
    marginal, posteriors = teacher.marginal(t), teacher.posteriors()
    (num_masked,) = {len(masked) for masked in marginal}
    targets = teacher.joint(t), corrupted(teacher.clean(), num_masked)
    distances, risks = [], []
    for student in family:
        own = marginal if shares_marginal else chain_of(student, params).marginal(t)
        joint = student_joint(student, own)
        first, second = (divergence_of_joints(target, joint, direction) for target in targets)
        distances.append((first, second))
        one_shot = {masked: student.one_shot(masked) for masked in marginal}
        risks.append(risk(marginal, posteriors, one_shot, direction))
    nearest = [min(range(len(family)), key=lambda i: distances[i][column]) for column in (0, 1)]
    return Choice(
        trajectory=nearest[0],
        corrupted=nearest[1],
        risks=tuple(risks),
        distances=tuple(distances),
    )


def tabular_risks(teacher: Chain, t: int) -> tuple[float, float]:
    """Forward R_t of the two minimisers where every state has parameters of its own.

    The first learns the trajectory's posteriors, the second those of J_phi as Eq. 13 defines it, p(x_0)
    restricted to what is visible. The proof puts the first in the place of the second (Eq. 30, 35), and then
    they are equal.
    """
    marginal, posteriors, clean = teacher.marginal(t), teacher.posteriors(), teacher.clean()
    own = {masked: product_of_marginals(posteriors[masked], masked) for masked in marginal}
    other = {}
    for masked in marginal:
        conditional = clean / sum_over(clean, masked)
        other[masked] = product_of_marginals(conditional, masked)
    return risk(marginal, posteriors, own), risk(marginal, posteriors, other)

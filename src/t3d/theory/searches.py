"""Random instances searched for violations of Section 4, with and without its assumptions.

Teachers are random tables of binary tokens, decoded one token per step from all masks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor

from t3d.decoding.params import DecodeParams, StaticRemasking
from t3d.theory.correlation import nearest_markov, tilted, total_correlation_of
from t3d.theory.discrimination import printed_loss, real_and_fake_terms
from t3d.theory.exact.chain import Chain, chain_of
from t3d.theory.exact.measures import Direction, divergence, total_correlation
from t3d.theory.exact.tables import TableModel, model_of, product_of_marginals, random_model
from t3d.theory.optimality import choose

ORDERS: tuple[StaticRemasking, ...] = ("random", "sequential", "low_confidence_static")
LENGTH, FAMILY_SIZE = 3, 6
_SCALE = 1.5
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """How often a statement failed, and by how much at worst."""

    violations: int
    instances: int
    worst: float
    undefined: int = 0
    """Instances where what it compares with is any student, since every distance is infinite."""


def counted(excesses: Sequence[float], undefined: int = 0) -> Count:
    """Of left sides less right sides, which a statement says are at most 0."""
    violations = sum(excess > _ROUNDING for excess in excesses)
    return Count(violations=violations, instances=len(excesses), worst=max(excesses), undefined=undefined)


def whole_block(order: StaticRemasking, length: int, tokens_per_step: int = 1) -> DecodeParams:
    """One block of all tokens, drawn as the model says (temperature 1)."""
    return DecodeParams(
        block_size=length, steps_per_block=length // tokens_per_step, remasking=order, temperature=1.0
    )


def teachers(
    order: StaticRemasking, length: int, number: int, generator: torch.Generator
) -> Iterator[tuple[TableModel, Chain]]:
    """Random models and how they decode."""
    for _ in range(number):
        model = random_model(2, length, block_size=length, scale=_SCALE, generator=generator)
        yield model, chain_of(model, whole_block(order, length))


def search_optimality(
    order: StaticRemasking, direction: Direction, *, shares_marginal: bool, number: int, seed: int = 0
) -> Count:
    """Proposition 4.3: R_t(theta_Tra*) - R_t(theta*) for random families, at every 0 < t < T.

    At t = T both targets have the one state x_T and are the same.
    """
    generator = torch.Generator().manual_seed(seed)
    excesses, undefined, params = [], 0, whole_block(order, LENGTH)
    for _, teacher in teachers(order, LENGTH, number, generator):
        family = [
            random_model(2, LENGTH, block_size=LENGTH, scale=_SCALE, generator=generator)
            for _ in range(FAMILY_SIZE)
        ]
        for t in range(1, LENGTH):
            choice = choose(teacher, family, params, t, direction, shares_marginal=shares_marginal)
            excesses.append(choice.excess)
            undefined += not choice.has_target
    return counted(excesses, undefined)


def correlated(length: int, generator: torch.Generator) -> Tensor:
    """A random distribution over binary sequences, of which a few are likely."""
    probs = torch.rand((2,) * length, dtype=torch.float64, generator=generator) ** 3
    return probs / probs.sum()


def search_families(*, number: int, length: int = 4, seed: int = 0) -> Count:
    """Theorem 4.5 with its assumptions: TC of the best student less the teacher's.

    Over two kinds of families: Markov chains of each order, and tilts up to a power of at most 1.
    """
    generator, masked = torch.Generator().manual_seed(seed), frozenset(range(length))
    excesses = []
    for _ in range(number):
        teacher = correlated(length, generator)
        best = [nearest_markov(teacher, masked, order) for order in range(length)]
        best += [tilted(teacher, masked, float(torch.rand((), generator=generator)))]
        own = float(total_correlation_of(teacher, masked))
        excesses += [float(total_correlation_of(student, masked)) - own for student in best]
    return counted(excesses)


def search_families_of_two(*, number: int, length: int = 3, seed: int = 0) -> Count:
    """Theorem 4.5 without log-convexity: the family is the product of marginals and one tilt, to power 3."""
    generator, masked = torch.Generator().manual_seed(seed), frozenset(range(length))
    excesses = []
    for _ in range(number):
        teacher = correlated(length, generator)
        power = 3 * float(torch.rand((), generator=generator))
        family = (product_of_marginals(teacher, masked), tilted(teacher, masked, power))
        best = min(family, key=lambda student: float(divergence(teacher, student, masked)))
        own = float(total_correlation_of(teacher, masked))
        excesses.append(float(total_correlation_of(best, masked)) - own)
    return counted(excesses)


def search_decoded_students(
    teacher_order: StaticRemasking,
    student_order: StaticRemasking,
    tokens_per_step: int,
    *,
    number: int,
    length: int = 4,
    seed: int = 0,
) -> tuple[Count, float]:
    """Theorem 4.5 for what a student decodes: its sum over both TCs less the teacher's, in the mean over t.

    The student is the factorised optimum on the teacher's trajectories; t runs over the student's steps,
    compared at the same number of masks. Also the mean of the difference.
    """
    generator = torch.Generator().manual_seed(seed)
    differences = []
    for model, teacher in teachers(teacher_order, length, number, generator):
        table = model_of(teacher.posteriors(), otherwise=model)
        student = chain_of(table, whole_block(student_order, length, tokens_per_step))
        steps = range(1, student.num_steps + 1)
        differences.append(
            mean(
                both_correlations(student, t) - both_correlations(teacher, t * tokens_per_step) for t in steps
            )
        )
    return counted(differences), mean(differences)


def both_correlations(chain: Chain, t: int) -> float:
    """TC(x_0 | x_t) + TC(x_t | x_T), the sum of Eq. 22 at one t."""
    first = total_correlation(chain, s=0, t=t)
    return first + (total_correlation(chain, s=t, t=chain.num_steps) if t < chain.num_steps else 0.0)


def search_bound(*, is_on_teacher_states: bool, number: int, seed: int = 0) -> Count:
    """Eq. 23: the loss of Eq. 6-7 less its bound, over three states of four outcomes.

    The fake term of the bound averages over the teacher's x_t, as Eq. 6 does, or over the reference's own, as
    J_theta_ref of Eq. 14 says.
    """
    generator = torch.Generator().manual_seed(seed)
    excesses = []
    for _ in range(number):
        logits = 1.2 * torch.randn(3, 3, 4, dtype=torch.float64, generator=generator)
        teacher, reference, student = logits.softmax(-1)
        visits, own = (1.2 * torch.randn(2, 3, dtype=torch.float64, generator=generator)).softmax(-1)
        real, fake = real_and_fake_terms(teacher, reference, student)
        bound = (visits * real).sum() + ((visits if is_on_teacher_states else own) * fake).sum()
        excesses.append(float((visits * printed_loss(teacher, reference, student)).sum() - bound))
    return counted(excesses)

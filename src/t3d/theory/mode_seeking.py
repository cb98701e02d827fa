"""Which factorised student of two tokens each objective prefers: does DDO seek a mode?

Two tokens of a vocabulary of two, so a factorised student is two numbers, and a grid holds them all. The four
outcomes are in the order 00, 01, 10, 11.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from t3d.theory.discrimination import bound_loss, printed_loss
from t3d.theory.exact.measures import kl_terms

Objective = Literal["forward KL", "reverse KL", "Eq. 7", "Eq. 23"]


def product_students(num_values: int) -> Float[Tensor, "n n 4"]:
    """All students whose tokens are 1 with a probability of 1/(n+1), ..., n/(n+1)."""
    one = torch.arange(1, num_values + 1, dtype=torch.float64) / (num_values + 1)
    token = torch.stack([1 - one, one], -1)
    return (token[:, None, :, None] * token[None, :, None, :]).flatten(-2)


def objective_of(
    objective: Objective,
    teacher: Float[Tensor, "4"],
    reference: Float[Tensor, "4"],
    students: Float[Tensor, "... 4"],
) -> Float[Tensor, "..."]:
    """The objective's value for each student; the divergences have no reference."""
    if objective == "forward KL":
        return kl_terms(teacher, students).sum(-1)
    if objective == "reverse KL":
        return kl_terms(students, teacher).sum(-1)
    loss = printed_loss if objective == "Eq. 7" else bound_loss
    return loss(teacher, reference, students)


def preferred(
    objective: Objective, teacher: Float[Tensor, "4"], reference: Float[Tensor, "4"], num_values: int = 199
) -> Float[Tensor, "4"]:
    """The factorised student of least value on the grid."""
    students = product_students(num_values)
    values = objective_of(objective, teacher, reference, students)
    return students.flatten(0, 1)[values.argmin()]

"""``make test-types`` checks what it says that it checks, in every process that runs tests."""

import pytest
import torch
from beartype.roar import BeartypeException
from jaxtyping import TypeCheckError

from t3d.objectives.logprobs import sum_by_sample

INDICES = torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("value_M", "sample_M", "num_samples"),
    [
        pytest.param(torch.ones(3), INDICES[:2], 1, id="shape"),
        pytest.param(torch.ones(3, dtype=torch.int64), INDICES, 1, id="dtype"),
        pytest.param(torch.ones(3), INDICES, "1", id="type"),
    ],
)
def test_an_argument_that_contradicts_its_annotation_is_refused(
    value_M, sample_M, num_samples, request: pytest.FixtureRequest
):
    if not request.config.getoption("jaxtyping_packages"):
        pytest.skip("a test of make test-types")
    with pytest.raises((TypeCheckError, BeartypeException)):
        sum_by_sample(value_M, sample_M, num_samples)

"""How many tokens a block commits at each step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError


def schedule_of(block_size, steps):
    return DecodeParams(block_size=block_size, steps_per_block=steps).schedule


@st.composite
def schedules(draw):
    block_size = draw(st.integers(1, 64))
    return block_size, draw(st.integers(1, block_size))


@given(schedules())
def test_the_plan_commits_the_whole_block_in_the_given_steps(schedule):
    block_size, steps = schedule
    plan = schedule_of(block_size, steps)
    assert len(plan) == steps
    assert sum(plan) == block_size
    assert min(plan) >= 1


@given(schedules())
def test_the_first_steps_get_the_remainder(schedule):
    block_size, steps = schedule
    plan = schedule_of(block_size, steps)
    small, extra = block_size // steps, block_size % steps
    assert plan == (small + 1,) * extra + (small,) * (steps - extra)


@pytest.mark.parametrize(
    ("block_size", "steps", "plan"),
    [
        (4, 4, (1, 1, 1, 1)),
        (4, 3, (2, 1, 1)),
        (4, 2, (2, 2)),
        (4, 1, (4,)),
        (8, 3, (3, 3, 2)),
        (8, 5, (2, 2, 2, 1, 1)),
        (1, 1, (1,)),
    ],
)
def test_plans_by_hand(block_size, steps, plan):
    assert schedule_of(block_size, steps) == plan


@pytest.mark.parametrize(
    ("block_size", "steps", "field", "value"),
    [
        (0, 1, "block_size", 0),
        (-4, 1, "block_size", -4),
        (4, 0, "steps_per_block", 0),
        (4, -1, "steps_per_block", -1),
        (4, 5, "steps_per_block", 5),
    ],
)
def test_errors_name_the_field_the_value_and_the_fix(block_size, steps, field, value):
    with pytest.raises(InputError) as caught:
        schedule_of(block_size, steps)
    assert (caught.value.field, caught.value.value) == (field, value)
    assert f"{field}={value}" in str(caught.value)
    assert "Fix: " in str(caught.value)


def test_too_many_steps_name_the_largest_possible():
    with pytest.raises(InputError, match="use at most steps_per_block=4"):
        schedule_of(4, 5)

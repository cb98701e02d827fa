"""The error for input that a user can correct."""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import pytest

from t3d.errors import (
    InputError,
    naming,
    require_above_zero,
    require_at_least_zero,
    require_below_one,
    require_choices,
    require_seed,
    require_unique_ids,
)


def test_the_message_names_field_value_problem_and_fix():
    error = InputError("top_p", 1.5, "not in (0, 1]", "use 1 to keep all tokens")
    assert str(error) == "top_p=1.5: not in (0, 1]. Fix: use 1 to keep all tokens."
    assert (error.field, error.value) == ("top_p", 1.5)


def test_a_field_is_named_as_the_caller_gave_it():
    @naming(model="source")
    def refuse(field):
        raise InputError(field, "x", "no", "yes")

    with pytest.raises(InputError, match=r"source='x': no\. Fix: yes"):
        refuse("model")
    with pytest.raises(InputError, match="revision='x'"):
        refuse("revision")


def test_it_is_a_value_error():
    with pytest.raises(ValueError, match="x='y'"):
        raise InputError("x", "y", "no", "yes")


def test_the_first_id_used_twice_is_named():
    require_unique_ids(["a", "b"], "requests")
    with pytest.raises(InputError, match=r"id='b': used by two requests\. Fix: give each its own id"):
        require_unique_ids(["a", "b", "c", "b", "a"], "requests")


@pytest.mark.parametrize(
    ("require", "right", "wrong"),
    [
        (require_above_zero, (1e-9, 3), (0, -1)),
        (require_at_least_zero, (0, 0.5, 3), (-1e-9,)),
        (require_below_one, (0, 0.999), (-0.1, 1)),
        (require_seed, (0, 2**32 - 1), (-1, 2**32, 0.5)),
    ],
)
def test_numbers_of_a_range_pass_and_all_else_is_named(require, right, wrong):
    for value in right:
        require(SimpleNamespace(seed=value), "seed")
    for value in (*wrong, math.nan, math.inf, "1", None):
        with pytest.raises(InputError, match=f"seed={value!r}: not "):
            require(SimpleNamespace(seed=value), "seed")


@dataclass
class Shape:
    """One field of choices, one with None among them, one of any value."""

    form: Literal["disc", "square"] = "disc"
    edge: Literal["thin", "bold"] | None = None
    name: str | None = None


def test_a_literal_field_takes_its_choices_and_all_else_is_named():
    require_choices(Shape(form="square", edge="bold", name="any"))
    with pytest.raises(InputError, match=r"form='cube': not known\. Fix: use one of disc, square"):
        require_choices(Shape(form="cube"))
    with pytest.raises(InputError, match=r"edge=\['thin'\]: not known\. Fix: use one of thin, bold"):
        require_choices(Shape(edge=["thin"]))
    with pytest.raises(InputError, match="form=None"):
        require_choices(Shape(form=None))

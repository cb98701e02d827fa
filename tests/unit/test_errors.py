"""The error for input that a user can correct."""

import pytest

from t3d.errors import InputError, require_unique_ids


def test_the_message_names_field_value_problem_and_fix():
    error = InputError("top_p", 1.5, "not in (0, 1]", "use 1 to keep all tokens")
    assert str(error) == "top_p=1.5: not in (0, 1]. Fix: use 1 to keep all tokens."
    assert (error.field, error.value) == ("top_p", 1.5)


def test_it_is_a_value_error():
    with pytest.raises(ValueError, match="x='y'"):
        raise InputError("x", "y", "no", "yes")


def test_the_first_id_used_twice_is_named():
    require_unique_ids(["a", "b"], "requests")
    with pytest.raises(InputError, match=r"id='b': used by two requests\. Fix: give each its own id"):
        require_unique_ids(["a", "b", "c", "b", "a"], "requests")

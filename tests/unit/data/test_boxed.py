import pytest

from t3d.data.boxed import last_boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So \\boxed{7}.", "7"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{ 3 }", "3"),
        ("\\boxed{4", None),
        ("no box", None),
        ("\\boxed{}", ""),
    ],
)
def test_last_box_with_balanced_braces_is_the_answer(text, answer):
    assert last_boxed(text) == answer

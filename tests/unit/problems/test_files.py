"""Lines of text files: where they stand, and what is no such file."""

import pytest

from t3d.errors import InputError
from t3d.problems.files import read_lines


def test_lines_that_are_not_empty_are_numbered_as_in_the_file(tmp_path):
    path = tmp_path / "lines"
    path.write_text("\ufeffone\n \n\u2028two\r\n", encoding="utf-8", newline="")
    assert read_lines(path, "f", "text") == [(f"line 1 of {path}", "one"), (f"line 3 of {path}", "\u2028two")]


@pytest.mark.parametrize(
    ("name", "problem"), [("", "is a folder"), ("none", "no such file"), ("latin", "not UTF-8 text")]
)
def test_what_is_no_text_file_is_named(tmp_path, name, problem):
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    with pytest.raises(InputError, match=rf"samples='.*{name}': {problem}.*Fix: give a JSONL file"):
        read_lines(tmp_path / name, "samples", "a JSONL file")

"""Lines of text files: where they stand, and what is no such file."""

import pytest

from t3d.errors import InputError
from t3d.problems.files import read_data_rows, read_lines


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


def test_json_that_is_nested_too_deeply_is_named_or_a_broken_row(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"data\.jsonl': cannot be read"):
        read_data_rows(path)
    path.write_text('{"a": 1}\n' + '{"a": ' * 100_000)
    good, broken = read_data_rows(path)
    assert good == {"a": 1} and isinstance(broken, ValueError)

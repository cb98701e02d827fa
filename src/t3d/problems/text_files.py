"""Text files that a user gives, line by line."""

from pathlib import Path

from t3d.errors import InputError


def read_lines(path: str | Path, field: str, kind: str) -> list[tuple[str, str]]:
    r"""The lines that are not empty, each with where it stands, such as ``line 3 of FILE``.

    Only ``\n`` ends a line. ``field`` and ``kind`` (``a JSONL file of outputs``) are for the message. Raises
    InputError for a missing file, a folder, or what is not UTF-8 text.
    """
    path, fix = Path(path), f"give {kind}"
    if path.is_dir():
        raise InputError(field, str(path), "is a folder", fix)
    if not path.is_file():
        raise InputError(field, str(path), "no such file", fix)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        raise InputError(field, str(path), f"not UTF-8 text ({error.reason})", fix) from error
    numbered = enumerate(text.split("\n"), start=1)
    return [(f"line {number} of {path}", line) for number, line in numbered if line.strip()]

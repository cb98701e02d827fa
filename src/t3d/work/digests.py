"""The SHA-256 of all files of something finished, which tells later whether it is as it was made."""

from collections.abc import Mapping
from pathlib import Path

from t3d.errors import InputError
from t3d.work.plan import file_sha256


def digests(path: Path, base: Path) -> dict[str, str]:
    """Of a file, or of every file in a folder, by name from ``base``; of none that a kill may leave."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    names = [file.relative_to(base) for file in files]
    return {
        name.as_posix(): file_sha256(base / name)
        for name in names
        if not any(part.startswith(".") for part in name.parts)
    }


def check_digests(expected: Mapping[str, str], base: Path, record: Path, fix: str) -> None:
    """Raise InputError, naming the file, unless all are there as ``record`` says."""
    for name, sha256 in expected.items():
        file = base / name
        if not file.is_file() or file_sha256(file) != sha256:
            problem = f"not the file that was made, of which {record} has the SHA-256"
            raise InputError("output", str(file), problem, fix)

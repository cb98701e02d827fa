"""The name of a file of records."""

from pathlib import Path

from t3d.errors import InputError

TEXT_ENDINGS = (".jsonl", ".json", ".csv", ".txt", ".yaml", ".md")
"""Of names that no Parquet file should have."""


def check_record_name(output: str) -> None:
    """Raise InputError for a file of records whose name says that it is a text."""
    if Path(output).suffix.lower() in TEXT_ENDINGS:
        fix = f"name it {Path(output).with_suffix('.parquet').name}"
        raise InputError("output", output, "the records are written as Parquet, not as text", fix)

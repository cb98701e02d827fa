"""What ``t3d view`` may be given, how its page begins and is named: told before anything is read."""

from pathlib import Path

from t3d.errors import InputError

BEGINNING = "<!doctype html>\n<!-- t3d view -->\n"
FIX = "give a Parquet file of t3d rollout, an evaluation or its samples.jsonl, or the folder of a run"


def check_given(path: str | Path, field: str) -> None:
    """Raise InputError unless there is a file or a folder."""
    if not Path(path).exists():
        raise InputError(field, str(path), "no such file or folder", FIX)


def page_of(source: str | Path) -> Path:
    """Where the page of a source stands unless it is told: as a report in its folder, or beside its file."""
    source = Path(source)
    return source / "view.html" if source.is_dir() else source.with_name(f"{source.name}.html")

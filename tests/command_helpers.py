"""What tests of whole commands share."""

import json
from collections.abc import Sequence
from pathlib import Path

from t3d.cli.main import main


def write_prompts(folder: Path) -> Path:
    """A prompt file of six problems."""
    path = folder / "prompts.jsonl"
    rows = [{"id": str(index), "question": f"how many apples {index}", "answer": "1"} for index in range(6)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def run_failing(arguments: Sequence[str], capsys) -> str:
    """Error text of a command that must fail with status 2, in one line, without a traceback."""
    capsys.readouterr()
    status = main(arguments)
    text = capsys.readouterr().err
    assert status == 2
    assert "Traceback" not in text
    assert [line.startswith("error: ") for line in text.splitlines()][-1:] == [True]
    assert 0 < len(text.splitlines()) <= 24
    return " ".join(text.split())

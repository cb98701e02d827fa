"""What tests of whole commands share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def rollout_of_chunks(checkpoint: Path, folder: Path, count: int, max_new_tokens: int) -> list[str]:
    """A rollout of so many chunks of one prompt each, without its output."""
    prompts = folder / "prompts.jsonl"
    rows = [{"id": f"p{number}", "question": f"how many apples {number}"} for number in range(count)]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    line = ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--device", "cpu"]
    return [*line, "--max-new-tokens", str(max_new_tokens), "--temperature", "1", "--chunk-size", "1"]


def rolled_out_bytes(command: Sequence[str], folder: Path) -> bytes:
    """The file that one process makes."""
    output = folder / "whole.parquet"
    assert main([*command, "--output", str(output)]) == 0
    return output.read_bytes()


def evaluated(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """Samples to the byte, results without what a clock says and what depends on it, and without the path."""
    report = json.loads((folder / "results.json").read_text())
    del report["checksum"], report["config_hash"], report["config"]["output"]
    for entry in report["results"]:
        for name in ("seconds", "latency", "tokens_per_second"):
            entry.pop(name)
    return (folder / "samples.jsonl").read_bytes(), report

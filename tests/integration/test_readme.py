"""The README's Python examples run (tests/unit/test_docs.py has its commands and files)."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_generation_example_runs(capsys):
    example, _ = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Take ") and lines[0].endswith("stop")
    assert "'requests': 3" in lines[-1]


@pytest.mark.slow
def test_the_distillation_example_runs_and_improves_the_student(tmp_path, monkeypatch, capsys):
    _, example = blocks("python")
    assert len(example.strip().splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    before, after = map(int, re.findall(r"(\d+)%", capsys.readouterr().out.splitlines()[-1]))
    assert after > before

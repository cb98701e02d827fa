"""The README's Python example runs, its commands parse, and the docs name files that exist."""

import re
import shlex
from pathlib import Path

import pytest
import tyro

from t3d.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_every_t3d_command_parses():
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("t3d ")]
    assert len(commands) >= 4
    for _, *words in commands:
        if words[0] == "lm-eval":
            continue  # lm-eval's own flags
        name = next(name for name in COMMANDS if tuple(words[: len(name)]) == name)
        tyro.cli(COMMANDS[name], args=words[len(name) :])


@pytest.mark.parametrize(
    "name", ["README.md", "docs/paper_map.md", "docs/architecture.md", "CONTRIBUTING.md"]
)
def test_every_named_file_exists(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    linked = re.findall(r"\]\(((?!https?:)[^)#]+)\)", text)
    named = re.findall(r"`((?:tests|docs|src)/[\w/.]+?\.(?:py|md))`", text)
    base = (ROOT / name).parent
    missing = [path for path in linked if not (base / path).exists()]
    missing += [path for path in named if not (ROOT / path).exists()]
    assert not missing


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

"""recipes/smollm2_t3d: its commands parse; it runs to the end on a tiny model, and skips what is finished."""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from adopt_helpers import CHAT, plain_tokenizer, save_source

from t3d.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "smollm2_t3d"
STUDENTS = ("naive_td", "redi", "dparallel", "t3d")
RECORDER = """
import json, sys
from pathlib import Path
with Path(sys.argv[1]).open("a") as file:
    file.write(json.dumps(sys.argv[2:]) + "\\n")
"""
SMALL = {
    "T3D_SFT_STEPS": "2",
    "T3D_SFT_BATCH": "2",
    "T3D_SFT_WARMUP": "1",
    "T3D_SOFT": "0.5",
    "T3D_SOLUTION_TOKENS": "100",
    "T3D_GATE": "0",
    "T3D_GATE_PROMPTS": "2",
    "T3D_PROMPTS": "4",
    "T3D_TOKENS": "8",
    "T3D_TEST_PROMPTS": "2",
    "T3D_STEPS": "2",
    "T3D_BATCH": "2",
    "T3D_WARMUP": "1",
    "T3D_DTYPE": "float32",
}
PUBLISHED = (RECIPE / "README.md").read_text().partition("## The smaller run")[2].partition("```sh")[2]
VARIABLES = PUBLISHED.partition("T3D_RUNS=")[0].replace("\\\n", " ")
SMALLER = dict(word.split("=", 1) for word in shlex.split(VARIABLES))
"""Variables of the run that the README publishes."""


def loaded_script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "gsm8k").mkdir(parents=True)
    for name in ("train", "test"):
        rows = [{"question": f"{name} {n}+1?", "answer": f"{n}+1={n + 1}\n#### {n + 1}"} for n in range(1, 6)]
        (folder / "gsm8k" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(tmp_path, data, **variables):
    environment = os.environ | {"T3D_RUNS": str(tmp_path / "runs"), "T3D_DATA": str(data)} | variables
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    command = ["bash", str(RECIPE / "run.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("variables", [{}, {"T3D_SOFT": "0.5"}, SMALLER], ids=["plain", "soft", "smaller"])
def test_every_command_of_the_recipe_parses(tmp_path, data, monkeypatch, variables):
    stub, calls = tmp_path / "record.py", tmp_path / "calls.jsonl"
    stub.write_text(RECORDER)
    recorder = f"{sys.executable} {stub} {calls}"
    done = run(tmp_path, data, T3D_COMMAND=recorder, T3D_PYTHON=recorder, **variables)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    names, sources, limits = [], [], []
    for words in (json.loads(line) for line in calls.read_text().splitlines()):
        if words[0].endswith(".py"):
            names.append(Path(words[0]).name)
            loaded_script(Path(words[0])).arguments_of(words[1:])
            continue
        (name,) = (name for name in COMMANDS if tuple(words[: len(name)]) == name)
        names.append(" ".join(name))
        command = tyro.cli(COMMANDS[name], args=words[len(name) :])
        sources += [command.soft_targets_from] if name == ("train",) else []
        if name == ("data", "prompts"):
            limits.append((command.max_solution_tokens, command.tokenizer))
    num_students = len(variables.get("T3D_STUDENTS", " ".join(STUDENTS)).split())
    assert names == [
        *("fetch", "convert", "data prompts", "data prompts", "data solutions", "train", "eval", "gate.py"),
        *("rollout", *["train"] * num_students, "real_text.py", "real_text_table.py"),
    ]
    runs = tmp_path / "runs"
    source = str(runs / "smollm2") if "T3D_SOFT" in variables else None
    assert sources == [source, *[None] * num_students]
    is_short = "T3D_SOLUTION_TOKENS" in variables
    assert is_short == (variables is SMALLER)
    assert limits == [(100, str(runs / "blocks")) if is_short else (None, None)] * 2


def test_the_gate_stops_a_teacher_that_does_not_end(tmp_path, monkeypatch, capsys):
    gate, results = loaded_script(RECIPE / "gate.py"), tmp_path / "results.json"
    results.write_text(json.dumps({"results": [{"setting": "B4-T1", "stopped": 0.79}]}))
    monkeypatch.setattr(sys, "argv", ["gate.py", str(results)])
    with pytest.raises(SystemExit, match="does not end its answers"):
        gate.main()
    monkeypatch.setattr(sys, "argv", ["gate.py", str(results), "--at-least", "0.75"])
    gate.main()
    assert "79 % of the answers end" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_recipe_runs_to_the_end_and_is_then_finished(tmp_path, data):
    tokenizer = plain_tokenizer([*CHAT, "<reponame>", "<|pad|>"])
    save_source(tmp_path / "source", "llama", tokenizer, max_position_embeddings=512)
    command = {"T3D_COMMAND": f"{sys.executable} -m t3d", "T3D_PYTHON": sys.executable}
    variables = SMALL | command | {"T3D_SOURCE": str(tmp_path / "source")}
    done = run(tmp_path, data, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "runs" / "real_text.json").read_text())
    assert len(record["rows"]) == 6 * (1 + len(STUDENTS))
    assert {row["model"] for row in record["rows"]} == {"teacher", *STUDENTS}
    page = (tmp_path / "runs" / "real_text.md").read_text()
    again = run(tmp_path, data, **variables)
    assert again.returncode == 0
    assert again.stdout.count("there already") == 8 + len(STUDENTS)
    assert json.loads((tmp_path / "runs" / "real_text.json").read_text()) == record
    assert (tmp_path / "runs" / "real_text.md").read_text() == page

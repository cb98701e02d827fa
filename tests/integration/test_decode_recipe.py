"""recipes/decode.py: what it says that it needs (PEP 723), and what it prints."""

import re
import runpy
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest

from t3d import LLM, DecodeParams

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "decode.py"
BLOCK = r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
"""As PEP 723 has it."""


def test_its_metadata_name_this_project_and_its_python():
    (found,) = re.finditer(BLOCK, SCRIPT.read_text())
    metadata = tomllib.loads(re.sub(r"(?m)^# ?", "", found["content"]))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["dependencies"] == [project["name"]]
    assert metadata["requires-python"] == project["requires-python"]
    (source,) = metadata["tool"]["uv"]["sources"].items()
    assert source[0] == project["name"]
    assert (SCRIPT.parent / source[1]["path"]).resolve() == ROOT
    assert requires(project["name"]) and version(project["name"])
    assert len(SCRIPT.read_text().splitlines()) <= 40


@pytest.mark.parametrize("prompts", [[], ["how many apples are left now?"]])
def test_it_prints_the_answers_of_a_model(checkpoint, monkeypatch, capsys, prompts):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(checkpoint), *prompts])
    asked = runpy.run_path(str(SCRIPT))["asked"]
    printed = capsys.readouterr().out
    params = DecodeParams(max_new_tokens=64, temperature=0.0)
    expected = LLM(checkpoint).chat(
        [[{"role": "user", "content": prompt}] for prompt in asked], params, progress=False
    )
    assert list(asked) == prompts or len(asked) >= 3 > len(prompts)
    for prompt, answer in zip(asked, expected, strict=True):
        assert f"> {prompt}\n{answer.text}\n" in printed

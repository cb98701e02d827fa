"""What the scripts of recipes/ say that they need (PEP 723), and what recipes/decode.py prints."""

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


SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "recipes").rglob("*.py")
    if path.parent.name != "inspect_ai"  # which inspect loads itself, in its own environment
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_metadata_of_a_script_name_this_project_and_its_python(name):
    """The project where anything beyond Python's own library is imported, from this checkout."""
    script, text = ROOT / name, (ROOT / name).read_text()
    (found,) = re.finditer(BLOCK, text)
    metadata = tomllib.loads(re.sub(r"(?m)^# ?", "", found["content"]))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata["requires-python"] == project["requires-python"]
    imported = {module.partition(".")[0] for module in re.findall(r"(?m)^(?:from|import) ([\w.]+)", text)}
    if imported <= sys.stdlib_module_names:
        assert metadata["dependencies"] == [] and "tool" not in metadata
        return
    assert metadata["dependencies"] == [project["name"]]
    (source,) = metadata["tool"]["uv"]["sources"].items()
    assert source[0] == project["name"]
    assert (script.parent / source[1]["path"]).resolve() == ROOT
    assert requires(project["name"]) and version(project["name"])


@pytest.mark.parametrize("prompts", [[], ["how many apples are left now?"]])
def test_it_prints_the_answers_of_a_model(checkpoint, monkeypatch, capsys, prompts):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(checkpoint), *prompts])
    asked = runpy.run_path(str(SCRIPT))["asked"]
    printed = capsys.readouterr().out
    params = DecodeParams(max_new_tokens=64, temperature=0.0)
    expected = LLM(checkpoint).chat(
        [[{"role": "user", "content": prompt}] for prompt in asked], params, progress=False
    )
    assert len(SCRIPT.read_text().splitlines()) <= 40
    assert list(asked) == prompts or len(asked) >= 3 > len(prompts)
    for prompt, answer in zip(asked, expected, strict=True):
        assert f"> {prompt}\n{answer.text}\n" in printed

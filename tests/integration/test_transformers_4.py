"""Engines that still have transformers 4 (JetEngine) load the tokenizer of a mini student."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from t3d.models.export import export_model
from t3d.models.loading import load_model

CHAT = [{"role": "user", "content": "Gus has 9 nuts, first drops 4. How many now?"}]
SCRIPT = """
import json, sys, transformers

tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
text = tokenizer.apply_chat_template(json.loads(sys.argv[2]), tokenize=False, add_generation_prompt=True)
ids = tokenizer(text + "<|MASK|>")["input_ids"]
shown = tokenizer.decode(ids, skip_special_tokens=True)
special = [tokenizer.mask_token_id, tokenizer.eos_token_id]
print(json.dumps([transformers.__version__.split(".")[0], special, ids, shown]))
"""


@pytest.fixture(scope="module")
def python_4(tmp_path_factory) -> Path:
    """Interpreter of an environment with transformers 4, made from the package registry."""
    folder = tmp_path_factory.mktemp("transformers-4")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "transformers>=4.51,<5", "jinja2"]
    subprocess.run(install, check=True, env={**os.environ, "PYTHONPATH": ""})
    return python


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("model", ["mini", "mini-small"])
def test_the_tokenizer_of_an_exported_mini_student_is_the_same_in_transformers_4(model, python_4, tmp_path):
    export_model(load_model(model, device="cpu"), tmp_path / "student")
    found = []
    for python, path in ((sys.executable, os.environ.get("PYTHONPATH", "")), (python_4, "")):
        command = [python, "-c", SCRIPT, tmp_path / "student", json.dumps(CHAT)]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found.append(json.loads(done.stdout))
    (newer, *in_newer), (older, *in_older) = found
    assert (newer, older) == ("5", "4")
    assert in_older == in_newer

"""An exported student in transformers alone: its own ``generate``, beside the base's own code."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from model_fixtures import load_copy

from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.models.export import export_model
from t3d.models.loading import load_model
from t3d.models.own_settings import set_own_settings
from t3d.problems.prompts import token_ids

CONFIGURATION = """
from transformers import Qwen3Config

class SDARConfig(Qwen3Config):
    model_type = "sdar"
"""
MODELING = """
import copy
import torch
from transformers import Qwen3ForCausalLM
from .configuration_sdar import SDARConfig

class SDARForCausalLM(Qwen3ForCausalLM):
    config_class = SDARConfig

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, store_kv=False, **others):
        assert attention_mask.dtype == torch.bool, "SDAR's own code reads it so"
        cache = past_key_values if store_kv else copy.deepcopy(past_key_values)  # and writes only if told to
        return super().forward(input_ids, attention_mask=attention_mask, past_key_values=cache, **others)
"""
SCRIPT = """
import json, sys
sys.modules["t3d"] = None
import torch
from transformers import AutoModelForCausalLM, GenerationMixin

folder, ids = sys.argv[1], torch.tensor(json.loads(sys.argv[2]))
trusted = {"trust_remote_code": True}
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, **trusted)
assert type(model).__module__.startswith("transformers_modules.")
how = {"max_new_tokens": 24, "do_sample": False}
plain = GenerationMixin.generate(model, input_ids=ids, custom_generate=folder, **trusted, **how)
print(json.dumps([model.generate(ids, **how).tolist(), plain.tolist()]))
"""
PROMPT = "how many apples are left now?"


@pytest.mark.slow
def test_transformers_generate_decodes_a_student_without_t3d(checkpoint, tmp_path):
    """Both ways to ask for it give the engine's greedy tokens in the student's few steps."""
    shutil.copytree(checkpoint, tmp_path / "base")
    (tmp_path / "base" / "configuration_sdar.py").write_text(CONFIGURATION)
    (tmp_path / "base" / "modeling_sdar.py").write_text(MODELING)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration_sdar.SDARConfig",
        "AutoModelForCausalLM": "modeling_sdar.SDARForCausalLM",
    }
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    loaded = load_copy(tmp_path / "base")
    set_own_settings(loaded.model, {"block_size": 8, "steps_per_block": 2})
    folder = tmp_path / "student"
    export_model(loaded, folder)
    student = load_model(folder, device="cpu", dtype="float64")
    ids = token_ids(student.tokenizer, PROMPT)
    params = DecodeParams(block_size=8, steps_per_block=2, temperature=0, max_new_tokens=24)
    (expected,) = LLM(student).generate([ids], params, progress=False)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", SCRIPT, str(folder), json.dumps([ids])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[[*ids, *expected.visible_ids]]] * 2

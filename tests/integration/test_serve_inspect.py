"""inspect-ai's client of OpenAI-compatible servers gets from ``t3d serve`` what ``t3d eval`` gets itself.

It is run as a program, and may live in an environment of its own, whose Python T3D_INSPECT_PYTHON names.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from serving_helpers import needs_server, served_mini

import t3d
from t3d.decoding.params import DecodeParams
from t3d.evaluation.evaluate import evaluate
from t3d.models.loading import load_model
from t3d.tasks.mini.suite import mini_task
from t3d.tasks.task import PosedTask

NUM_PROBLEMS = 24
TASK = Path(__file__).parents[2] / "recipes" / "inspect_ai" / "t3d_chain.py"
PYTHON = os.environ.get("T3D_INSPECT_PYTHON") or (sys.executable if find_spec("inspect_ai") else None)

pytestmark = [
    needs_server,
    pytest.mark.slow,
    pytest.mark.skipif(
        PYTHON is None, reason="no inspect-ai: pip install inspect-ai, or set T3D_INSPECT_PYTHON"
    ),
]


def _inspected(address: str, folder: Path) -> dict:
    """The log of inspect-ai, run on the task against this server."""
    program = "import sys; from inspect_ai._cli.main import main; sys.argv[0] = 'inspect'; main()"
    flags = ["--model", "openai-api/t3d/mini", "--temperature", "0", "--log-dir", str(folder)]
    flags += ["--log-format", "json", "--display", "none", "--max-connections", "4"]
    settings = [f"num_problems={NUM_PROBLEMS}", "block_size=8", "tokens_per_step=4"]
    own = {
        "PYTHONPATH": str(Path(t3d.__file__).parents[1]),
        "T3D_BASE_URL": address,
        "T3D_API_KEY": "none",
    }
    command = [str(PYTHON), "-c", program, "eval", TASK.name, *flags]
    command += [part for setting in settings for part in ("-T", setting)]
    environment = os.environ | own
    done = subprocess.run(
        command, env=environment, cwd=TASK.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (log,) = folder.glob("*.json")
    return json.loads(log.read_text())


def test_inspect_ai_answers_and_scores_as_t3d_eval(tmp_path):
    task = mini_task("chain")
    params = DecodeParams(block_size=8, steps_per_block=2, temperature=0.0, max_new_tokens=80)
    loaded = load_model("mini", device="cpu", dtype="float32")
    posed = PosedTask(task=task, problems=task.problems("test", NUM_PROBLEMS, 0))
    (tmp_path / "eval").mkdir()
    (entry,) = evaluate(loaded, [posed], {"B8-T4": params}, tmp_path / "eval")
    rows = [json.loads(line) for line in (tmp_path / "eval/samples.jsonl").read_text().splitlines()]
    assert 20 < entry["accuracy"] < 95, "an easy or hopeless task would compare little"
    with served_mini() as address:
        (tmp_path / "logs").mkdir()
        log = _inspected(address, tmp_path / "logs")
    assert log["status"] == "success"
    answers = {
        sample["id"]: sample["output"]["choices"][0]["message"]["content"] for sample in log["samples"]
    }
    assert answers == {row["id"]: row["response"] for row in rows}
    (scored,) = log["results"]["scores"]
    assert scored["metrics"]["accuracy"]["value"] == pytest.approx(entry["accuracy"] / 100)

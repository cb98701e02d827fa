"""lm-evaluation-harness's client of OpenAI's API gets from ``t3d serve`` what ``t3d eval`` gets itself."""

import json
from importlib.resources import files

import lm_eval
import pytest
from lm_eval.tasks import TaskManager
from serving_helpers import needs_server, served_mini

from t3d.decoding.params import DecodeParams
from t3d.evaluation.evaluate import evaluate
from t3d.evaluation.lm_eval.plugin import TASK_FOLDER
from t3d.models.loading import load_model
from t3d.tasks.mini.suite import mini_task
from t3d.tasks.task import PosedTask

NUM_PROBLEMS = 24

pytestmark = [needs_server, pytest.mark.slow]


@pytest.fixture
def address():
    """A server of the bundled teacher."""
    with served_mini() as told:
        yield told


def test_local_completions_answers_and_scores_as_t3d_eval(address, tmp_path):
    task = mini_task("chain")
    params = DecodeParams(block_size=8, steps_per_block=2, temperature=0.0, max_new_tokens=80)
    loaded = load_model("mini", device="cpu", dtype="float32")
    posed = PosedTask(task=task, problems=task.problems("test", NUM_PROBLEMS, 0))
    (entry,) = evaluate(loaded, [posed], {"B8-T4": params}, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert 20 < entry["accuracy"] < 95, "an easy or hopeless task would compare little"
    report = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={
            "model": "mini",
            "base_url": f"{address}/completions",
            "tokenizer": str(files("t3d.mini") / "teacher"),
            "tokenized_requests": True,
            "num_concurrent": 4,
        },
        gen_kwargs={"block_size": 8, "tokens_per_step": 4, "temperature": 0, "max_gen_toks": 80},
        tasks=["t3d_chain"],
        limit=NUM_PROBLEMS,
        apply_chat_template=True,
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(TASK_FOLDER), include_defaults=False),
    )
    samples = sorted(report["samples"]["t3d_chain"], key=lambda sample: sample["doc_id"])
    assert [sample["doc"]["t3d_id"] for sample in samples] == [row["id"] for row in rows]
    assert [sample["resps"] for sample in samples] == [[[row["response"]]] for row in rows]
    assert report["results"]["t3d_chain"]["acc,none"] == pytest.approx(entry["accuracy"] / 100)

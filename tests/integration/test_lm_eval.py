"""lm-evaluation-harness and ``t3d eval`` give the same answers and the same score."""

import json
import os
import subprocess
import sys

import lm_eval
import pytest
import yaml
from lm_eval.tasks import TaskManager

from t3d.decoding.params import DecodeParams
from t3d.evaluation.evaluate import evaluate
from t3d.evaluation.lm_eval.plugin import TASK_FOLDER
from t3d.models.loading import load_model
from t3d.tasks.mini.suite import mini_task
from t3d.tasks.task import PosedTask

NUM_PROBLEMS = 40
MODEL_ARGS = {
    "pretrained": "mini",
    "device": "cpu",
    "block_size": 8,
    "tokens_per_step": 4,
    "temperature": 0.5,
    "max_new_tokens": 80,
}


@pytest.fixture(scope="module")
def own_result(tmp_path_factory):
    """The task as t3d evaluates it; noise matters at this temperature, and half of the answers are right."""
    task = mini_task("chain")
    params = DecodeParams(block_size=8, steps_per_block=2, temperature=0.5, max_new_tokens=80)
    loaded = load_model("mini", device="cpu", dtype="float32")
    posed = PosedTask(task=task, problems=task.problems("test", NUM_PROBLEMS, 0))
    folder = tmp_path_factory.mktemp("own")
    (entry,) = evaluate(loaded, [posed], {"B8-T4": params}, folder)
    assert 20 < entry["accuracy"] < 80
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return rows, entry["accuracy"] / 100, entry["tokens_per_step"]


def assert_same(samples, score, own_result):
    rows, accuracy, _ = own_result
    assert [sample["doc"]["t3d_id"] for sample in samples] == [row["id"] for row in rows]
    assert [sample["resps"] for sample in samples] == [[[row["response"]]] for row in rows]
    assert [sample["acc"] for sample in samples] == [row["correct"] for row in rows]
    assert score == pytest.approx(accuracy)


def test_harness_and_library_answer_and_score_alike(own_result):
    report = lm_eval.simple_evaluate(
        model="t3d",
        model_args=MODEL_ARGS,
        tasks=["t3d_chain"],
        limit=NUM_PROBLEMS,
        apply_chat_template=True,
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(TASK_FOLDER), include_defaults=False, metadata=MODEL_ARGS),
    )
    assert_same(report["samples"]["t3d_chain"], report["results"]["t3d_chain"]["acc,none"], own_result)
    cost = report["config"]["t3d"]["cost"]
    assert cost["tokens_per_step"] == own_result[2]
    assert report["config"]["t3d"]["settings"]["decode"]["steps_per_block"] == 2


@pytest.mark.slow  # the harness's command line reads the files of all its tasks
def test_command_line_runs_own_and_other_tasks_together(own_result, tmp_path):
    rows = tmp_path / "sums.jsonl"
    rows.write_text("\n".join(json.dumps({"question": f"{n} + 1?", "answer": str(n + 1)}) for n in range(4)))
    (tmp_path / "tasks").mkdir()
    stock = {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "answer",
        "num_fewshot": 2,
        "fewshot_split": "test",
        "generation_kwargs": {"until": [".", "Question:"], "do_sample": False, "max_gen_toks": 16},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "tasks" / "sums.yaml").write_text(yaml.safe_dump(stock))
    model_args = ",".join(f"{name}={value}" for name, value in MODEL_ARGS.items())
    command = [sys.executable, "-m", "t3d", "lm-eval", "--model", "t3d", "--model_args", model_args]
    command += [
        "--tasks",
        "t3d_chain,sums",
        "--include_path",
        str(tmp_path / "tasks"),
        "--apply_chat_template",
    ]
    command += ["--limit", str(NUM_PROBLEMS), "--output_path", str(tmp_path / "out"), "--log_samples"]
    caches = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_OFFLINE": "1"}
    run = subprocess.run(command, env=os.environ | caches, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]

    def samples_of(task):
        (file,) = (tmp_path / "out").rglob(f"samples_{task}_*.jsonl")
        return [json.loads(line) for line in file.read_text().splitlines()]

    (report,) = (tmp_path / "out").rglob("results_*.json")
    score = json.loads(report.read_text())["results"]["t3d_chain"]["acc,none"]
    assert_same(samples_of("t3d_chain"), score, own_result)
    answers = [sample["resps"][0][0] for sample in samples_of("sums")]
    assert len(answers) == 4
    assert not any("." in answer for answer in answers)

"""What makes the model raise in an evaluation counts as wrong and as an error, and is tried again."""

import json

import pytest
from command_helpers import run_failing, write_prompts
from failing_helpers import fail_at, poisoned
from model_fixtures import load_copy
from task_helpers import EvenTask, ReasonTask

from t3d.cli.main import main
from t3d.decoding.params import DecodeParams
from t3d.decoding.settings import decoding_settings
from t3d.errors import InputError
from t3d.evaluation import unanswered
from t3d.evaluation.compare import compare
from t3d.evaluation.evaluate import EvalConfig, evaluate, shared_evaluation
from t3d.evaluation.over_tasks import over_tasks
from t3d.evaluation.samples import read_graded
from t3d.problems.problem import Problem
from t3d.tasks.task import PosedTask
from t3d.work.failures import TooManyErrors
from t3d.work.shards import Shard

POISON = "pear"
QUESTIONS = ["how many apples 0", f"how many {POISON}s", "how many apples 2", "how many plums", "how many"]
SHARED = DecodeParams(max_new_tokens=4, temperature=1.0)
SETTINGS = decoding_settings(block_sizes=(4,), tokens_per_step=(2, 4), shared=SHARED)
TASKS = [ReasonTask("a")]
TIMES = ("seconds", "latency", "tokens_per_second")


@pytest.fixture(params=["float32", "bfloat16"])
def loaded(request, checkpoint):
    return load_copy(checkpoint, request.param)


@pytest.fixture
def poison(loaded):
    return poisoned(loaded, QUESTIONS, POISON)


@pytest.fixture
def asking(loaded):
    """All that :func:`evaluate` and :func:`shared_evaluation` take: two settings of three chunks each."""

    def asking(output, questions=QUESTIONS, tasks=TASKS, settings=SETTINGS, **fields):
        problems = [Problem(id=str(number), question=text) for number, text in enumerate(questions) if text]
        posed = [PosedTask(task=task, problems=problems) for task in tasks]
        how = {"loaded": loaded, "tasks": posed, "settings": settings, "output": output, "max_errors": 2}
        return how | {"config": EvalConfig(chunk_size=2), "report": {"seed": 7}} | fields

    return asking


def rows(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def told(folder):
    return [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]


def entries_of(folder):
    return [
        {name: value for name, value in entry.items() if name not in TIMES}
        for entry in json.loads((folder / "results.json").read_text())["results"]
    ]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shards", [None, (1, 2), (2, 1)])
def test_it_is_wrong_and_counted_the_others_are_as_ever_and_it_is_tried_again(
    asking, poison, loaded, tmp_path, monkeypatch, shards
):
    poison["is_on"] = False
    evaluate(**asking(tmp_path / "all"))
    poison["is_on"] = True
    out, how = tmp_path / "out", asking(tmp_path / "out")
    if shards is None:
        entries = evaluate(**how)
    else:
        *_, entries = [shared_evaluation(**how).make(Shard(number, 2)) for number in shards]
    everything = rows(tmp_path / "all")
    missing = [row for row in rows(out) if row["finish_reason"] == "error"]
    assert [(row["id"], row["setting"]) for row in missing] == [("1", name) for name in SETTINGS]
    assert all(row["reason"] == "error" and row["response"] == "" for row in missing)
    assert all((row["correct"], row["flexible-extract"]) == (False, False) for row in missing)
    if loaded.model.dtype.itemsize == 4:  # below, rounding depends on what is decoded beside it
        assert [row for row in rows(out) if row["id"] != "1"] == [r for r in everything if r["id"] != "1"]
    for entry in entries:
        assert (entry["n"], entry["num_errors"], entry["verdicts"][1]) == (5, 1, "0")
        assert entry["accuracy"] == 20 * entry["num_correct"]
        assert entry["finish_reasons"]["error"] == entry["reasons"]["error"] == 1
        answered = [row for row in rows(out) if row["setting"] == entry["setting"] and row["id"] != "1"]
        assert entry["mean_length"] == sum(row["num_tokens"] for row in answered) / 4
        assert entry["latency"] == entry["seconds"] / 4
    assert [(line["task"], line["setting"], line["id"]) for line in told(out)] == [
        ("a", name, "1") for name in SETTINGS
    ]
    assert all(line["error"] == "OutOfMemoryError" and "in hook" in line["traceback"] for line in told(out))
    assert names(out) == ["errors.jsonl", "results.json", "samples.jsonl", "unfinished"]
    before, raised = rows(out), poison["num_raised"]
    evaluate(**how)
    assert rows(out) == before and poison["num_raised"] > raised, "it fails again"
    poison["is_on"] = False
    real, asked = unanswered.decode_without_failing, []

    def decode_without_failing(llm, requests, *others, **fields):
        asked.extend(request.id for request in requests)
        return real(llm, requests, *others, **fields)

    monkeypatch.setattr(unanswered, "decode_without_failing", decode_without_failing)
    evaluate(**how)
    assert asked == ["1", "1"], "nothing else is decoded"
    assert names(out) == ["results.json", "samples.jsonl"]
    if loaded.model.dtype.itemsize == 4:
        assert rows(out) == everything and entries_of(out) == entries_of(tmp_path / "all")
    evaluate(**how)
    assert asked == ["1", "1"], "what is finished is read"


def test_the_others_have_the_answers_of_an_evaluation_without_it_whatever_the_rounding(
    asking, poison, tmp_path
):
    """In one chunk, so that what is decoded beside them is the same; what had finished is decoded again."""
    whole = {"config": EvalConfig(chunk_size=8, batch_size=1)}
    evaluate(**asking(tmp_path / "out", **whole))
    (*_, kept) = sorted((tmp_path / "out" / "unfinished").glob("*.chunk-00000.jsonl"))
    assert kept.read_text().count('"id": "0", "response"') == 2
    evaluate(**asking(tmp_path / "b", [text if POISON not in text else "" for text in QUESTIONS], **whole))
    assert [row for row in rows(tmp_path / "out") if row["id"] != "1"] == rows(tmp_path / "b")


def test_one_more_than_may_fail_ends_it_and_keeps_what_is_finished(asking, poison, tmp_path, monkeypatch):
    problem = r"max_errors=1: 2 responses failed \(a B4-T2 '1': OutOfMemoryError: .*\); .*/errors\.jsonl"
    with pytest.raises(TooManyErrors, match=problem):
        evaluate(**asking(tmp_path, max_errors=1))
    assert not (tmp_path / "results.json").exists() and len(told(tmp_path)) == 2
    real, asked = unanswered.decode_without_failing, []

    def decode_without_failing(llm, requests, *others, **fields):
        asked.extend(request.id for request in requests)
        return real(llm, requests, *others, **fields)

    monkeypatch.setattr(unanswered, "decode_without_failing", decode_without_failing)
    assert [entry["num_errors"] for entry in evaluate(**asking(tmp_path))] == [1, 1]
    assert asked.count("0") < 2, "one of the two was kept"


def test_workers_of_one_attempt_try_each_once_and_one_that_comes_later_all_again(asking, poison, tmp_path):
    jobs = [shared_evaluation(**asking(tmp_path), attempt=name) for name in ("first", "second")]
    shards = [Shard(number, 6) for number in range(1, 7)]
    made = [jobs[0].make(shard) for shard in shards]
    assert made[-1] is not None and made[:-1] == [None] * 5
    raised = poison["num_raised"]
    assert jobs[0].make(shards[0]) == json.loads(json.dumps(made[-1])) and poison["num_raised"] == raised
    assert [jobs[0].is_made(shard) for shard in shards] == [True] * 6
    assert [jobs[1].is_made(shard) for shard in shards] == [False, True, True, False, True, True]
    assert jobs[1].make(shards[0]) is None, "the other setting's is to be tried yet"
    assert jobs[1].make(shards[3]) is not None
    assert poison["num_raised"] > raised


def test_what_one_of_several_workers_answers_at_last_is_no_error_any_more(asking, poison, tmp_path):
    """Though results with the error are there until the other setting's is tried again, too."""
    shards = [Shard(number, 6) for number in range(1, 7)]
    job = shared_evaluation(**asking(tmp_path), attempt="first")
    *_, entries = [job.make(shard) for shard in shards]
    assert [entry["num_errors"] for entry in entries] == [1, 1]
    poison["is_on"] = False
    job = shared_evaluation(**asking(tmp_path), attempt="second")
    assert job.make(shards[0]) is None
    assert [entry["num_errors"] for entry in job.make(shards[3])] == [0, 0]
    assert names(tmp_path) == ["results.json", "samples.jsonl"]


def test_what_is_added_later_leaves_alone_what_did_not_fail(asking, poison, tmp_path, monkeypatch):
    first = dict(list(SETTINGS.items())[:1])
    evaluate(**asking(tmp_path, settings=first))
    before = rows(tmp_path)
    poison["is_on"] = False
    entries = evaluate(**asking(tmp_path))
    assert [entry["num_errors"] for entry in entries] == [0, 0]
    assert [row for row in rows(tmp_path)[:5] if row["id"] != "1"] == [r for r in before if r["id"] != "1"]


def test_a_setting_without_any_response_is_an_error(asking, poison, tmp_path):
    how = asking(tmp_path, [f"how many {POISON}s", f"{POISON}s"], max_errors=9)
    problem = r"settings='a B4-T2': every response failed; .*errors\.jsonl lists them"
    with pytest.raises(InputError, match=problem):
        evaluate(**how)
    assert len(told(tmp_path)) == 2
    with pytest.raises(InputError, match=problem):
        for number in range(1, 3):
            shared_evaluation(**how).make(Shard(number, 2))


def test_several_answers_to_a_prompt_fail_one_by_one_and_tasks_without_rules_have_none(
    asking, poison, tmp_path
):
    config = EvalConfig(chunk_size=3, samples_per_prompt=2, latency_samples=3)
    entries = evaluate(**asking(tmp_path, tasks=[EvenTask("a")], config=config, max_errors=4))
    assert [(entry["n"], entry["num_errors"], entry["num_prompts"]) for entry in entries] == [(10, 2, 5)] * 2
    assert {line["id"] for line in told(tmp_path)} == {"1#0", "1#1"}
    assert all(entry["batch1_latency"]["n"] == 2 for entry in entries), "the first two of three that answer"
    assert all(1 <= entry["distinct_answers_per_prompt"] <= 2 for entry in entries)


def test_costs_of_what_failed_count_nowhere(asking, poison, tmp_path):
    entries = evaluate(**asking(tmp_path / "a"))
    poison["is_on"] = False
    evaluate(**asking(tmp_path / "b"))
    compared = compare([read_graded(tmp_path / name) for name in "ab"])
    for cell in compared["cells"]:
        own = [
            [
                row
                for row in rows(tmp_path / name)
                if (row["setting"], row["id"] != "1") == (cell["setting_a"], True)
            ]
            for name in "ab"
        ]
        assert (cell["num_errors_a"], cell["num_errors_b"], cell["n"]) == (1, 0, 5)
        for side, answered in zip("ab", own, strict=True):
            assert cell[f"cost_{side}"]["length"] == sum(row["num_tokens"] for row in answered) / 4
    assert "A, a: 1 responses failed and count as wrong; costs are without them." in compared["notes"]
    means = over_tasks(entries)["B4-T2"]
    lengths = [row["num_tokens"] for row in rows(tmp_path / "a") if row["setting"] == "B4-T2"]
    assert means["tokens_per_second"] == pytest.approx(sum(lengths) / entries[0]["seconds"])
    assert means["n"] == 5


def test_without_a_folder_it_raises_as_ever(asking, poison):
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        evaluate(**asking(None))


def test_the_command_shows_errors_beside_the_accuracy_and_says_last_where_they_are_listed(
    checkpoint, tmp_path, capsys, monkeypatch
):
    fail_at(monkeypatch, "1")
    line = ["eval", "--model", str(checkpoint), "--prompts", str(write_prompts(tmp_path)), "--device", "cpu"]
    line += ["--grader", "exact", "--max-new-tokens", "4", "--output", str(tmp_path / "out")]
    assert "max_errors=0: 1 response failed (prompts B4-T1 '1': RuntimeError: a bug)" in run_failing(
        line, capsys
    )
    assert main([*line, "--max-errors", "1"]) == 0
    text = capsys.readouterr().out.strip()
    assert ", 1 error" in text
    last = f"1 response failed, listed in {tmp_path}/out/errors.jsonl; the same command tries them again"
    assert text.splitlines()[-1] == last
    assert ", 1 error" in (tmp_path / "out" / "report.html").read_text()
    text = run_failing([*line, "--max-errors", "-1"], capsys)
    assert "max_errors=-1: not a number of 0 or more" in text

"""Evaluation of the tiny model in memory: counts, several samples per prompt, verdicts."""

import pytest

from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.evaluation.evaluate import evaluate, grade_responses
from t3d.grading.verdict import Verdict
from t3d.models.loading import load_model
from t3d.problems.problem import Problem
from t3d.tasks.task import PromptFileTask, verdict_of


class LengthTask:
    """Right if the response has an even number of characters; knows its problems."""

    name = "length"

    def problems(self, split, limit, seed):
        return [Problem(id=str(index), question=f"how many {index}") for index in range(limit)]

    def check(self, problem):
        assert problem.question

    def grade(self, problem, response):
        return len(response) % 2 == 0


class ReasonTask(LengthTask):
    """Says why, and grades by a second rule."""

    def assess(self, problem, response):
        late, is_even = problem.id == "3", len(response) % 2 == 0
        reason = "time limit" if late else "equal" if is_even else "unparsed"
        others = {"flexible-extract": problem.id != "0"}
        return Verdict(correct=is_even and not late, extracted=response[:1], reason=reason, others=others)

    def settings(self):
        return {"grader": {"name": "reasons"}}


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu", dtype="float64")


def test_accuracy_is_the_share_of_right_samples_and_interval_holds_it(loaded):
    task = LengthTask()
    result = evaluate(loaded, task, task.problems("", 12, 0), DecodeParams(max_new_tokens=6, temperature=1.0))
    summary = result.summary()
    assert result.num_correct == sum(len(sample.response) % 2 == 0 for sample in result.samples)
    assert summary["accuracy"] == pytest.approx(100 * result.num_correct / 12)
    assert summary["ci95"][0] <= summary["accuracy"] <= summary["ci95"][1]
    assert [sample.id for sample in result.samples] == [str(index) for index in range(12)]
    assert summary["latency"] == summary["seconds"] / 12
    assert sum(summary["finish_reasons"].values()) == 12


def test_samples_of_one_prompt_differ_when_sampled_and_agree_when_greedy(loaded):
    task = LengthTask()
    problems = task.problems("", 3, 0)
    counts = {}
    for temperature in (0.0, 1.0):
        params = DecodeParams(max_new_tokens=6, temperature=temperature)
        result = evaluate(loaded, task, problems, params, samples_per_prompt=4)
        assert result.num_samples == 12
        counts[temperature] = result.distinct_answers_per_prompt
    assert counts[0.0] == 1.0
    assert 1.0 < counts[1.0] <= 4.0


def test_reasons_late_and_unread_answers_and_other_rules_are_counted(loaded):
    task = ReasonTask()
    params = DecodeParams(max_new_tokens=6, temperature=1.0)
    result = evaluate(loaded, task, task.problems("", 8, 0), params)
    plain = evaluate(loaded, LengthTask(), task.problems("", 8, 0), params)
    assert [s.response for s in result.samples] == [s.response for s in plain.samples]
    summary = result.summary()
    assert summary["num_timeouts"] == summary["reasons"]["time limit"] == 1
    assert summary["num_unparsed"] == summary["reasons"].get("unparsed", 0)
    assert summary["reasons"].get("equal", 0) == result.num_correct
    assert summary["flexible-extract"] == 87.5
    row = result.samples[0].row()
    assert row["flexible-extract"] is False and row["extracted"] == result.samples[0].response[:1]
    assert "others" not in row


def test_verdicts_are_in_the_order_of_the_responses():
    task = ReasonTask()
    responses = [(Problem(id=str(index), question="?"), "a" * index) for index in range(20)]
    verdicts = list(grade_responses(task, responses))
    assert [verdict.correct for verdict in verdicts] == [i % 2 == 0 and i != 3 for i in range(20)]
    assert verdict_of(LengthTask(), responses[1][0], "a").reason == "failed"


@pytest.mark.parametrize(
    ("response", "extracted", "reason"),
    [("\\boxed{ 18 }", "18", "equal"), ("\\boxed{19}", "19", "different"), ("18", None, "no answer")],
)
def test_an_answer_to_a_prompt_file_is_the_boxed_text(tmp_path, response, extracted, reason):
    file = tmp_path / "set.jsonl"
    file.write_text('{"question": "a", "answer": "18 "}')
    task = PromptFileTask(file)
    (problem,) = task.problems("test", None, 0)
    verdict = task.assess(problem, response)
    assert (verdict.extracted, verdict.reason, verdict.correct) == (extracted, reason, reason == "equal")
    assert task.grade(problem, response) == verdict.correct


def test_no_problem_is_an_error(loaded):
    with pytest.raises(InputError, match="limit"):
        evaluate(loaded, LengthTask(), [], DecodeParams())

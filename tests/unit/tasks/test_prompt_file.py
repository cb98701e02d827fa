"""Answers to the problems of a prompt file."""

import pytest

from t3d.tasks.task import PromptFileTask


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

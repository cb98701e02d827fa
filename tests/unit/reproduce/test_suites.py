"""The suites' problems: exactly as many as the budget says, and one verifier per task."""

import dataclasses
from collections import Counter

import pytest

from t3d.cli.reproduce import ReproduceCell
from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.reproduce import suite_data
from t3d.reproduce.suite_data import MiniData, SdarData
from t3d.reproduce.suites import MINI, split_problems
from t3d.tasks.mini.suite import TASKS


class Named:
    """A task whose problems say nothing but its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def problems(self, split, limit, seed) -> list[Problem]:
        assert limit, "the tasks refuse to draw none"
        return [Problem(id=str(index), question="?", task=self.name) for index in range(limit)]


@pytest.mark.parametrize(
    ("count", "by_task"),
    [(3072, (1024, 1024, 1024)), (1536, (512, 512, 512)), (100, (34, 33, 33)), (2, (1, 1, 0))],
)
def test_training_problems_are_exactly_as_many_as_asked_for(count, by_task, monkeypatch):
    monkeypatch.setattr(suite_data, "TASKS", {name: Named(name) for name in "abc"})
    problems = MiniData().training_problems(count, 0, solved=False)
    assert len(problems) == count
    counts = Counter(problem.task for problem in problems)
    assert tuple(counts[name] for name in "abc") == by_task


def test_rollouts_of_training_prompts_are_graded_where_there_are_answers(tmp_path):
    """Each by its own task; a file of prompts has none."""
    right, other = TASKS["chain"].problems("train", 2, 0)
    graded = MiniData().sample_grader().grade([(right, right.solution), (right, other.solution)])
    assert graded == [True, False]
    with pytest.raises(InputError, match="training prompts have no answers"):
        SdarData(tmp_path).sample_grader()


def test_a_benchmark_is_one_task_however_often_it_is_asked_for(tmp_path):
    data = SdarData(tmp_path)
    assert data.task("humaneval") is data.task("humaneval") is not data.task("mbpp")


def ood_cell(suite, **data):
    return ReproduceCell(suite=suite, method="original", settings=("B4-T1",), split="ood", **data)


def test_the_split_ood_has_the_tasks_and_the_number_of_problems_of_the_test():
    assert split_problems(MINI, MINI.full, "ood") == split_problems(MINI, MINI.full, "test")
    assert split_problems(MINI, MINI.full, "validation")[1] == MINI.full.validation_limit
    suite, cell = ood_cell("mini", limit=7).spec()
    assert split_problems(suite, suite.full, cell.split) == (MINI.tasks, 7)
    assert cell.label == "mini.original.seed0.ood.B4-T1"
    assert dataclasses.replace(cell, split="test").label == "mini.original.seed0.B4-T1"
    assert dataclasses.replace(cell, split="validation").label == "mini.original.seed0.B4-T1"


def test_a_split_that_a_suite_does_not_have_is_refused_before_the_work(tmp_path):
    with pytest.raises(InputError, match="split='ood': suite 'sdar' has no such split"):
        ood_cell("sdar", data=str(tmp_path)).spec()
    with pytest.raises(InputError, match="use validation or test or ood"):
        split_problems(MINI, MINI.full, "train")

"""Files of prompts: answers by value, by the released code's rule, or by text; words are no products."""

import json

import pytest

from t3d.errors import InputError
from t3d.grading import math as math_grading
from t3d.tasks.prompt_file import PromptFileTask
from t3d.tasks.task import ExplainingTask

GRADERS = ("math_verify", "legacy", "exact")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A task by grader; its workers end with the tests."""
    made = {
        name: PromptFileTask(tmp_path_factory.mktemp(name) / "set.jsonl", grader=name) for name in GRADERS
    }
    yield made
    for task in made.values():
        task.close()


def assess(task, response, gold):
    """The verdict on a response to the file's only problem."""
    task.path.write_text(json.dumps({"question": "a", "answer": gold}))
    (problem,) = task.problems("test", None, 0)
    verdict = task.assess(problem, response)
    assert task.grade(problem, response) == verdict.correct == (verdict.reason == "equal")
    assert verdict.grader == task.settings()["grader"]["name"] and isinstance(task, ExplainingTask)
    return verdict


@pytest.mark.parametrize("grader", GRADERS)
@pytest.mark.parametrize(
    ("response", "extracted", "reason"),
    [("\\boxed{ 18 }", "18", "equal"), ("\\boxed{19}", "19", "different"), ("18", None, "no answer")],
)
def test_the_last_box_is_the_answer(tasks, grader, response, extracted, reason):
    verdict = assess(tasks[grader], response, "18 ")
    found = None if verdict.extracted is None else verdict.extracted.strip()
    assert (found, verdict.reason) == (extracted, reason)


@pytest.mark.parametrize(
    ("box", "gold"),
    [
        (r"\frac{1}{2}", "0.5"),
        (r"\$18", "18"),
        ("1,080", "1080"),
        ("10\\%", "10"),
        (r"18\text{ dollars}", "18"),
    ],
)
def test_values_are_compared_by_math_verify_and_texts_by_exact(tasks, box, gold):
    response = f"so \\boxed{{{box}}}"
    assert assess(tasks["math_verify"], response, gold).reason == "equal"
    assert assess(tasks["exact"], response, gold).reason == "different"


@pytest.mark.parametrize("grader", GRADERS)
@pytest.mark.parametrize(
    "text", ["Paris", "yes", "K7Q", "word_1", "12:30", "blue fox", "9^{9^{9^{9}}}", "nan", "x=", "a{b}c", ""]
)
def test_the_gold_answers_own_text_is_right_under_every_grader(tasks, grader, text):
    assert assess(tasks[grader], f"\\boxed{{{text}}}", text).reason == "equal"


@pytest.mark.parametrize(
    ("box", "gold", "is_right"),
    [
        ("no", "on", False),
        ("tab", "bat", False),
        ("sey", "yes", False),
        ("blue fox", "fox blue", False),
        ("7KQ", "K7Q", False),
        ("paris", "Paris", False),
        ("5", "5 cm", True),
        ("4", "5 cm", False),
        (r"\frac{yx}{2}", r"\frac{xy}{2}", True),
        (r"\text{Paris}", "Paris", True),
        ("Paris.", "Paris", True),
        ("5.0 cm", "5 cm", True),
        ("1+xy", "xy+1", True),
        ("b + a", "a + b", True),
        (r"\pi r^2", r"r^2\pi", True),
    ],
)
def test_a_word_is_no_product_of_its_letters(tasks, box, gold, is_right):
    """math-verify alone takes all of these for equal, but 4 and 5 cm."""
    assert assess(tasks["math_verify"], f"\\boxed{{{box}}}", gold).correct == is_right


def test_the_grader_is_recorded(tasks):
    settings = {name: task.settings()["grader"] for name, task in tasks.items()}
    assert "math-verify" in settings["math_verify"]["versions"] and settings["legacy"]["name"] == "legacy"
    assert settings["exact"] == {"name": "exact"}


def test_only_grading_needs_the_graders_packages(tmp_path, monkeypatch):
    """A rollout of the file does not; ``exact`` never does."""

    def missing(package):
        raise math_grading.PackageNotFoundError(package)

    monkeypatch.setattr(math_grading, "version", missing)
    (tmp_path / "set.jsonl").write_text('{"question": "a", "answer": "18"}')
    task = PromptFileTask(tmp_path / "set.jsonl")
    (problem,) = task.problems("test", None, 0)
    with pytest.raises(InputError, match=r"grader='math_verify': needs .*t3d\[eval\]'.* --grader exact"):
        task.check(problem)
    exact = PromptFileTask(tmp_path / "set.jsonl", grader="exact")
    exact.check(problem)
    assert exact.grade(problem, r"\boxed{18}")


def test_a_problem_without_an_answer_is_refused(tmp_path):
    (tmp_path / "set.jsonl").write_text('{"question": "a"}')
    task = PromptFileTask(tmp_path / "set.jsonl")
    (problem,) = task.problems("test", None, 0)
    with pytest.raises(InputError, match="no gold answer"):
        task.check(problem)

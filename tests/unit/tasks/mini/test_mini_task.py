"""Every task of the suite: solutions are right, distinct and drawn evenly; held-out specs are held out."""

import dataclasses
import hashlib
import random
from collections import Counter

import pytest

from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.problems.prompts import prompt_ids, token_ids, token_text
from t3d.reproduce.settings import MAX_NEW_TOKENS
from t3d.tasks.mini.chain import ChainSpec, ChainTask
from t3d.tasks.mini.code import CodeSpec, ProgramTask
from t3d.tasks.mini.make import MakeSpec, all_specs
from t3d.tasks.mini.suite import TASKS, mini_task
from t3d.tasks.mini.tokenizer import mini_tokenizer

SPLITS = ("train", "validation", "test")
SPEC_OF = {"chain": ChainSpec.of_question, "make": MakeSpec.of_question, "code": CodeSpec.of_question}


PROBLEMS = {  # by the commit before there was the split ood
    "chain": ("ff96d3143765f934", "919d89e61c46d6e4", "2b0b9b2bf925b8ba"),
    "make": ("0dd35b1f7c35e58f", "01782a1e17c2f64f", "e23a7331c875064a"),
    "code": ("45b46682cfa760d8", "8dc8b03d176f2343", "f903226472fbc006"),
}
"""Hash of 100 problems and solutions with seed 0 and as many with seed 7, of each of SPLITS."""
VOCABULARY = "c98cc1c12552c957"
UNSEEN = {"chain": {0}, "make": {(3, 12), (3, 13)}, "code": {1}}
"""What the split ``ood`` has, and no other: first amounts, digits with total, factors."""


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("split", [*SPLITS, "ood"])
def test_every_drawn_solution_is_right_and_among_the_solutions(name, split):
    task, rng = TASKS[name], random.Random(0)
    for _ in range(100):
        problem, solution = task.draw(rng, split)
        task.check(problem)
        assert task.grade(problem, solution)
        assert solution in task.solutions(problem.question)
        assert SPEC_OF[name](problem.question).split == split


@pytest.mark.parametrize("name", TASKS)
def test_solutions_are_several_and_right(name):
    task, rng = TASKS[name], random.Random(1)
    for _ in range(10):
        problem, _ = task.draw(rng, "train")
        solutions = task.solutions(problem.question)
        assert len(set(solutions)) >= 4
        assert name == "code" or len(set(solutions)) == len(solutions)  # code lists likelier ones more often
        assert all(task.grade(problem, solution) for solution in rng.sample(solutions, 4))


@pytest.mark.many_inputs
@pytest.mark.parametrize("name", TASKS)
def test_draw_gives_each_solution_as_often_as_it_is_listed(name, monkeypatch):
    """Chi-square of 30 draws per listed solution stays within six standard deviations of its mean."""
    task, rng = TASKS[name], random.Random(2)
    question = min(
        (task.draw(rng, "train")[0].question for _ in range(50)), key=lambda q: len(task.solutions(q))
    )
    spec = SPEC_OF[name](question)
    if name == "make":
        monkeypatch.setattr("t3d.tasks.mini.make._specs_of_split", lambda split: (spec,))
    else:
        monkeypatch.setattr(type(task), "draw_spec", staticmethod(lambda rng, split: spec))
    solutions = task.solutions(question)
    if name == "chain":  # the wording of the solution does not depend on the story's
        draws = [
            task._draw_solution(rng, spec, *_name_and_item(question)) for _ in range(30 * len(solutions))
        ]
    else:
        draws = [task.draw(rng, "train")[1] for _ in range(30 * len(solutions))]
    counts, listed = Counter(draws), Counter(solutions)
    assert set(counts) == set(listed)
    freedom = len(listed) - 1
    chi_square = sum((counts[text] - 30 * times) ** 2 / (30 * times) for text, times in listed.items())
    assert abs(chi_square - freedom) < 6 * (2 * freedom) ** 0.5


def _name_and_item(question):
    words = question.replace(",", "").split()
    return words[0], words[3]


@pytest.mark.parametrize("name", ["chain", "code"])
def test_splits_share_no_specification_and_there_are_more_than_five_thousand(name):
    rng, seen = random.Random(0), {}
    for split in SPLITS:
        specs = (TASKS[name].draw_spec(rng, split) for _ in range(6000 if split == "train" else 300))
        seen[split] = set(specs)
    assert len(seen["train"]) >= 5000
    assert not seen["train"] & (seen["test"] | seen["validation"])
    assert not seen["test"] & seen["validation"]


def test_make_has_more_than_five_thousand_specifications_and_each_is_in_one_split():
    counts = Counter(spec.split for spec in all_specs())
    assert len(set(all_specs())) == counts.total() >= 5000
    assert set(counts) == set(SPLITS)
    assert counts["test"] >= 512


@pytest.mark.many_inputs
@pytest.mark.parametrize("name", TASKS)
def test_problems_are_distinct_and_a_function_of_split_and_seed(name):
    task = TASKS[name]
    problems = task.problems("test", 300, seed=5)
    assert len({problem.question for problem in problems}) == len({problem.id for problem in problems}) == 300
    assert problems == task.problems("test", 300, seed=5)
    assert problems[:100] == task.problems("test", 100, seed=5)
    assert problems != task.problems("test", 300, seed=6)
    assert len(task.problems("test", None, seed=5)) == 512


@pytest.mark.parametrize("name", TASKS)
def test_every_problem_carries_one_of_its_solutions(name):
    task = TASKS[name]
    problems = task.problems("train", 50, seed=5)
    assert all(problem.solution in task.solutions(problem.question) for problem in problems)


def test_more_problems_than_a_split_has_are_refused(monkeypatch):
    specs = tuple(spec for spec in all_specs()[:200] if spec.split == "test")
    monkeypatch.setattr("t3d.tasks.mini.make._specs_of_split", lambda split: specs)
    assert len(TASKS["make"].problems("test", len(specs), seed=0)) == len(specs) > 5
    assert len(TASKS["make"].problems("test", None, seed=0)) == len(specs)
    with pytest.raises(InputError, match=f"use at most {len(specs)}"):
        TASKS["make"].problems("test", len(specs) + 1, seed=0)
    with pytest.raises(InputError, match="split='dev'"):
        TASKS["make"].problems("dev", 5, seed=0)
    with pytest.raises(InputError, match="split='dev'"):
        ChainTask().problems("dev", 5, seed=0)
    with pytest.raises(InputError, match="use one of chain, make, code"):
        mini_task("sudoku")


@pytest.mark.parametrize("name", TASKS)
def test_problems_of_the_other_splits_are_those_that_they_always_were(name):
    """Committed results are of these problems; another one would give them another meaning."""
    for split, expected in zip(SPLITS, PROBLEMS[name], strict=True):
        problems = [problem for seed in (0, 7) for problem in TASKS[name].problems(split, 100, seed)]
        lines = (f"{each.id}|{each.question}|{each.answer}|{each.solution}" for each in problems)
        assert _hash("\n".join(lines)) == expected, split


def test_the_vocabulary_is_that_of_the_bundled_teachers():
    assert _hash(repr(sorted(mini_tokenizer().get_vocab().items()))) == VOCABULARY


def _hash(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _number(name, spec):
    if name == "make":
        return spec.num_digits, spec.total
    return spec.start if name == "chain" else spec.factor


@pytest.mark.parametrize("name", TASKS)
def test_problems_of_the_split_ood_have_a_number_that_no_other_split_has_in_its_place(name):
    numbers = {
        split: {_number(name, SPEC_OF[name](each.question)) for each in TASKS[name].problems(split, 100, 0)}
        for split in (*SPLITS, "ood")
    }
    assert numbers["ood"] == UNSEEN[name]
    assert all(not numbers["ood"] & numbers[split] for split in SPLITS)


@pytest.mark.parametrize("name", TASKS)
def test_problems_of_the_split_ood_are_enough_and_take_no_new_word_and_no_more_room(name):
    tokenizer, task = mini_tokenizer(), TASKS[name]
    problems = task.problems("ood", None, 3)
    assert len({each.question for each in problems}) == 512
    split_up = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    for problem in problems[:100]:
        longest = max(task.solutions(problem.question), key=lambda text: len(split_up(text)))
        for text in (problem.question, longest):
            assert len(token_ids(tokenizer, text)) == len(split_up(text))
        assert len(token_ids(tokenizer, longest)) < MAX_NEW_TOKENS
        assert len(prompt_ids(tokenizer, problem.question)) + MAX_NEW_TOKENS < 128


@pytest.mark.parametrize("name", TASKS)
def test_a_foreign_question_is_refused_before_anything_is_decoded(name):
    with pytest.raises(InputError, match=f"not a {name}"):
        TASKS[name].check(Problem(id="x", question="What is two plus two?"))
    with pytest.raises(InputError, match=f"not a {name}"):
        TASKS[name].solutions("What is two plus two?")


@pytest.mark.parametrize(
    "question",
    [
        "Make 99 with 3 digits.",
        "Make 12 with 9 digits.",
        "Make 12 with 4 digits, no 3 or 3.",
        "Make 12 with 4 digits, no 5 or 3.",
        "Make 12 with 4 digits, no 5, use a 5.",
        "Make 12 with 4 digits, no 0.",
        "Make 6 with 5 digits, use a 2, no 1.",
        "Make 12 with \u0664 digits.",
        "Write f: times 0, plus 4, if over 20 then minus 5.",
        "Write f: times 3, plus 4, if over 99 then minus 5.",
    ],
)
def test_a_question_outside_the_task_s_ranges_is_refused(question):
    task = TASKS["make" if question.startswith("Make") else "code"]
    with pytest.raises(InputError, match=f"not a {task.name}"):
        task.check(Problem(id="x", question=question))


def test_every_word_is_one_token_and_any_text_survives():
    tokenizer, rng = mini_tokenizer(), random.Random(2)
    assert len(tokenizer) <= 512
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    for task in TASKS.values():
        for _ in range(200):
            problem, solution = task.draw(rng, "train")
            for text in (problem.question, solution):
                assert len(token_ids(tokenizer, text)) == len(pre_tokenizer.pre_tokenize_str(text))
                assert token_text(tokenizer, token_ids(tokenizer, text)) == text
    for text in ("na\u00efve \U0001f600 text\n\twith tabs", "def f(x): return x**2", "42 and 4711"):
        assert token_text(tokenizer, token_ids(tokenizer, text)) == text
    for number in range(100):
        assert len(token_ids(tokenizer, f" {number}")) == 1


@pytest.mark.many_inputs
def test_every_problem_and_solution_fits_the_demo_and_the_teacher():
    tokenizer, rng = mini_tokenizer(), random.Random(3)
    for task in TASKS.values():
        for _ in range(300):
            problem, solution = task.draw(rng, "train")
            assert len(token_ids(tokenizer, solution)) < MAX_NEW_TOKENS
            assert len(prompt_ids(tokenizer, problem.question)) + MAX_NEW_TOKENS < 128


@pytest.mark.many_inputs
def test_code_test_inputs_tell_every_wrong_constant_apart():
    """Changing any one part of a spec changes some test output, except where the functions are equal."""
    rng = random.Random(4)
    for _ in range(100):
        spec = ProgramTask.draw_spec(rng, "train")
        inputs = spec.test_inputs()
        expected = [spec.value(x) for x in inputs]
        for part in ("factor", "offset", "threshold", "change"):
            for delta in (-1, 1):
                other = dataclasses.replace(spec, **{part: getattr(spec, part) + delta})
                wide = range(-100, 400)
                if [other.value(x) for x in wide] != [spec.value(x) for x in wide]:
                    assert [other.value(x) for x in inputs] != expected, (spec, part, delta)

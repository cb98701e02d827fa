"""The chain task: every drawn solution is right, held-out arithmetic is held out, the grader is strict."""

import random

import pytest

from t3d.data.prompts import Problem
from t3d.errors import InputError
from t3d.mini.chain import ChainSpec, ChainTask
from t3d.mini.tokenizer import MAX_VOCAB_SIZE, build_mini_tokenizer

TASK = ChainTask()
SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("split", SPLITS)
def test_every_drawn_solution_is_graded_right(split):
    rng = random.Random(0)
    for _ in range(500):
        problem, solution = TASK.draw(rng, split)
        assert TASK.grade(problem, solution)


def test_working_and_box_must_both_be_right():
    """9 - 4 = 5, 5 + 2 = 7, 7 - 3 = 4."""
    story = "Gus has 9 nuts, first drops 4, then gets 2, next sells 3. How many now?"
    problem = Problem(id="x", question=story, answer="4")
    steps = ["First 9 - 4 = 5.", "Then Gus now has 7, 2 more.", "Next from 7 down 3 to 4."]

    def right(*sentences):
        return TASK.grade(problem, " ".join(sentences))

    assert right(*steps, "So \\boxed{4}.")
    assert right("First 5 it is.", *steps[1:], "So \\boxed{4}.")  # wording is free
    assert not right(*steps, "So \\boxed{5}.")
    assert not right(*steps, "So 4.")
    assert not right("First 9 - 4 = 6.", *steps[1:], "So \\boxed{4}.")
    assert not right(*steps[1:], "So \\boxed{4}.")
    assert not right("So \\boxed{4}.")
    assert not right("")


def test_arithmetic_is_read_back_from_every_question():
    rng = random.Random(3)
    for _ in range(300):
        problem, _ = TASK.draw(rng, "train")
        spec = ChainSpec.of_question(problem.question)
        assert spec.split == "train"
        assert str(spec.totals[-1]) == problem.answer
    with pytest.raises(InputError, match="not a chain story"):
        ChainSpec.of_question("What is two plus two?")


def test_splits_share_no_arithmetic_and_cover_more_than_five_thousand_specs():
    specs = {split: set() for split in SPLITS}
    rng = random.Random(0)
    for split in SPLITS:
        for _ in range(6000 if split == "train" else 200):
            spec = TASK.draw_spec(rng, split)
            assert spec.split == split
            specs[split].add(spec)
    assert len(specs["train"]) >= 5000
    assert not specs["train"] & specs["test"]
    assert not specs["train"] & specs["validation"]


def test_totals_stay_between_zero_and_nine():
    rng = random.Random(1)
    assert all(0 <= total <= 9 for _ in range(2000) for total in TASK.draw_spec(rng, "train").totals)
    assert ChainSpec(3, (4, -7)).totals == (3, 7, 0)


def test_problems_are_distinct_and_a_function_of_split_and_seed():
    problems = TASK.problems("test", 300, seed=5)
    assert len({problem.question for problem in problems}) == len({problem.id for problem in problems}) == 300
    assert problems == TASK.problems("test", 300, seed=5)
    assert problems[:100] == TASK.problems("test", 100, seed=5)
    assert problems != TASK.problems("test", 300, seed=6)


def test_every_word_is_one_token_and_any_text_survives():
    tokenizer = build_mini_tokenizer(TASK.corpus_words())
    assert len(tokenizer) <= MAX_VOCAB_SIZE
    rng = random.Random(2)
    for _ in range(300):
        _, solution = TASK.draw(rng, "train")
        words = solution.replace(".", " .").replace(",", " ,").split()
        # "\boxed{7}." is five tokens: backslash, boxed, brace, digit, brace with full stop.
        assert len(tokenizer(solution)["input_ids"]) <= len(words) + 4
    for text in ("na\u00efve \U0001f600 text\n\twith tabs", "def f(x): return x**2", "42 and 4711"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    for number in range(100):
        assert len(tokenizer(f" {number}")["input_ids"]) == 1

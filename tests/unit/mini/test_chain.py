"""The chain task: every drawn solution is right, held-out arithmetic is held out, the grader is strict."""

import random

import pytest

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

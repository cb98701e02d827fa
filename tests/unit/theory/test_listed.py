"""Total correlation and modes of a posterior over listed solutions, by hand."""

import math

import numpy as np
import pytest

from t3d.problems.prompts import prompt_ids, token_ids
from t3d.tasks.mini.listed import listed_solutions, question_of
from t3d.tasks.mini.suite import TASKS
from t3d.tasks.mini.tokenizer import mini_tokenizer
from t3d.theory.listed import correlation_of, score_steps, summary_of_steps
from t3d.trajectory import Trajectory

SOLUTIONS = np.array([[1, 1, 5, 7], [2, 2, 5, 7], [1, 1, 6, 7], [2, 2, 6, 7]])


def record(response, steps, visible_length=4) -> Trajectory:
    return Trajectory(
        id="a",
        prompt_ids=(0, 0),
        response_ids=response,
        step_map=steps,
        visible_length=visible_length,
        finish_reason="length",
        block_size=2,
        mask_token_id=9,
    )


def test_the_correlation_of_rows_is_what_their_columns_share():
    """Two equal columns share ln 2, independent ones nothing; a repeated row is likelier."""
    assert correlation_of(SOLUTIONS[:, :2]) == pytest.approx(math.log(2))
    assert correlation_of(SOLUTIONS[:, 1:3]) == 0
    p, columns = [0.5, 0.25, 0.25], -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    rows = -sum(x * math.log(x) for x in p)
    assert correlation_of(np.array([[1, 1], [1, 1], [1, 2], [2, 1]])) == pytest.approx(2 * columns - rows)


def test_steps_are_scored_where_they_begin_until_no_solution_agrees():
    """Blocks of two: the first pair shares ln 2, or nothing where its tokens come one by one; 8 is no
    solution's."""
    good = record((1, 1, 6, 7), (1, 2, 3, 4))
    together = score_steps(SOLUTIONS, good, 3, tokens_per_step=2, block_size=2)
    assert [score.correlation for score in together] == pytest.approx([math.log(2), 0])
    assert [(score.trajectory, score.masks_left, score.num_modes) for score in together] == [
        (3, 2, 2),
        (3, 2, 2),
    ]
    alone = score_steps(SOLUTIONS, good, 3, tokens_per_step=1, block_size=2)
    assert [score.correlation for score in alone] == [0, 0, 0, 0]
    assert [score.num_modes for score in alone] == [2, 1, 2, 1]
    bad = score_steps(SOLUTIONS, record((1, 8, 6, 7), (1, 2, 3, 4)), 4, tokens_per_step=2, block_size=2)
    assert [score.correlation for score in bad] == [pytest.approx(math.log(2)), None]
    report = summary_of_steps([*together, *bad])
    assert report["num_steps"] == 4 and report["num_unlisted"] == 1
    assert report["all"]["mean"] == pytest.approx((math.log(2) / 4 + math.log(2) / 2) / 2)
    assert report["all"]["modes"] == 2 and list(report["by_masks_left"]) == ["2"]
    assert summary_of_steps([bad[1]])["all"] is None


def test_blocks_behind_the_visible_end_are_left_out():
    short = record((1, 1, 6, 7), (1, 2, 3, 4), visible_length=2)
    assert len(score_steps(SOLUTIONS, short, 0, tokens_per_step=1, block_size=2)) == 2


def test_a_prompt_leads_back_to_its_question_and_its_solutions():
    tokenizer, task = mini_tokenizer(), TASKS["make"]
    (problem,) = task.problems("test", 1, 0)
    assert question_of(tokenizer, tuple(prompt_ids(tokenizer, problem.question))) == problem.question
    assert question_of(tokenizer, tuple(token_ids(tokenizer, "how many?"))) is None
    rows = listed_solutions(task, problem.question, tokenizer, 80)
    assert rows.shape == (len(task.solutions(problem.question)), 80)

"""Real solutions as training records."""

import dataclasses

import pytest

from t3d.errors import InputError
from t3d.interchange.solutions import solution_trajectory, turn_stop_id
from t3d.interchange.validate import model_problems, own_problems
from t3d.models.loading import load_tokenizer
from t3d.problems.problem import Problem
from t3d.problems.prompts import chat_ids, prompt_ids, token_text
from t3d.tasks.mini.suite import TASKS

MINI = load_tokenizer("mini")
TURN_END, PAD = (int(MINI.tokenizer.convert_tokens_to_ids(name)) for name in ("<|im_end|>", "<|endoftext|>"))


@pytest.mark.many_inputs
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("block_size", [1, 4, 8])
def test_a_record_is_the_solution_the_turn_s_end_and_pads(name, block_size):
    for problem in TASKS[name].problems("train", 20, seed=3):
        record = solution_trajectory(problem, MINI, block_size)
        assert record.prompt_ids == tuple(prompt_ids(MINI.tokenizer, problem.question))
        *answer, stop = record.response_ids[: record.visible_length]
        assert token_text(MINI.tokenizer, answer) == problem.solution
        assert TASKS[name].grade(problem, problem.solution)
        assert stop == TURN_END
        filler = record.response_ids[record.visible_length :]
        assert set(filler) <= {PAD} and len(filler) < block_size
        assert (len(record.prompt_ids) + len(record.response_ids)) % block_size == 0
        assert (record.id, record.task, record.finish_reason) == (problem.id, name, "stop")
        assert record.decode_params == {"source": "solutions"}
        assert not list(own_problems(record))
        assert not list(model_problems(record, MINI, MINI.tokenizer_hash))


def test_each_block_is_one_step():
    """Prompt of 5, answer of 6 and its stop, blocks of 4: 3 tokens, 4 tokens, and no filler is missing."""
    problem = Problem(id="a", question="so", solution=" apples left now how many apples")
    record = solution_trajectory(problem, MINI, 4)
    blocks = record.blocks(record.step_map, 4)
    assert [set(block) for block in blocks] == [{step} for step in range(1, len(blocks) + 1)]


@pytest.mark.parametrize("solution", [None, ""])
def test_a_problem_without_a_solution_is_named(solution):
    with pytest.raises(InputError, match=r"solution=.*problem 'a' has none"):
        solution_trajectory(Problem(id="a", question="so", solution=solution), MINI, 4)


@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>", "<|MASK|>"])
def test_a_special_token_in_the_text_is_named(token):
    with pytest.raises(InputError, match="has the special token"):
        solution_trajectory(Problem(id="a", question="so", solution=f"5{token}"), MINI, 4)


def test_the_stop_is_the_chat_template_s_or_the_end_of_text():
    assert turn_stop_id(MINI) == TURN_END
    assert TURN_END in chat_ids(MINI.tokenizer, [{"role": "assistant", "content": "a"}])
    assert turn_stop_id(dataclasses.replace(MINI, stop_token_ids=(PAD,))) == PAD

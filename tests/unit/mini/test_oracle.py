"""The oracle is the exact posterior over the solutions, and full-step decoding with it is always right."""

import math

import pytest
import torch

from t3d.decoding.params import DecodeParams
from t3d.mini.oracle import Oracle, decode_oracle, oracle_results
from t3d.problems.problem import Problem
from t3d.problems.prompts import token_ids, token_text
from t3d.tasks.mini.mini_task import MiniTask
from t3d.tasks.mini.suite import TASKS
from t3d.tasks.mini.tokenizer import mini_tokenizer

TOKENIZER = mini_tokenizer()
MASK = TOKENIZER.mask_token_id


class TwoWords(MiniTask):
    """A task with the equally likely solutions "first nuts", "first pens", "then pens"."""

    name = "two-words"

    def solutions(self, question):
        return ["first nuts", "first pens", "then pens"]

    def draw(self, rng, split):
        raise NotImplementedError

    check = spec_of = grade = corpus_words = draw


PROBLEM = Problem(id="p", question="has")


def posterior(response_ids):
    oracle = Oracle(TwoWords(), PROBLEM, TOKENIZER, num_positions=8)
    ids = torch.tensor([[*oracle.prompt_ids, *response_ids]])
    logits = oracle.forward(input_ids=ids, position_ids=torch.arange(ids.shape[1])[None]).logits
    return logits[0, len(oracle.prompt_ids) :].exp()


def ids_of(text):
    return token_ids(TOKENIZER, text)


def test_masked_tokens_have_their_share_of_the_solutions():
    """Of three solutions two start with "first" and two end with "pens"."""
    probability = posterior([MASK, MASK, MASK])
    (first,), (then,) = ids_of("first"), ids_of("then")
    (nuts,), (pens,) = ids_of(" nuts"), ids_of(" pens")
    assert probability[0, [first, then]].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert probability[1, [nuts, pens]].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert probability.sum(1).tolist() == pytest.approx([1, 1, 1])
    assert probability[2, TOKENIZER.convert_tokens_to_ids("<|im_end|>")] == 1


def test_a_solution_listed_twice_counts_twice(monkeypatch):
    monkeypatch.setattr(
        TwoWords, "solutions", lambda self, question: [*2 * ["first nuts"], "then pens", "then cups"]
    )
    (first,), (then,) = ids_of("first"), ids_of("then")
    assert posterior([MASK, MASK])[0, [first, then]].tolist() == pytest.approx([0.5, 0.5])
    assert posterior([MASK, MASK])[1, ids_of(" nuts")].item() == pytest.approx(0.5)


def test_visible_tokens_leave_only_the_solutions_that_agree():
    (then,), (pens,) = ids_of("then"), ids_of(" pens")
    assert posterior([then, MASK])[1, pens] == 1
    probability = posterior([MASK, pens])
    assert probability[0, [*ids_of("first"), then]].tolist() == pytest.approx([0.5, 0.5])


def test_where_nothing_agrees_the_closest_solutions_count():
    """ "then nuts" is no solution; "first nuts" and "then pens" agree with one of its words."""
    end = posterior([*ids_of("then"), *ids_of(" nuts"), MASK])[2]
    assert end[TOKENIZER.convert_tokens_to_ids("<|im_end|>")] == 1
    after_odd_word = posterior([*ids_of(" cups"), MASK])[1]
    assert after_odd_word[ids_of(" pens")].item() == pytest.approx(2 / 3)


@pytest.mark.many_inputs
def test_one_step_mixes_solutions_as_often_as_independent_draws_do():
    """At T = 1 both words at once: P(right) = 2/3 * 1/3 + 2/3 * 2/3 + 1/3 * 2/3 = 8/9."""
    params = DecodeParams(block_size=4, steps_per_block=1, temperature=1.0, max_new_tokens=4)
    oracle = Oracle(TwoWords(), PROBLEM, TOKENIZER, num_positions=8)
    texts = [
        token_text(TOKENIZER, decode_oracle(oracle, str(index), params).visible_ids) for index in range(400)
    ]
    share = sum(text in TwoWords().solutions("") for text in texts) / len(texts)
    assert share == pytest.approx(8 / 9, abs=5 * math.sqrt(8 / 81 / 400))


@pytest.mark.many_inputs
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(("block_size", "temperature"), [(4, 0.1), (8, 1.0)])
def test_one_token_per_step_is_always_right(name, block_size, temperature):
    task = TASKS[name]
    params = DecodeParams(
        block_size=block_size, steps_per_block=block_size, temperature=temperature, max_new_tokens=56
    )
    problems = task.problems("test", 4, seed=0)
    assert oracle_results(task, problems, {"full": params}, TOKENIZER) == {"full": 4}

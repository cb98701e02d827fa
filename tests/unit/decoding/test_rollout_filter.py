"""Which of a prompt's samples a filter keeps, and which settings have no use."""

import dataclasses
import math
from itertools import permutations

import pytest

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout_filter import SampleGrader, ScoredSample, TeacherScore, kept_samples
from t3d.decoding.sample_choice import SampleChoice, scored_sample
from t3d.decoding.teacher_scorer import TeacherScorer
from t3d.errors import InputError
from t3d.problems.problem import Problem

SAMPLED = DecodeParams(temperature=1.0)


def sample(number, mean_logprob, num_steps, is_correct=None):
    return ScoredSample(
        number=number, mean_logprob=mean_logprob, num_denoising_steps=num_steps, is_correct=is_correct
    )


SAMPLES = [
    sample(0, -0.1, 9, False),
    sample(1, -0.7, 4, False),
    sample(2, -0.2, 8, True),
    sample(3, -0.3, 6, True),
    sample(4, -0.4, 6, True),
]


@pytest.mark.parametrize(
    ("rollout_filter", "numbers"),
    [
        ("none", [0, 1, 2, 3, 4]),
        ("likelihood", [0]),
        ("fewest_steps", [1]),
        ("correct", [2, 3, 4]),
        ("correct_fewest_steps", [3]),
    ],
)
def test_each_filter_goes_by_its_own_score(rollout_filter, numbers):
    assert [kept.number for kept in kept_samples(SAMPLES, rollout_filter)] == numbers


def test_a_tie_of_steps_goes_to_the_likelier_sample_and_then_to_the_first():
    tied = [sample(0, -0.5, 3), sample(1, -0.2, 3), sample(2, -0.2, 3), sample(3, -0.1, 4)]
    for order in permutations(tied):
        assert [kept.number for kept in kept_samples(order, "fewest_steps")] == [1]
        assert [kept.number for kept in kept_samples(order[:4], "likelihood")] == [3]
    assert kept_samples([sample(1, -0.2, 3), sample(0, -0.2, 3)], "likelihood")[0].number == 0


@pytest.mark.parametrize("rollout_filter", ["correct", "correct_fewest_steps"])
def test_a_prompt_without_a_right_sample_keeps_none(rollout_filter):
    assert kept_samples(SAMPLES[:2], rollout_filter) == []


def scored(number, logprob, least_probability):
    score = TeacherScore(logprob=logprob, least_logprob=math.log(least_probability))
    return dataclasses.replace(sample(number, -0.1, 3), teacher=score)


def test_the_teacher_is_asked_which_answer_is_likeliest_of_those_it_finds_likely_everywhere():
    unlikely, kept, second = scored(0, -2.5, 0.0999), scored(1, -3.0, 0.1001), scored(2, -3.5, 0.9)
    unfinished = sample(3, -0.1, 3)
    for order in permutations([unlikely, kept, second, unfinished]):
        assert kept_samples(order, "teacher") == [kept]
    assert kept_samples([unlikely, unfinished], "teacher") == [], "none is good enough"
    tied = scored(0, -3.0, 0.5)
    assert kept_samples([kept, tied], "teacher") == [tied], "the first"


def completion(name, text="", logprobs=(-1.0, -3.0, -50.0)):
    """An answer of two tokens, and one token of filler."""
    return Completion(
        id=name,
        prompt_ids=(1,),
        response_ids=(2, 0, 0),
        step_map=(1, 2, 3),
        logprobs=logprobs,
        visible_length=2,
        finish_reason="stop",
        num_denoising_steps=3,
        params=SAMPLED,
        mask_token_id=9,
        text=text,
    )


def test_the_likelihood_is_that_of_the_answer_without_its_filler():
    assert scored_sample(4, completion("a"), None) == sample(4, -2.0, 3)


def test_samples_are_graded_with_their_own_problem_and_kept_in_order():
    problems = [Problem(id=name, question="?", answer=name) for name in ("x", "y#1", "z")]
    right = SampleGrader(grade=lambda pairs: [problem.answer == text for problem, text in pairs])
    choice = SampleChoice(num_samples=2, rollout_filter="correct", grader=right)
    texts = {"x#0": "y#1", "x#1": "x", "y#1#0": "y#1", "y#1#1": "y#1", "z#0": "x", "z#1": "x"}
    kept = choice.kept(problems, [completion(name, text) for name, text in texts.items()])
    assert [one.id for one in kept] == ["x#1", "y#1#0", "y#1#1"]
    answered = choice.problems_of((one.id for one in kept), problems)
    assert [problem.id for problem in answered] == ["x", "y#1", "y#1"]


def test_one_sample_of_a_prompt_keeps_the_prompts_id():
    request = DecodeRequest(id="a", prompt_ids=(1,))
    assert request.samples(1) == [request]
    assert [one.id for one in request.samples(3)] == ["a#0", "a#1", "a#2"]
    assert SampleChoice().plan([]) == {}


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"temperature": 0}, "all samples of a prompt are the same at temperature=0"),
        ({"temperature": 0, "remasking": "self_speculative"}, "the same at temperature=0"),
        ({"temperature": 1.0, "top_k": 1}, "all samples of a prompt are the same at top_k=1"),
    ],
)
def test_samples_that_cannot_differ_are_refused(params, problem):
    with pytest.raises(InputError, match=problem):
        SampleChoice(num_samples=2).check(DecodeParams(**params))
    SampleChoice().check(DecodeParams(**params))


def test_a_random_order_makes_greedy_samples_differ():
    SampleChoice(num_samples=2).check(DecodeParams(temperature=0, remasking="random"))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"num_samples": 0}, "num_samples=0: not positive"),
        ({"rollout_filter": "likelihood"}, "each prompt has one sample, which it keeps"),
        ({"rollout_filter": "fewest_steps"}, "use num_samples=2 or more"),
        ({"num_samples": 2, "rollout_filter": "correct"}, "asks which samples are right"),
        ({"rollout_filter": "teacher"}, "scorer=None: rollout_filter='teacher' asks how likely"),
    ],
)
def test_a_choice_without_use_is_refused(settings, problem):
    with pytest.raises(InputError, match=problem):
        SampleChoice(**settings)


@pytest.mark.parametrize(
    ("rollout_filter", "kept"),
    [
        ("none", "none"),
        ("likelihood", "none"),
        ("correct", "correct"),
        ("correct_fewest_steps",) * 2,
        ("teacher",) * 2,
    ],
)
def test_a_greedy_round_draws_one_sample(rollout_filter, kept):
    """All would be the same; a filter that asks for right ones still does."""
    grader = SampleGrader(grade=lambda pairs: [True] * len(pairs))
    how = {"grader": grader, "scorer": TeacherScorer("never loaded")}
    choice = SampleChoice(num_samples=4, rollout_filter=rollout_filter, **how)
    assert choice.of_round(DecodeParams(temperature=1)) is choice
    assert choice.of_round(DecodeParams(temperature=0, remasking="random")) is choice
    for greedy in (DecodeParams(temperature=0), DecodeParams(temperature=1, top_k=1)):
        of_round = choice.of_round(greedy)
        assert (of_round.num_samples, of_round.rollout_filter) == (1, kept)

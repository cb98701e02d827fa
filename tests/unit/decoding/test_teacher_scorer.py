"""What a teacher says of answers that another model wrote."""

import dataclasses
import math

import pytest

from t3d.decoding import teacher_scorer
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out_to_file
from t3d.decoding.rollout_filter import LEAST_LIKELY
from t3d.decoding.sample_choice import SampleChoice
from t3d.decoding.teacher_scorer import TeacherScorer
from t3d.errors import InputError
from t3d.models.loading import load_model
from t3d.problems.problem import Problem
from t3d.problems.prompts import token_text
from t3d.tasks.mini.suite import TASKS

ONE_STEP = DecodeParams(block_size=8, steps_per_block=1, temperature=1.0, max_new_tokens=56)


@pytest.fixture
def scorer(checkpoint):
    return TeacherScorer(str(checkpoint), "cpu", "float64")


@pytest.fixture
def drawn(checkpoint):
    """A text of the teacher's own, token by token; the prompt ends inside a block."""
    params = DecodeParams(remasking="left_to_right", temperature=1.0, max_new_tokens=9)
    (completion,) = LLM(checkpoint, device="cpu", dtype="float64").generate(
        [[5, 6, 7, 8, 9]], params, progress=False
    )
    return dataclasses.replace(completion, finish_reason="stop")


def test_the_score_is_how_the_teacher_would_have_drawn_the_answer_token_by_token(scorer, drawn):
    """Whatever the settings of the model that wrote it; what lies behind its end does not count."""
    for length in (9, 4):
        written = dataclasses.replace(drawn, visible_length=length, params=ONE_STEP)
        (score,) = scorer.scores([written])
        assert score.logprob == pytest.approx(sum(drawn.logprobs[:length]), abs=1e-5)
        assert score.least_logprob == pytest.approx(min(drawn.logprobs[:length]), abs=1e-5)


def test_an_answer_without_an_end_has_no_score_and_equal_ones_are_scored_once(scorer, drawn, monkeypatch):
    asked = []
    real = teacher_scorer.token_logprobs
    monkeypatch.setattr(teacher_scorer, "token_logprobs", lambda *args: asked.append(args[1]) or real(*args))
    cut = dataclasses.replace(drawn, finish_reason="length")
    other = dataclasses.replace(drawn, prompt_ids=(5, 6))
    scores = scorer.scores([drawn, cut, drawn, other])
    assert scores[1] is None and scores[0] == scores[2] != scores[3]
    assert len(asked) == 2


def test_the_teacher_picks_answers_that_are_right_more_often_than_those_it_picks_from(tmp_path):
    """What it is for: without an answer key. One step per block at temperature 1 is mostly wrong."""
    task = TASKS["chain"]
    problems = task.problems("train", 24, 3)
    loaded = load_model("mini", device="cpu")
    params = DecodeParams(block_size=4, steps_per_block=2, temperature=1.0, max_new_tokens=56)
    right = {}
    for name, choice in {
        "none": SampleChoice(num_samples=4),
        "teacher": SampleChoice(num_samples=4, rollout_filter="teacher", scorer=TeacherScorer("mini", "cpu")),
    }.items():
        kept = roll_out_to_file(loaded, problems, params, tmp_path / f"{name}.parquet", choice=choice)
        answered = choice.problems_of((one.id for one in kept), problems)
        texts = [token_text(loaded.tokenizer, one.response_ids[: one.visible_length]) for one in kept]
        verdicts = [task.grade(*pair) for pair in zip(answered, texts, strict=True)]
        right[name] = sum(verdicts) / len(verdicts)
        assert len(kept) == 96 if name == "none" else 6 <= len(kept) <= 24
    assert right["teacher"] > right["none"] + 0.1


def test_the_plan_names_the_teacher_and_one_of_other_tokens_is_refused(checkpoint, scorer, tmp_path):
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    problems = [Problem(id="a", question="how many apples")]
    choice = SampleChoice(num_samples=2, rollout_filter="teacher", scorer=scorer)
    assert choice.plan(problems)["samples"]["scorer"] == scorer.settings()
    assert scorer.settings()["teacher"] == loaded.identity()
    strange = dataclasses.replace(choice, scorer=TeacherScorer("mini", "cpu"))
    with pytest.raises(InputError, match="scores_from='mini': its tokenizer is another one"):
        roll_out_to_file(loaded, problems, ONE_STEP, tmp_path / "out.parquet", choice=strange)
    assert not list(tmp_path.iterdir())


def test_a_teacher_that_cannot_read_the_answers_is_refused(checkpoint, scorer, drawn, tmp_path):
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    scorer.teacher.model.config.max_position_embeddings = 24
    choice = SampleChoice(num_samples=2, rollout_filter="teacher", scorer=scorer)
    with pytest.raises(InputError, match="reads 24 tokens, but an answer and its prompt may have"):
        roll_out_to_file(loaded, [Problem(id="a", question="how")], ONE_STEP, tmp_path / "o", choice=choice)
    strange = dataclasses.replace(drawn, prompt_ids=(*drawn.prompt_ids, loaded.model.config.vocab_size))
    with pytest.raises(InputError, match="which the model wrote or read"):
        scorer.scores([strange])


def test_no_answer_that_the_teacher_finds_likely_is_an_error(checkpoint, scorer, tmp_path):
    """A random model gives no token a tenth."""
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    assert math.log(loaded.vocab_size) > -math.log(LEAST_LIKELY)
    choice = SampleChoice(num_samples=2, rollout_filter="teacher", scorer=scorer)
    problems = [Problem(id="a", question="how many apples")]
    with pytest.raises(InputError, match="rollout_filter='teacher': no sample is good enough"):
        roll_out_to_file(loaded, problems, ONE_STEP, tmp_path / "out.parquet", choice=choice)

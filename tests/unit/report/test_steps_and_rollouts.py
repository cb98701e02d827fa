"""What generate --show-steps and a rollout print."""

import dataclasses

import pytest
from transformers import PreTrainedTokenizerBase

from t3d.decoding.completion import Completion
from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout_filter import SampleGrader
from t3d.decoding.sample_choice import SampleChoice
from t3d.problems.problem import Problem
from t3d.report.console import coloured_steps, draft_legend
from t3d.report.rollout import rollout_lines, sample_lines
from t3d.tasks.prompt_file import PromptFileTask
from t3d.tasks.task import PosedTask

WORDS = {1: "so", 2: " 7", 3: "7", 4: "\n", 5: "<|im_end|>", 6: "\\boxed{7}"}


class Words(PreTrainedTokenizerBase):
    """A tokenizer of few words."""

    def __init__(self):
        pass

    def decode(self, ids, skip_special_tokens=True):
        return "".join(WORDS[token] for token in ids if not (skip_special_tokens and token == 5))


def completion(ids, steps) -> Completion:
    return Completion(
        id="a",
        prompt_ids=(1,),
        response_ids=tuple(ids),
        step_map=tuple(steps),
        logprobs=(0.0,) * len(ids),
        visible_length=len(ids),
        finish_reason="length",
        num_denoising_steps=max(steps),
        params=DecodeParams(block_size=1, steps_per_block=1),
        mask_token_id=0,
    )


@pytest.mark.parametrize(
    ("ids", "steps", "lines"),
    [
        ([1, 2, 5], [1, 3, 2], ["so 7 <|im_end|>", "1  3 2"]),
        ([3, 3, 3], [1, 12, 2], ["7 7  7", "1 12 2"]),
        ([3, 4, 1], [1, 1, 2], ["7 ↵", "1 1", "so", "2"]),
    ],
)
def test_steps_stand_on_a_line_of_their_own_below_their_tokens(ids, steps, lines):
    """They stood between the digits: 7 at step 1 was 71."""
    assert coloured_steps(Words(), completion(ids, steps)).plain.splitlines() == lines


def drafted(ids, steps, num_drafted, num_accepted) -> Completion:
    params = DecodeParams(block_size=4, remasking="self_speculative", max_new_tokens=12)
    counts = {"num_drafted": num_drafted, "num_accepted": num_accepted}
    return dataclasses.replace(completion(ids, steps), params=params, **counts)


def test_marks_below_the_steps_tell_accepted_drafts_from_corrections_and_bonuses():
    """Blocks of 4 behind a prompt of 1: drafts of 2, all right, of 3, one right, and again; none between."""
    told = drafted([2, 3, 3, 3, 1, 2, 4, 1, 2, 5], [1, 2, 2, 2, 3, 3, 4, 5, 6, 6], 8, 4)
    lines = coloured_steps(Words(), told).plain.splitlines()
    assert lines[:3] == [" 7 7 7 7 so 7 ↵", " 1 2 2 2 3  3 4", " o = = + =  x o"]
    assert lines[3:] == ["so 7 <|im_end|>", "5  6 6", "o  = x"]
    assert draft_legend(told) == "= accepted draft (4 of 8), x correction (2), + bonus (1), o no draft (3)"


def test_a_stop_token_that_was_drafted_is_an_accepted_draft():
    lines = coloured_steps(Words(), drafted([3, 3, 5], [1, 2, 2], 2, 2)).plain.splitlines()
    assert lines == ["7 7 <|im_end|>", "1 2 2", "o = ="]


def test_the_legend_names_accepted_drafts_behind_the_stop_token_which_no_mark_stands_for():
    told = drafted([2, 3, 5], [1, 2, 2], 3, 3)
    assert coloured_steps(Words(), told).plain.splitlines() == [" 7 7 <|im_end|>", " 1 2 2", " o = ="]
    assert draft_legend(told).startswith("= accepted draft (2 of 3, 1 more behind the end), x correction (0)")


def test_without_drafts_there_are_no_marks_and_no_legend():
    plain = completion([3, 3], [1, 2])
    left_to_right = dataclasses.replace(plain, params=DecodeParams(remasking="left_to_right"))
    for told in (plain, left_to_right):
        assert coloured_steps(Words(), told).plain.splitlines() == ["7 7", "1 2"]
        assert draft_legend(told) == ""


def test_rows_are_no_wider_than_the_terminal():
    text = coloured_steps(Words(), completion([1, 2] * 20, list(range(1, 41))), width=20).plain
    assert len(text.splitlines()) > 2 and max(map(len, text.splitlines())) <= 20
    steps = " ".join(text.splitlines()[1::2]).split()
    assert steps == [str(step) for step in range(1, 41)]


def test_a_rollout_says_how_it_ended_what_is_right_and_how_fast_it_was(tmp_path):
    (tmp_path / "set.jsonl").write_text("{}")
    cut = completion([1, 6], [1, 2]).trajectory
    ended = dataclasses.replace(cut, id="b", finish_reason="stop")
    problems = [Problem(id="a", question="?", answer="7"), Problem(id="b", question="?", answer="8")]
    task = PromptFileTask(tmp_path / "set.jsonl", grader="exact")
    lines = rollout_lines([cut, ended], PosedTask(task=task, problems=problems), Words(), 2.0)
    assert lines[0] == "1 ended with a stop token, 1 hit the length limit (max_new_tokens)"
    assert lines[1].startswith("1 of 2 answers are right: 50.0 [")
    assert lines[2] == "4 tokens in 2.0 s: 2 tokens/s"
    unknown = [dataclasses.replace(problem, answer=None) for problem in problems]
    assert len(rollout_lines([cut, ended], PosedTask(task=task, problems=unknown), Words(), None)) == 1


def test_the_interval_of_several_samples_counts_prompts(tmp_path):
    """They are not independent: twice the samples say no more than the prompts do."""
    (tmp_path / "set.jsonl").write_text("{}")
    task = PromptFileTask(tmp_path / "set.jsonl", grader="exact")
    once = [Problem(id=name, question="?", answer=answer) for name, answer in (("a", "7"), ("b", "8"))]
    cut = completion([1, 6], [1, 2]).trajectory
    told = [
        rollout_lines([cut] * len(problems), PosedTask(task=task, problems=problems), Words(), None)[1]
        for problems in (once, [once[0], once[0], once[1], once[1]])
    ]
    assert told[0].startswith("1 of 2 answers are right: 50.0 [")
    assert told[1] == told[0].replace("1 of 2", "2 of 4")


def test_what_a_filter_left_out_is_counted_and_named_and_nothing_is_graded_twice(tmp_path):
    problems = [Problem(id=str(index), question="?", answer="7") for index in range(6)]
    grader = SampleGrader(grade=lambda pairs: [True] * len(pairs))
    choice = SampleChoice(num_samples=2, rollout_filter="correct", grader=grader)
    kept = [dataclasses.replace(completion([1, 6], [1, 2]).trajectory, id="3#1")]
    lines = sample_lines(kept, problems, choice)
    assert lines[0] == "1 of 12 samples kept (rollout_filter=correct)"
    assert lines[1] == "left out of 6 prompts: 5 without a right sample (0, 1, 2, 4, ...)"
    assert sample_lines(kept, problems, SampleChoice()) == []
    (tmp_path / "set.jsonl").write_text("{}")
    task = PromptFileTask(tmp_path / "set.jsonl", grader="exact")
    told = rollout_lines(kept, PosedTask(task=task, problems=problems[3:4]), Words(), 1.0, "correct")
    assert told == [
        "0 ended with a stop token, 1 hit the length limit (max_new_tokens)",
        "2 kept tokens in 1.0 s: 2 kept tokens/s",
    ]

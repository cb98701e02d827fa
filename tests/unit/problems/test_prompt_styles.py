"""Prompts by style: the released strings to the byte, and one rendering for everyone."""

import json
import os
from pathlib import Path
from typing import get_args

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.decoding.params import DecodeParams
from t3d.decoding.posed_requests import decode_requests
from t3d.decoding.rollout import roll_out
from t3d.errors import InputError
from t3d.evaluation.evaluate import evaluation_requests
from t3d.interchange.solutions import solution_trajectory
from t3d.models.loading import adopt_model
from t3d.models.token_ids import LoadedTokenizer
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle, released_prompt, user_turn
from t3d.problems.prompts import problem_ids, prompt_ids
from t3d.tasks.benchmarks import load_benchmark, prompt_kind
from t3d.tasks.prompt_file import PromptFileTask
from t3d.tasks.task import PosedTask

DATA = Path(os.environ.get("T3D_DATA", ""))

# As the released code writes them, before Jinja renders them.
MATH_SOURCE = (
    "<|im_start|>user\n{{problem}}\nPlease reason step by step, and put your final answer within \\boxed{}."
    "<|im_end|>\n<|im_start|>assistant\n"
)
FUNCTION_SOURCE = (
    "<|im_start|>user\nThis is the problem:\n{{problem}}\nPlace your code within a single Python code block "
    "```python ```. Do not include more than one code block. <|im_end|>\n<|im_start|>assistant\n"
)
STDIO_SOURCE = (
    "<|im_start|>user\nThis is the problem:\n{{problem}}\nYou should put your code in ```python ```. Use "
    "input() to read input and print() to produce output in your script. <|im_end|>\n<|im_start|>assistant\n"
)


def test_released_prompts_are_the_released_strings_without_the_last_line_break():
    assert released_prompt("1+1?", "math") == (
        "<|im_start|>user\n1+1?\nPlease reason step by step, and put your final answer within \\boxed{}."
        "<|im_end|>\n<|im_start|>assistant"
    )
    assert released_prompt("Add.", "function", "") == (
        "<|im_start|>user\nThis is the problem:\nAdd.\nPlace your code within a single Python code block "
        "```python ```. Do not include more than one code block. <|im_end|>\n<|im_start|>assistant"
    )
    assert released_prompt("Add.", "function") == (
        "<|im_start|>user\nThis is the problem:\nAdd.\nPlace your code within a single Python code block "
        "```python ```. Do not include more than one code block. <|im_end|>\n<|im_start|>assistant\n"
        "Here is the completed code:\n```python"
    )
    assert released_prompt("Add.", "stdio", "not used") == (
        "<|im_start|>user\nThis is the problem:\nAdd.\nYou should put your code in ```python ```. Use "
        "input() to read input and print() to produce output in your script. <|im_end|>\n"
        "<|im_start|>assistant"
    )


@given(st.text(max_size=20), st.sampled_from(["", "Here:\n```python", "a\n\n", "\n"]))
def test_released_prompts_are_what_jinja_makes_of_the_released_templates(question, prefix):
    for kind, source in [
        ("math", MATH_SOURCE),
        ("stdio", STDIO_SOURCE),
        ("function", FUNCTION_SOURCE + prefix),
    ]:
        assert released_prompt(question, kind, prefix) == jinja2.Template(source).render(problem=question)


@pytest.mark.parametrize("file", ["humaneval/genverse_HumanEval.jsonl", "mbpp/genverse_MBPP.jsonl"])
def test_released_prompts_of_the_published_code_problems(file):
    if not (DATA / file).is_file():
        pytest.skip("set T3D_DATA to the folder of the data sets")
    published = set()
    for line in (DATA / file).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rendered = jinja2.Template(FUNCTION_SOURCE + row["prefix"]).render(problem=row["question"])
        assert released_prompt(row["question"], "function", row["prefix"]) == rendered
        published.add(rendered)
    # The same from the data sets' own files, where nothing of the released data is stored.
    name = file.partition("/")[0]
    problems, kind = load_benchmark(name, DATA).problems("test", None, 0), prompt_kind(name)
    ours = {released_prompt(problem.question, kind, problem.prefix) for problem in problems}
    different = {"humaneval": 0, "mbpp": 1}  # MBPP's copy there has one question in other words
    assert len(ours - published) == len(published - ours) == different[name]


@pytest.mark.parametrize(
    ("style", "kind", "turn"),
    [
        ("plain", "math", "Q"),
        ("plain", "stdio", "Q"),
        (
            "paper",
            "math",
            "Q. Please reason step by step, and put your final answer within boxed{}. You are a precise math "
            "problem solver. Solve the given math problem step by step.",
        ),
        (
            "paper",
            "function",
            "This is the problem: Q. Place your code within a single Python code block ```python```. Do not "
            "include more than one code block.",
        ),
        (
            "sdar",
            "math",
            "Q\nPlease reason step by step, and put your final answer within \\boxed{}.",
        ),
        (
            "sdar",
            "function",
            "You are an expert Python programmer, and here is your task:\nQ\n You should submit your final "
            "solution in the following format: ```python\n\n```",
        ),
        (
            "sdar",
            "completion",
            "Read the following function signature and docstring, and fully implement the function "
            "described. Your response should only contain the code for this function.\nQ",
        ),
    ],
)
def test_user_turns(style, kind, turn):
    assert user_turn("Q", style, kind) == turn


@given(
    st.text(max_size=20), st.sampled_from([*get_args(PromptStyle)]), st.sampled_from([*get_args(PromptKind)])
)
def test_a_question_is_inserted_as_it_is(question, style, kind):
    """Whatever it holds: braces, the templates' own mark, Jinja's."""
    question += "{question} {} {{problem}} {% if %} \\"
    if (style, kind) == ("sdar", "stdio"):
        return
    text = released_prompt(question, kind, "") if style == "released" else user_turn(question, style, kind)
    assert text.count(question) == 1


def test_a_style_without_a_prompt_of_a_kind_is_named(tiny_tokenizer):
    with pytest.raises(InputError, match=r"prompt_style='sdar': has no user's turn .*'stdio'"):
        problem_ids(tiny_tokenizer, Problem(id="a", question="?"), style="sdar", kind="stdio")


@pytest.mark.parametrize("style", get_args(PromptStyle))
def test_ids_are_those_of_the_text(tiny_tokenizer, style):
    """A chat template's opening of the answer ends in a line break, the released one does not."""
    problem = Problem(id="a", question="how many?", prefix="Here:")
    (request,) = decode_requests(tiny_tokenizer, [problem], style=style, kind="function")
    text = tiny_tokenizer.decode(request.prompt_ids)
    if style == "released":
        assert text == released_prompt("how many?", "function", "Here:")
    else:
        turn = user_turn("how many?", style, "function")
        assert text == f"<|im_start|>user\n{turn}<|im_end|>\n<|im_start|>assistant\n"
    assert request.prompt_ids == tuple(problem_ids(tiny_tokenizer, problem, style=style, kind="function"))


def test_the_default_is_the_bare_question(tiny_tokenizer):
    problem = Problem(id="a", question="how many?", prefix="not used")
    (request,) = decode_requests(tiny_tokenizer, [problem])
    assert request.prompt_ids == tuple(prompt_ids(tiny_tokenizer, "how many?"))


@pytest.mark.parametrize("style", get_args(PromptStyle))
def test_rollout_solutions_and_evaluation_see_the_same_prompts(long_model, prompts_file, style):
    """Token for token, of every kind."""
    task = PromptFileTask(prompts_file)
    problems = task.problems("test", None, 0)
    tokenizer = LoadedTokenizer(
        tokenizer=long_model.tokenizer,
        mask_token_id=long_model.mask_token_id,
        stop_token_ids=long_model.stop_token_ids,
        vocab_size=len(long_model.tokenizer),
    )
    for kind in get_args(PromptKind):
        put = {"style": style, "kind": kind}
        posed = PosedTask(task=task, problems=problems, **put)
        if (style, kind) == ("sdar", "stdio"):
            with pytest.raises(InputError, match="prompt_style='sdar'"):
                evaluation_requests(long_model, posed)
            continue
        rolled = roll_out(long_model, problems, DecodeParams(max_new_tokens=1), **put)
        solved = [solution_trajectory(problem, tokenizer, 4, **put) for problem in problems]
        asked = [request.prompt_ids for _, request in evaluation_requests(long_model, posed)]
        assert [record.prompt_ids for record in rolled] == asked
        assert [record.prompt_ids for record in solved] == asked
        expected = [tuple(problem_ids(long_model.tokenizer, problem, **put)) for problem in problems]
        assert asked == expected


@pytest.fixture(scope="module")
def long_model(make_model, tiny_tokenizer):
    """The tiny model with positions for the longest prompts."""
    ids = {f"{name}_token_id": getattr(tiny_tokenizer, f"{name}_token_id") for name in ("mask", "eos", "pad")}
    model = make_model(vocab_size=len(tiny_tokenizer), max_position_embeddings=1024, **ids)
    return adopt_model(model, tiny_tokenizer)


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"question": question, "answer": "1", "solution": "so the"}
        for question in ("how many?", "a\n{b}", "é")
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path

"""Prompts: one rendering for rollout, training and evaluation; prompt files."""

import copy
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_helpers import make
from hypothesis import given
from hypothesis import strategies as st

from t3d.decoding.posed_requests import decode_requests
from t3d.errors import InputError
from t3d.problems import prompts
from t3d.problems.problem import Problem
from t3d.problems.prompt_file import read_prompt_file
from t3d.problems.prompt_styles import user_turn
from t3d.problems.prompts import chat_ids, problem_ids, prompt_ids, token_ids, token_text
from t3d.trajectory import write_trajectories


@given(st.text(max_size=30))
def test_a_prompt_is_one_user_turn_and_the_opening_of_the_answer(tiny_tokenizer, question):
    """Byte for byte, the newline after ``assistant`` included (which the released rollout drops)."""
    expected = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    assert tiny_tokenizer.decode(prompt_ids(tiny_tokenizer, question)) == expected


def test_requests_carry_the_ids_of_their_problems(tiny_tokenizer):
    problems = [Problem(id="b", question="how many?"), Problem(id="a", question="so?")]
    requests = decode_requests(tiny_tokenizer, problems)
    assert [request.id for request in requests] == ["b", "a"]
    assert requests[1].prompt_ids == tuple(prompt_ids(tiny_tokenizer, "so?"))


NAMES, ODD = ("id", "task"), ("null", "[1]", "{}", "true", "0.5")


def write(tmp_path, *lines):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_prompt_file_is_read_in_order(tmp_path):
    path = write(
        tmp_path, '{"question": "1+1?", "answer": 2}', "", '{"id": "x", "question": "é?", "task": "math"}'
    )
    assert read_prompt_file(path) == [
        Problem(id="set/1", question="1+1?", answer="2", task="set"),
        Problem(id="x", question="é?", answer=None, task="math"),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2 of .*not JSON"),
        ("[]", "line 2 of .*not an object"),
        ("{}", "line 2 of .*missing or empty"),
        ('{"question": "  "}', "line 2 of .*missing or empty"),
        ('{"question": 5}', "line 2 of .*missing or empty"),
        ('{"question": "a", "anwser": "b"}', "line 2 of .*unknown key 'anwser'"),
        ('{"question": "a", "id": "first"}', "id='first': used twice"),
        ('{"question": "a \\ud800"}', "question='line 2 of .*half of a surrogate pair"),
        *((f'{{"question": "a", "{name}": "\\ud800"}}', f"{name}=.*surrogate") for name in NAMES),
        *(
            (f'{{"question": "a", "{name}": {value}}}', f"{name}=.*neither")
            for name in NAMES
            for value in ODD
        ),
        ("[" * 100_000, "line 2 of .*not JSON"),
        ('{"question": "a", "solution": "\\udfff"}', "solution='line 2 of .*half of a surrogate pair"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, problem):
    with pytest.raises(InputError, match=problem):
        read_prompt_file(write(tmp_path, '{"id": "first", "question": "a"}', line))


def test_a_missing_or_empty_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_prompt_file(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="holds no prompt"):
        read_prompt_file(write(tmp_path, "", "  "))


def test_a_line_may_have_a_solution(tmp_path):
    (problem,) = read_prompt_file(write(tmp_path, '{"question": "1+1?", "solution": "It is 2."}'))
    assert problem == Problem(id="set/1", question="1+1?", task="set", solution="It is 2.")


NAMES = ["<|MASK|>", "<|im_end|>", "<|im_start|>", "<|endoftext|>"]


@pytest.mark.parametrize("style", ["plain", "paper", "released", "sdar"])
@pytest.mark.parametrize("name", NAMES)
def test_a_special_token_in_a_question_is_text(tiny_tokenizer, style, name):
    """No mask, stop or turn comes of it, and the text is the same."""
    asked = problem_ids(tiny_tokenizer, Problem(id="a", question=f"what is {name}?"), style=style)
    plain = problem_ids(tiny_tokenizer, Problem(id="a", question="what is it?"), style=style)
    special = set(tiny_tokenizer.all_special_ids)
    assert [token for token in asked if token in special] == [token for token in plain if token in special]
    text = token_text(tiny_tokenizer, asked, skip_special_tokens=False)
    assert text == token_text(tiny_tokenizer, plain, skip_special_tokens=False).replace(
        "is it?", f"is {name}?"
    )


@given(st.lists(st.sampled_from([*NAMES, "so", " ", "\ue000", "0"]), max_size=8).map("".join))
def test_a_message_cannot_write_another_turn(tiny_tokenizer, content):
    """A mark of our own kind in the text stays, too."""
    ids = chat_ids(tiny_tokenizer, [{"role": "user", "content": content}])
    special = set(tiny_tokenizer.all_special_ids)
    plain = chat_ids(tiny_tokenizer, [{"role": "user", "content": "so"}])
    assert [token for token in ids if token in special] == [token for token in plain if token in special]
    assert token_text(tiny_tokenizer, ids, skip_special_tokens=False) == token_text(
        tiny_tokenizer, plain, skip_special_tokens=False
    ).replace("so", content, 1)


def test_a_name_that_the_tokenizer_cannot_write_as_text_names_the_problem(tiny_tokenizer, monkeypatch):
    real = type(tiny_tokenizer).encode

    def encode(self, text, *, split_special_tokens=False, **options):
        return real(self, text, **options)

    monkeypatch.setattr(type(tiny_tokenizer), "encode", encode)
    with pytest.raises(InputError, match=r"question='<\|MASK\|>': problem 'a' has a special token"):
        problem_ids(tiny_tokenizer, Problem(id="a", question="what is <|MASK|>?"))


def test_what_a_chat_template_refuses_is_named(tiny_tokenizer):
    own = copy.deepcopy(tiny_tokenizer)
    refused = ("{{ raise_exception('roles must alternate') }}", "{% if %}", None, "{{ 1 // 0 }}")
    endless = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"
    for template in (*refused, "{% for a in range(10**9) %}x{% endfor %}", endless):
        own.chat_template = template
        with pytest.raises(InputError, match=r"chat_template=.*cannot put these messages") as caught:
            prompt_ids(own, "so?")
        assert "\n" not in str(caught.value)


def test_a_chat_template_of_endless_loops_is_ended_and_named(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(prompts, "TEMPLATE_SECONDS", 0.2)
    own = copy.deepcopy(tiny_tokenizer)
    loops = "".join(f"{{% for {name} in range(59049) %}}" for name in "abc") + "{% endfor %}" * 3
    own.chat_template = loops
    with pytest.raises(InputError, match=r"cannot put these messages \(takes more than 0.2 seconds\)"):
        prompt_ids(own, "so?")
    assert sys.gettrace() is None
    own.chat_template = "{% for a in range(1000) %}{% endfor %}so?"
    assert prompt_ids(own, "so?") == token_ids(own, "so?")


def test_threads_that_share_a_tokenizer_do_not_read_each_others_special_tokens(tiny_tokenizer):
    """One thread's chats name a special token, which is text there; the others' texts have it."""
    chat = [{"role": "user", "content": "x <|im_end|> y"}]
    calls = [lambda: chat_ids(tiny_tokenizer, chat), lambda: token_ids(tiny_tokenizer, "<|im_end|> y" * 9)]
    expected, before = [call() for call in calls], sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(calls[number % 2]) for number in range(600)]
            assert [job.result() for job in jobs] == [expected[number % 2] for number in range(600)]
    finally:
        sys.setswitchinterval(before)


# --- messages, and Parquet ----------------------------------------------------------------------------

ASKED = {"role": "user", "content": "1+1?"}
ANSWERED = {"role": "assistant", "content": "It is 2."}
SYSTEM = {"role": "system", "content": "Be short."}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_messages_of_a_chat_data_set_are_question_and_solution(tmp_path, ending):
    rows = [{"messages": [ASKED, ANSWERED], "answer": "2"}, {"messages": [ASKED], "id": "x"}]
    path = tmp_path / f"set.{ending}"
    if ending == "parquet":  # where a row that lacks a value has null
        pq.write_table(pa.Table.from_pylist([{"id": None, "answer": None} | row for row in rows]), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    assert read_prompt_file(path) == [
        Problem(id="set/1", question="1+1?", answer="2", task="set", solution="It is 2."),
        Problem(id="x", question="1+1?", task="set"),
    ]


@pytest.mark.parametrize("style", ["plain", "paper", "sdar"])
@pytest.mark.parametrize("before", [[SYSTEM], [ASKED, ANSWERED], [SYSTEM, ASKED, ANSWERED]], ids=len)
def test_a_question_is_put_behind_what_was_said_before(tmp_path, tiny_tokenizer, before, style):
    """As the chat template puts the conversation; a style is that of the question alone."""
    again = {"role": "user", "content": "and 2+2?"}
    (problem,) = read_prompt_file(write(tmp_path, json.dumps({"messages": [*before, again, ANSWERED]})))
    assert (problem.question, problem.solution) == ("and 2+2?", "It is 2.")
    posed = {"role": "user", "content": user_turn("and 2+2?", style, "math")}
    assert problem_ids(tiny_tokenizer, problem, style=style) == chat_ids(tiny_tokenizer, [*before, posed])


def test_the_released_prompt_has_one_turn(tmp_path, tiny_tokenizer):
    (problem,) = read_prompt_file(write(tmp_path, json.dumps({"messages": [SYSTEM, ASKED]})))
    with pytest.raises(InputError, match=r"prompt_style='released': problem 'set/1' has several turns"):
        problem_ids(tiny_tokenizer, problem, style="released")


def test_questions_in_parquet_are_read_as_those_in_lines(tmp_path):
    rows = [{"question": "1+1?", "answer": "2"}, {"question": "é?", "answer": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    lines = write(tmp_path, *(json.dumps(row) for row in rows))
    assert read_prompt_file(tmp_path / "set.parquet") == read_prompt_file(lines)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"messages": []}, "messages='line 1 of .*a conversation of nobody"),
        ({"messages": None}, "messages='line 1 of .*a conversation of nobody"),
        ({"messages": "1+1?"}, "messages=.*not a list of messages"),
        ({"messages": 5}, "messages=.*not a list of messages"),
        ({"messages": ["1+1?"]}, "messages=.*a message without a role and a text"),
        ({"messages": [{"role": "user"}]}, "messages=.*a message without a role and a text"),
        ({"messages": [ANSWERED]}, "messages=.*a conversation of assistant, without a question of the user"),
        ({"messages": [SYSTEM]}, "messages=.*a conversation of system, without a question .* Fix: end it"),
        ({"messages": [ASKED, ANSWERED, ANSWERED]}, "messages=.*of user, assistant, assistant, without"),
        (
            {"messages": [ASKED, SYSTEM, ASKED]},
            "messages=.*a system message behind .*Fix: give it as the first",
        ),
        ({"messages": [{"role": "tool", "content": "2"}, ASKED]}, "messages=.*role 'tool'. Fix: use system"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages=.*an empty message of role 'user'"),
        (
            {"messages": [ASKED, {"role": "assistant", "content": ""}]},
            "messages=.*empty message of role 'ass",
        ),
        (
            {"messages": [{"role": "system", "content": "\ud800"}, ASKED]},
            "messages=.*half of a surrogate pair",
        ),
        ({"messages": [ASKED], "question": "1+1?"}, "messages=.*question says the same"),
        ({"messages": [ASKED], "tools": []}, "prompts=.*unknown key 'tools'"),
    ],
)
def test_messages_that_are_no_prompt_are_named(tmp_path, row, problem):
    with pytest.raises(InputError, match=problem):
        read_prompt_file(write(tmp_path, json.dumps(row)))


@pytest.mark.parametrize("is_parquet", [True, False])
def test_a_rollout_given_as_prompts_is_told_what_it_is(tmp_path, is_parquet):
    path = tmp_path / ("rollout.parquet" if is_parquet else "rollout.jsonl")
    if is_parquet:
        write_trajectories(path, [make()])
    else:
        path.write_text(json.dumps({"id": "a", "prompt_ids": [1], "response_ids": [2], "step_map": [1]}))
    with pytest.raises(InputError, match=r"prompts=.*: a rollout: .* no questions\. Fix: .*made of") as found:
        read_prompt_file(path)
    assert f"t3d train --trajectories {path}" in str(found.value)

"""Chosen problems: nothing twice, nothing of a benchmark, the order of a seed, and a file that keeps all."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.problems.prompt_file import read_prompt_file
from t3d.problems.sources.registry import SourceData, read_source
from t3d.problems.sources.rows import DroppedProblem
from t3d.problems.sources.selection import SelectionConfig, same_question, select_problems, write_prompt_file


def source(name, *questions, dropped=(), **fields):
    problems = [Problem(id=f"{name}/{i}", question=text, **fields) for i, text in enumerate(questions)]
    return SourceData(
        name=name, problems=tuple(problems), dropped=Counter(dropped), num_files=1, sha256="0" * 64
    )


def chosen(sources, *, test_questions=(), count_tokens=None, **config):
    selected = select_problems(
        sources, SelectionConfig(**config), test_questions=test_questions, count_tokens=count_tokens
    )
    return [problem.id for problem in selected.problems], selected.counts


def test_repeated_and_tested_questions_are_dropped_and_counted():
    first = source("a", "Why?", "  why? ", "Who?", "How\nmany?", dropped=[DroppedProblem.NO_ANSWER])
    second = source("b", "WHO?", "When?")
    ids, counts = chosen([first, second], test_questions=["how  many?"])
    assert ids == ["a/0", "a/2", "b/1"]
    assert [(count["num_read"], count["num_kept"]) for count in counts] == [(5, 2), (2, 1)]
    dropped = {"no answer": 1, "duplicate question": 1, "question of a benchmark": 1}
    assert [count["dropped"] for count in counts] == [dropped, {"duplicate question": 1}]


def test_long_solutions_are_dropped_and_missing_ones_are_not():
    long, none = source("a", "x", "y", solution="one two three"), source("b", "z")
    ids, _ = chosen([long, none], max_solution_tokens=2, count_tokens=lambda text: len(text.split()))
    assert ids == ["b/0"]
    ids, _ = chosen([long, none], max_solution_tokens=3, count_tokens=lambda text: len(text.split()))
    assert ids == ["a/0", "a/1", "b/0"]
    with pytest.raises(InputError, match="tokenizer"):
        chosen([long], max_solution_tokens=2)


def test_without_a_seed_the_first_of_each_source_stay_in_order():
    ids, counts = chosen([source("a", *"pqrs"), source("b", *"tuv")], limits=(2, 9))
    assert ids == ["a/0", "a/1", "b/0", "b/1", "b/2"]
    assert [count["num_over_limit"] for count in counts] == [2, 0]
    ids, _ = chosen([source("a", *"pqrs"), source("b", *"tuv")], limits=(1,))
    assert ids == ["a/0", "b/0"]


@settings(max_examples=15)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 30), st.integers(1, 30))
def test_a_seed_gives_one_order_that_limits_and_other_sources_only_thin_out(seed, limit, size):
    first, second = source("a", *map(str, range(size))), source("b", *(f"b {index}" for index in range(9)))
    full, _ = chosen([first, second], seed=seed)
    again, _ = chosen([first, second], seed=seed)
    alone, _ = chosen([first], seed=seed)
    limited, _ = chosen([second, first], seed=seed, limits=(9, limit))
    assert full == again
    assert sorted(full) == sorted([f"a/{index}" for index in range(size)] + [f"b/{i}" for i in range(9)])
    assert alone == [identity for identity in full if identity.startswith("a/")]
    kept = {*alone[:limit], *(identity for identity in full if identity.startswith("b/"))}
    assert limited == [identity for identity in full if identity in kept]


def test_seeds_differ():
    sources = [source("a", *map(str, range(50)))]
    assert chosen(sources, seed=1)[0] != chosen(sources, seed=2)[0]


@pytest.mark.parametrize(
    ("sources", "config", "message"),
    [
        ([source("a", "x"), source("b", "y")], {"limits": (1, 2, 3)}, "3 limits for 2 sources"),
        ([source("a", "x")], {"limits": (0,)}, "limit=0: not positive"),
        ([source("a", "x")], {"max_solution_tokens": 0}, "max_solution_tokens=0"),
        ([source("a")], {}, "no problem is left"),
        ([source("a", "x"), source("a", "y")], {}, "used by two problems"),
    ],
)
def test_wrong_settings_and_empty_results_are_refused(sources, config, message):
    with pytest.raises(InputError, match=message):
        chosen(sources, **config)


@given(st.text(st.characters(codec="ascii")), st.sampled_from([" ", "\n", "\t ", "\u2028"]))
def test_white_space_and_case_do_not_make_another_question(text, space):
    assert same_question(f"{space}{text.upper()}{space}") == same_question(text.lower())
    assert same_question(f"a{space}b") == "a b" != same_question("ab")


# --- the file ------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["\u2028", "\x85", "\r\n", "a\x1cb"]
)
SAID = TEXTS.filter(str.strip)
FIELDS = st.fixed_dictionaries(
    {"question": SAID, "task": TEXTS}, optional={"answer": TEXTS, "solution": TEXTS}
)
TURNS = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), SAID), max_size=3)


@given(st.lists(FIELDS, min_size=1, max_size=5), st.booleans())
def test_any_problems_come_back_from_the_file(tmp_path_factory, rows, is_raw):
    path = tmp_path_factory.mktemp("prompts") / "set.jsonl"
    problems = [Problem(id=str(index), **row) for index, row in enumerate(rows)]
    if is_raw:  # as another program writes it, characters that end lines elsewhere unescaped
        rows = [{"id": str(index)} | row for index, row in enumerate(rows)]
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        path.write_text(text, encoding="utf-8", newline="")
    else:
        write_prompt_file(path, problems)
    assert read_prompt_file(path) == problems
    assert list(read_source(str(path), None).problems) == problems


@given(st.booleans(), TURNS, SAID, st.none() | SAID)
def test_conversations_come_back_from_the_file(tmp_path_factory, has_system, turns, question, solution):
    path = tmp_path_factory.mktemp("prompts") / "set.jsonl"
    before = (*([("system", "be short")] if has_system else []), *turns)
    problem = Problem(id="a", question=question, task="t", solution=solution, turns=before)
    write_prompt_file(path, [problem])
    assert read_prompt_file(path) == [problem]


def test_the_same_words_in_another_conversation_are_another_question():
    """But what a benchmark asks is dropped wherever the user asks it."""
    turns = ("user", "what is it?"), ("assistant", "it is two")
    both = [source("a", "why?", "WHY?", turns=turns), source("b", "why?")]
    assert chosen(both)[0] == ["a/0", "b/0"]
    assert chosen(both, test_questions=["what is it?"])[0] == ["b/0"]

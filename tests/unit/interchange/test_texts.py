"""Texts and chats as training records: every token is learnt once, and nothing in a text is a command."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.errors import InputError
from t3d.interchange.texts import read_texts, text_trajectories
from t3d.interchange.validate import model_problems, own_problems
from t3d.model_choice import BUNDLED_MODELS
from t3d.models.loading import load_tokenizer
from t3d.problems.prompts import chat_ids, token_ids, token_text

MINI = load_tokenizer("mini")
CHAT = [
    {"role": "system", "content": "so"},
    {"role": "user", "content": "how many"},
    {"role": "assistant", "content": "9"},
    {"role": "user", "content": "and now?"},
    {"role": "assistant", "content": "5 left"},
]


@given(st.text(alphabet="ab 1\n", min_size=1, max_size=90), st.sampled_from([1, 4, 8]), st.integers(16, 40))
def test_pieces_of_a_text_add_up_and_each_token_is_learnt_once(text, block_size, max_length):
    records = text_trajectories("a", {"text": text}, MINI, block_size, max_length)
    learnt = [token for one in records for token in one.response_ids[: one.visible_length]]
    whole = [*records[0].prompt_ids, *learnt]
    assert whole == [*token_ids(MINI.tokenizer, text), MINI.tokenizer.eos_token_id]
    before = list(records[0].prompt_ids)
    for record in records:
        assert list(record.prompt_ids) == before[-1:]
        before = list(record.response_ids[: record.visible_length])
        assert len(record.prompt_ids) + len(record.response_ids) <= max_length
        assert (len(record.prompt_ids) + len(record.response_ids)) % block_size == 0
        assert not list(own_problems(record)) + list(model_problems(record, MINI, MINI.tokenizer_hash))
    assert [record.finish_reason for record in records] == ["length"] * (len(records) - 1) + ["stop"]


def test_a_chat_is_a_record_for_every_turn_of_the_assistant():
    first, second = text_trajectories("c", {"messages": CHAT}, MINI, 4, 200)
    for record, number in ((first, 2), (second, 4)):
        assert list(record.prompt_ids) == chat_ids(MINI.tokenizer, CHAT[:number])
        *said, stop = record.response_ids[: record.visible_length]
        assert token_text(MINI.tokenizer, said) == CHAT[number]["content"]
        assert stop in MINI.stop_token_ids and record.finish_reason == "stop"
        assert not list(model_problems(record, MINI, MINI.tokenizer_hash))
    assert (first.id, second.id) == ("c.2", "c.4")


def test_turns_that_are_too_long_are_left_out():
    longest = len(chat_ids(MINI.tokenizer, CHAT[:4]))
    (record,) = text_trajectories("c", {"messages": CHAT}, MINI, 4, longest)
    assert record.id == "c.2"


@pytest.mark.parametrize("name", ["<|MASK|>", "<|im_end|>"])
def test_names_of_special_tokens_are_text(name):
    (record,) = text_trajectories("a", {"text": f"so {name} now"}, MINI, 4, 100)
    *said, stop = record.response_ids[: record.visible_length]
    special = {MINI.mask_token_id, *MINI.stop_token_ids}
    assert not special.intersection([*record.prompt_ids, *said]) and stop in special
    assert token_text(MINI.tokenizer, [*record.prompt_ids, *said]) == f"so {name} now"


def test_files_are_read_line_by_line_or_as_one_text(tmp_path):
    lines = [{"text": "so", "url": "left alone"}, {"messages": CHAT}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "b.txt").write_text("one\n\ntwo\n")
    assert [identity for identity, _ in read_texts(tmp_path / "a.jsonl")] == ["a/1", "a/2"]
    assert read_texts(tmp_path / "b.txt") == [("b/1", {"text": "one\n\ntwo\n"})]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({}, "has neither of"),
        ({"text": "a", "messages": CHAT}, "has both of"),
        ({"text": ""}, "empty, or no text"),
        ({"text": 5}, "empty, or no text"),
        ({"text": "\ud800"}, "empty, or no text"),
        ({"messages": "so"}, "not a list of messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "not a list of messages"),
        ({"messages": [{"role": "user", "content": None}]}, "not a list of messages"),
        ({"messages": CHAT[:2]}, "no turn of the assistant"),
        ({"messages": CHAT[2:]}, "begins with the assistant"),
        ({"messages": []}, "no turn of the assistant"),
    ],
)
def test_a_line_that_is_neither_is_named(tmp_path, line, problem):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a"}) + "\n" + json.dumps(line))
    with pytest.raises(InputError, match=f"line 2 of .*{problem}"):
        read_texts(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_an_empty_file_and_what_is_not_text_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_text(" \n")
    with pytest.raises(InputError, match="the file holds no text"):
        read_texts(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_texts(path)


def without_roles(folder):
    """A copy of the bundled tokenizer whose special tokens are marked as such and have no role."""
    shutil.copytree(BUNDLED_MODELS["mini"], folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    for name in ("extra_special_tokens", "additional_special_tokens", "mask_token"):
        config.pop(name, None)
    path.write_text(json.dumps(config))
    return load_tokenizer(folder)


@pytest.mark.parametrize("name", ["<|MASK|>", "<|im_end|>"])
def test_tokens_that_are_special_without_a_role_are_text_too(tmp_path, name):
    loaded = without_roles(tmp_path / "m")
    special = {loaded.mask_token_id, *loaded.stop_token_ids}
    (record,) = text_trajectories("a", {"text": f"so {name} now"}, loaded, 4, 100)
    assert not special.intersection([*record.prompt_ids, *record.response_ids[: record.visible_length - 1]])
    said = [{"role": "user", "content": f"so {name}"}, {"role": "assistant", "content": f"{name} now"}]
    (chat,) = text_trajectories("c", {"messages": said}, loaded, 4, 100)
    assert loaded.mask_token_id not in chat.prompt_ids
    assert not special.intersection(chat.response_ids[: chat.visible_length - 1])
    assert not list(model_problems(chat, loaded, loaded.tokenizer_hash))


def test_files_of_other_endings_are_refused(tmp_path):
    for name in ("a.json", "a.JSONL", "a"):
        (tmp_path / name).write_text('[{"text": "a"}]')
        with pytest.raises(InputError, match=r"neither \.jsonl nor \.txt"):
            read_texts(tmp_path / name)

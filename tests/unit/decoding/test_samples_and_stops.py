"""``n`` responses to a prompt, stop texts that end them, and chats: the habits of vLLM's users."""

import copy
import dataclasses

import pytest
import torch
from drafting_helpers import decode
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.decoding.completion import DecodeRequest
from t3d.decoding.jobs import Job
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.decoding.texts import _num_held as num_held
from t3d.errors import InputError
from t3d.problems.prompts import chat_ids, token_ids, token_text
from t3d.trajectory import read_trajectories, write_trajectories

QUESTIONS = ["how many apples are left now?", "so the answer is 7"]
SAMPLED = DecodeParams(temperature=1.0, steps_per_block=2, max_new_tokens=11)
OF_NEXT = {"predicts": "next", "block_size": 1, "context": "causal"}
CHAT = [{"role": "user", "content": QUESTIONS[0]}]


@pytest.fixture(scope="module")
def llm(checkpoint):
    """The tiny checkpoint in float64, two sequences at a time."""
    return LLM(checkpoint, device="cpu", dtype="float64", max_batch_size=2)


def with_fields(**fields):
    return dataclasses.replace(SAMPLED, **fields)


def texts(completions):
    return [completion.text for completion in completions]


# --- n ------------------------------------------------------------------------------------------------


def test_samples_of_a_prompt_are_those_of_requests_of_their_own(llm):
    """Side by side under ID#0, ID#1, ..., and the same however many there are or what is beside them."""
    two = llm.generate(QUESTIONS, with_fields(n=2), progress=False)
    assert [one.id for one in two] == ["0#0", "0#1", "1#0", "1#1"]
    assert len(set(texts(two))) == 4
    prompts = [one.prompt_ids for one in two]
    assert prompts[0] == prompts[1] != prompts[2] == prompts[3]
    alone = llm.generate(QUESTIONS[1], SAMPLED, ids=["1#1"], progress=False)
    assert alone == two[3:]
    three = llm.generate(QUESTIONS[1:], with_fields(n=3), ids=["1"], progress=False)
    assert three[:2] == two[2:]


def test_each_prompt_may_have_its_own_number_of_samples(llm):
    found = llm.generate(QUESTIONS, [with_fields(n=2), SAMPLED], progress=False)
    assert [one.id for one in found] == ["0#0", "0#1", "1"]
    assert found[2:] == llm.generate(QUESTIONS[1], SAMPLED, ids=["1"], progress=False)


def test_streamed_samples_are_those_generated(llm):
    streamed = {}
    for update in llm.stream(QUESTIONS[:1], with_fields(n=2)):
        streamed[update.id] = streamed.get(update.id, "") + update.text
    expected = llm.generate(QUESTIONS[:1], with_fields(n=2), progress=False)
    assert streamed == {one.id: one.text for one in expected}


def test_what_decodes_a_response_a_request_refuses_several(llm):
    with pytest.raises(InputError, match=r"^n=2: each request has one response"):
        llm.decode([DecodeRequest(id="a", prompt_ids=(1, 2))], with_fields(n=2))


# --- stop ---------------------------------------------------------------------------------------------


def test_a_response_ends_before_its_first_stop_text(llm):
    """Its tokens are those it takes to write the text, and it costs the forwards up to their block."""
    (whole,) = llm.generate(QUESTIONS[:1], with_fields(max_new_tokens=40), progress=False)
    stop = whole.text[9:12]
    params = with_fields(max_new_tokens=40, stop=["never said", stop])
    (cut,) = llm.generate(QUESTIONS[:1], params, progress=False)
    assert cut.text == whole.text.partition(stop)[0]
    assert (cut.finish_reason, cut.error) == ("stop", "")
    assert cut.visible_ids == whole.response_ids[: cut.visible_length]
    assert stop in token_text(llm.tokenizer, cut.visible_ids)
    assert stop not in token_text(llm.tokenizer, cut.visible_ids[:-1])
    size = params.block_size
    end = len(cut.prompt_ids) + len(cut.response_ids)
    assert end % size == 0 and end - size < len(cut.prompt_ids) + cut.visible_length <= end
    assert cut.num_denoising_steps == max(cut.step_map) < whole.num_denoising_steps


@pytest.mark.parametrize("remasking", ["left_to_right", "self_speculative"])
def test_stop_texts_end_responses_drawn_left_to_right(llm, remasking):
    params = DecodeParams(temperature=1.0, remasking=remasking, max_new_tokens=24)
    (whole,) = llm.generate(QUESTIONS[:1], params, progress=False)
    stop = whole.text[5:8]
    (cut,) = llm.generate(QUESTIONS[:1], dataclasses.replace(params, stop=stop), progress=False)
    assert cut.text == whole.text.partition(stop)[0] and cut.finish_reason == "stop"
    assert cut.num_forwards < whole.num_forwards


def test_a_stop_text_of_one_request_changes_no_other(llm):
    plain = llm.generate(QUESTIONS, with_fields(max_new_tokens=24), progress=False)
    stop = plain[0].text[4:6]
    each = [with_fields(max_new_tokens=24, stop=stop), with_fields(max_new_tokens=24)]
    cut, other = llm.generate(QUESTIONS, each, progress=False)
    assert other == plain[1] and cut.text == plain[0].text.partition(stop)[0]


def test_a_stopped_response_is_a_trajectory_that_survives_its_file(llm, tmp_path):
    (whole,) = llm.generate(QUESTIONS[:1], with_fields(max_new_tokens=40), progress=False)
    params = with_fields(max_new_tokens=40, stop=[whole.text[9:12]])
    (cut,) = llm.generate(QUESTIONS[:1], params, progress=False)
    write_trajectories(tmp_path / "one.parquet", [cut.trajectory])
    (read,) = read_trajectories(tmp_path / "one.parquet")
    assert read == cut.trajectory and read.decode_params == params.record()


@settings(max_examples=40, deadline=None)
@given(
    st.text("ab é🙂", min_size=1, max_size=14),
    st.lists(st.text("ab é🙂", min_size=1, max_size=3), min_size=1, max_size=3),
    st.sampled_from([1, 2, 4]),
)
def test_streamed_texts_hold_back_what_may_become_a_stop_text(
    make_scripted, tiny_tokenizer, text, stops, block_size
):
    """Pieces join to the text before the first stop text, wherever blocks and characters are cut."""
    answering = make_scripted(token_ids(tiny_tokenizer, text))
    params = DecodeParams(block_size=block_size, steps_per_block=1, max_new_tokens=60, stop=stops)
    *_, last = updates = list(answering.stream([1, 2, 3, 4], params))
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    assert last.completion.text == text[: min(places, default=len(text))]
    assert "".join(update.text for update in updates) == last.completion.text
    assert last.completion.finish_reason == "stop"


# --- chat ---------------------------------------------------------------------------------------------


def test_a_chat_is_a_prompt_by_the_tokenizers_template(llm):
    (one,) = llm.chat(CHAT, SAMPLED, progress=False)
    assert one.prompt_ids == tuple(chat_ids(llm.tokenizer, CHAT))
    turns = [*CHAT, {"role": "assistant", "content": "7"}, {"role": "user", "content": "so?"}]
    several = llm.chat([CHAT, turns], SAMPLED, ids=["0", "b"], progress=False)
    assert several[0] == one and len(several[1].prompt_ids) > len(one.prompt_ids)
    assert len(llm.chat(CHAT, with_fields(n=2), progress=False)) == 2


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages=\\[\\]: neither a conversation nor a list of some"),
        ({"role": "user", "content": "x"}, "messages=.*: neither a conversation"),
        ("hello", "messages='hello': neither a conversation"),
        (["hello"], "messages='hello': not a conversation"),
        ([CHAT, []], "messages=\\[\\]: not a conversation"),
        ([{"role": "user"}], "messages={'role': 'user'}: not a message with a role and a content"),
        ([{"role": 1, "content": "x"}], "messages=.*: not a message with a role"),
        ([*CHAT, "hello"], "messages='hello': not a message with a role"),
    ],
)
def test_what_is_no_conversation_is_named(llm, messages, message):
    chat = LLM.chat.__wrapped__ if hasattr(LLM.chat, "__wrapped__") else LLM.chat
    with pytest.raises(InputError, match=f"^{message}"):
        chat(llm, messages)


def test_a_tokenizer_without_a_chat_template_is_named(llm):
    tokenizer = copy.deepcopy(llm.tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"^chat_template=None: the tokenizer has none"):
        LLM(llm.loaded, tokenizer).chat(CHAT)


# --- dtype --------------------------------------------------------------------------------------------


def test_a_dtype_may_be_torchs_own_or_its_name(checkpoint):
    for dtype in (torch.bfloat16, "bfloat16"):
        assert LLM(checkpoint, device="cpu", dtype=dtype).loaded.model.dtype == torch.bfloat16
    assert LLM(checkpoint, device="cpu").loaded.model.dtype == torch.float32  # the checkpoint's
    with pytest.raises(InputError, match=r"^dtype='torch.int8': not known"):
        LLM(checkpoint, device="cpu", dtype=torch.int8)


# --- data sets ----------------------------------------------------------------------------------------


def test_a_data_set_of_conversations_is_a_list_of_them(llm):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list([{"messages": CHAT}, {"messages": [*CHAT, *CHAT]}])
    expected = llm.chat([CHAT, [*CHAT, *CHAT]], SAMPLED, progress=False)
    assert llm.chat(rows, SAMPLED, progress=False) == expected
    assert llm.chat(rows["messages"], SAMPLED, progress=False) == expected
    with pytest.raises(InputError, match=r"^messages=\['prompt'\]: the data set has no such column"):
        llm.chat(rows.rename_column("messages", "prompt"), SAMPLED)


class EndsAt:
    """Stands for a stop text: the response ends behind its first token of this id."""

    def __init__(self, token):
        self.token = token

    def num_kept(self, token_ids):
        return next((place + 1 for place, own in enumerate(token_ids) if own == self.token), None)


@pytest.mark.parametrize("fields", [{"block_size": 4}, OF_NEXT], ids=["blocks", "next"])
def test_a_stop_text_ends_a_response_left_to_right_at_the_same_token_with_drafts_and_without(
    exact_model_with, fields
):
    """Though a draft's forward may commit tokens behind it."""
    model, num_drafted = exact_model_with(0.0), 0
    for seed in range(25):
        shared = fields | {"temperature": 1.0, "seed": seed, "max_new_tokens": 9}
        plain = DecodeParams(remasking="left_to_right", **shared)
        request = DecodeRequest(id="a", prompt_ids=(1, 2, 3, 4))
        (whole,) = decode(model, [Job(request, plain)], stops=())
        ends = EndsAt(whole.response_ids[6])
        drafted = dataclasses.replace(plain, remasking="self_speculative")
        ours, theirs = (decode(model, [Job(request, own, ends)], stops=())[0] for own in (drafted, plain))
        assert ours.response_ids == theirs.response_ids == whole.response_ids[: theirs.visible_length]
        assert ours.response_ids[-1] == ends.token and len(ours.step_map) == len(ours.response_ids)
        assert ours.finish_reason == theirs.finish_reason == "stop"
        num_drafted += ours.num_accepted
    assert num_drafted or "predicts" in fields


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=8), max_size=3))
def test_what_is_held_back_is_the_longest_end_with_which_a_stop_text_begins(text, stops):
    sizes = [size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])]
    assert num_held(text, stops) == max(sizes, default=0)

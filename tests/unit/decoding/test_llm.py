"""``t3d.LLM``: prompts of any kind in, completions and streamed blocks with their texts out."""

import copy
import dataclasses
import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from t3d.decoding.completion import DecodeRequest, DecodingError
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError
from t3d.problems.prompts import prompt_ids, token_ids
from t3d.trajectory import read_trajectories, write_trajectories

QUESTIONS = ["how many apples are left now?", "so the answer is 7", "now?"]
SAMPLED = DecodeParams(temperature=1.0, steps_per_block=2, max_new_tokens=11)


@pytest.fixture(scope="module")
def llm(checkpoint):
    """The tiny checkpoint in float64, two sequences at a time; do not count on its ``stats``."""
    return LLM(checkpoint, device="cpu", dtype="float64", max_batch_size=2)


def as_pairs(completions):
    """Completions with their texts, which ``==`` of a completion leaves out."""
    return [(completion, completion.text) for completion in completions]


def generate(llm, prompts, params=SAMPLED, **options):
    return llm.generate(prompts, params, progress=False, **options)


def without_type_checks(method):
    """What runs outside the tests, where no hook checks the types of arguments."""
    return inspect.unwrap(method)


# --- generate -----------------------------------------------------------------------------------------


def test_completions_come_in_prompt_order_under_the_ids_given(llm):
    """Although the second ends first and the third takes over its place in the batch."""
    params = [dataclasses.replace(SAMPLED, max_new_tokens=count) for count in (24, 2, 9)]
    completions = generate(llm, QUESTIONS, params, ids=["c", "a", "b"])
    assert [completion.id for completion in completions] == ["c", "a", "b"]
    for completion, question in zip(completions, QUESTIONS, strict=True):
        assert completion.prompt_ids == tuple(token_ids(llm.tokenizer, question))


def test_ids_are_numbers_by_default(llm):
    assert [completion.id for completion in generate(llm, QUESTIONS)] == ["0", "1", "2"]


def test_no_prompt_gives_no_completion(llm):
    assert generate(llm, []) == []
    assert list(llm.stream([])) == []


def test_every_kind_of_prompt_gives_its_token_ids(llm):
    """A text as it is, a chat through the template, token ids; side by side and each alone."""
    tokenizer, question = llm.tokenizer, QUESTIONS[0]
    chat = [{"role": "user", "content": question}]
    kinds = [(question, token_ids(tokenizer, question)), (chat, prompt_ids(tokenizer, question))]
    kinds += [([5, 6, 7], [5, 6, 7]), ((8, 9), [8, 9])]
    together = llm.requests([prompt for prompt, _ in kinds])
    assert [list(request.prompt_ids) for request in together] == [ids for _, ids in kinds]
    for prompt, ids in kinds:
        assert llm.requests(prompt) == [DecodeRequest(id="0", prompt_ids=tuple(ids))]
        assert llm.requests([prompt]) == llm.requests(prompt)


def test_a_chat_of_several_turns_keeps_them_all(llm):
    chat = [
        {"role": "user", "content": "how many?"},
        {"role": "assistant", "content": "7"},
        {"role": "user", "content": "so?"},
    ]
    turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in chat)
    rendered = llm.tokenizer.decode(llm.requests(chat)[0].prompt_ids)
    assert rendered == turns + "<|im_start|>assistant\n"


def test_the_text_is_the_visible_answer_without_special_tokens(make_scripted, tiny_tokenizer):
    """The end of a turn, the stop token and what follows it in the last block are not in it."""
    special = tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    apples, left = token_ids(tiny_tokenizer, " apples left")
    stop = tiny_tokenizer.eos_token_id
    answering = make_scripted([apples, special, left, apples, stop, left, left, left])
    completion = generate(answering, [1, 2, 3, 4])[0]
    assert completion.visible_ids == (apples, special, left, apples, stop)
    assert completion.text == " apples left apples"
    assert completion.finish_reason == "stop"


def test_the_text_ends_at_max_new_tokens(make_scripted, tiny_tokenizer):
    answering = make_scripted(token_ids(tiny_tokenizer, " apples left now answer"))
    completion = generate(answering, [1, 2, 3, 4], DecodeParams(max_new_tokens=2))[0]
    assert (completion.text, completion.finish_reason) == (" apples left", "length")
    assert len(completion.response_ids) == 4


def test_requests_with_their_own_settings_equal_those_run_alone(llm):
    """Seeds, temperatures, block sizes and strategies side by side."""
    params = [
        SAMPLED,
        dataclasses.replace(SAMPLED, seed=1),
        DecodeParams(block_size=8, steps_per_block=3, temperature=0.5, max_new_tokens=9),
        DecodeParams(block_size=2, steps_per_block=2, remasking="random", max_new_tokens=5),
    ]
    names = ["a", "b", "c", "d"]
    together = generate(llm, [QUESTIONS[0]] * 4, params, ids=names)
    alone = [generate(llm, QUESTIONS[0], own, ids=[name])[0] for own, name in zip(params, names, strict=True)]
    assert as_pairs(together) == as_pairs(alone)
    assert [completion.params for completion in together] == params
    reseeded = generate(llm, QUESTIONS[0], params[1], ids=["a"])[0]
    assert reseeded.response_ids != together[0].response_ids


def test_a_request_gives_the_same_alone_and_in_a_batch(llm):
    together = generate(llm, QUESTIONS)
    alone = [generate(llm, prompt, ids=[str(index)])[0] for index, prompt in enumerate(QUESTIONS)]
    assert as_pairs(together) == as_pairs(alone)


def test_the_id_keys_the_sampling_noise(llm):
    first, second = generate(llm, [QUESTIONS[0]] * 2)
    assert first.response_ids != second.response_ids
    again = generate(llm, QUESTIONS[0], ids=["1"])
    assert as_pairs(again) == as_pairs([second])


def test_without_settings_the_defaults_hold(llm):
    completion = llm.generate([1, 2], DecodeParams(max_new_tokens=4), progress=False)[0]
    assert completion.params == DecodeParams(max_new_tokens=4)
    with pytest.raises(DecodingError, match="would need 260 positions"):
        llm.generate([1, 2], progress=False)  # 256 new tokens, of the 128 positions of the tiny model


def test_progress_is_shown_only_if_wanted_and_on_standard_error(llm, capsys):
    llm.generate(QUESTIONS, SAMPLED)
    shown = capsys.readouterr()
    assert "generate" in shown.err and "3/3" in shown.err
    assert shown.out == ""
    generate(llm, QUESTIONS)
    assert capsys.readouterr().err == ""


def test_stats_add_up_over_calls(checkpoint):
    llm = LLM(checkpoint, device="cpu")
    generate(llm, QUESTIONS)
    list(llm.stream(QUESTIONS[:2], SAMPLED))
    assert llm.stats.requests == 5


# --- decode: requests that have ids and token ids -----------------------------------------------------


def test_decode_equals_generate_and_reports_each_completion_with_its_text(llm):
    reported = []
    completions = llm.decode(llm.requests(QUESTIONS), SAMPLED, on_finish=reported.append)
    assert as_pairs(completions) == as_pairs(generate(llm, QUESTIONS))
    assert all(completion.text for completion in completions)
    assert sorted(as_pairs(reported), key=lambda pair: pair[0].id) == as_pairs(completions)


# --- refusals -----------------------------------------------------------------------------------------


def test_refused_requests_are_named_and_the_finished_ones_are_in_the_error(llm):
    """An empty text, and a prompt that does not fit into the 128 positions."""
    with pytest.raises(DecodingError, match="2 requests failed") as caught:
        generate(llm, [QUESTIONS[0], "", [1] * 125, QUESTIONS[1]], ids=["good", "empty", "long", "fine"])
    assert set(caught.value.problems) == {"empty", "long"}
    assert "'empty': prompt_ids='empty': this request has an empty prompt" in str(caught.value)
    assert "'long' has 125 prompt tokens" in str(caught.value)
    finished = [caught.value.completions[name] for name in ("good", "fine")]
    assert set(caught.value.completions) == {"good", "fine"}
    assert as_pairs(finished) == as_pairs(generate(llm, QUESTIONS[:2], ids=["good", "fine"]))


def test_refusals_may_be_returned_in_their_places(llm):
    prompts, names = [QUESTIONS[0], [], QUESTIONS[1]], ["good", "empty", "fine"]
    completions = generate(llm, prompts, ids=names, on_error="return")
    refused = completions.pop(1)
    assert (refused.id, refused.finish_reason) == ("empty", "error")
    assert "empty prompt" in refused.error
    assert (refused.response_ids, refused.visible_ids, refused.text) == ((), (), "")
    assert as_pairs(completions) == as_pairs(generate(llm, QUESTIONS[:2], ids=["good", "fine"]))


def test_a_failing_forward_names_the_unfinished_and_keeps_the_texts_of_the_finished(
    make_scripted, tiny_tokenizer
):
    failing = make_scripted(token_ids(tiny_tokenizer, " apples left now answer"), max_batch_size=1)
    failing.loaded.model.forwards_left = 6
    with pytest.raises(DecodingError, match="RuntimeError: out of memory") as caught:
        generate(failing, [[1, 2, 3, 4]] * 3, DecodeParams(max_new_tokens=4))
    assert set(caught.value.problems) == {"1", "2"}
    assert {name: done.text for name, done in caught.value.completions.items()} == {
        "0": " apples left now answer"
    }


# --- trajectories -------------------------------------------------------------------------------------


def test_a_completion_is_a_trajectory_that_survives_its_file(llm, tmp_path):
    completions = generate(llm, QUESTIONS)
    records = [completion.trajectory for completion in completions]
    write_trajectories(tmp_path / "records.parquet", records)
    assert read_trajectories(tmp_path / "records.parquet") == records
    for record, completion in zip(records, completions, strict=True):
        assert record.id == completion.id
        assert (record.prompt_ids, record.response_ids) == (completion.prompt_ids, completion.response_ids)
        assert (record.step_map, record.visible_length) == (completion.step_map, completion.visible_length)
        assert DecodeParams(**record.decode_params) == SAMPLED
        assert record.state_at(0) == (llm.loaded.mask_token_id,) * len(record.response_ids)
        assert record.state_at(completion.num_denoising_steps) == completion.response_ids


def test_the_states_of_a_trajectory_are_what_was_streamed(llm):
    """Step k leaves the active block as ``state_at(k)`` has it."""
    updates = list(llm.stream(QUESTIONS[0], SAMPLED, provisional=True))
    record = updates[-1].completion.trajectory
    assert len(updates) == record.num_denoising_steps
    mask = llm.loaded.mask_token_id
    for step, update in enumerate(updates, start=1):
        block = slice(update.response_start, update.response_start + len(update.token_ids))
        seen = tuple(mask if token is None else token for token in update.token_ids)
        assert seen == record.state_at(step)[block]


def test_a_refused_request_has_no_trajectory(llm):
    refused = generate(llm, [""], on_error="return")[0]
    with pytest.raises(InputError, match=r"request='0': has no response: .*empty prompt"):
        _ = refused.trajectory


# --- stream -------------------------------------------------------------------------------------------


def stream_by_id(llm, prompts, params=SAMPLED, **options):
    """Updates of each request, in the order of their coming."""
    by_id = {}
    for update in llm.stream(prompts, params, **options):
        by_id.setdefault(update.id, []).append(update)
    return by_id


def test_streamed_blocks_add_up_to_the_completion(llm):
    """Tokens and texts of each request's blocks; the last update, and no other, has the completion."""
    prompts = [*QUESTIONS, [1, 2, 3, 4]]
    by_id = stream_by_id(llm, prompts)
    expected = generate(llm, prompts)
    assert sorted(by_id) == [completion.id for completion in expected]
    for completion in expected:
        updates = by_id[completion.id]
        assert all(update.is_committed for update in updates)
        assert [update.completion for update in updates[:-1]] == [None] * (len(updates) - 1)
        assert as_pairs([updates[-1].completion]) == as_pairs([completion])
        assert sum((update.token_ids for update in updates), ()) == completion.response_ids
        assert "".join(update.text for update in updates) == completion.text
        assert len(updates) >= 3


def test_a_block_comes_as_soon_as_it_is_finished(make_scripted, tiny_tokenizer):
    """Two steps for a block: its text is there after two forwards, not at the end."""
    answering = make_scripted(token_ids(tiny_tokenizer, " apples left now answer is the are"))
    updates = answering.stream([1, 2, 3, 4], DecodeParams(steps_per_block=2, max_new_tokens=8))
    seen = [(update.text, answering.stats.forwards) for update in updates]
    assert seen == [(" apples left now answer", 2), (" is the are", 4)]


def test_a_refused_request_is_streamed_as_its_completion(llm):
    by_id = stream_by_id(llm, ["", QUESTIONS[0]])
    (refused,) = by_id["0"]
    assert (refused.completion.finish_reason, refused.token_ids, refused.text) == ("error", (), "")
    assert by_id["1"][-1].completion.finish_reason != "error"


def test_provisional_updates_come_only_if_asked_for_and_only_unmask(llm):
    params = DecodeParams(temperature=1.0, max_new_tokens=11)
    by_id, quiet = (stream_by_id(llm, QUESTIONS, params, provisional=wanted) for wanted in (True, False))
    for name, updates in by_id.items():
        committed = [update for update in updates if update.is_committed]
        assert committed == quiet[name]
        completion = updates[-1].completion
        assert len(updates) == completion.num_denoising_steps > len(committed)
        previous = None
        for update in updates:
            assert update.is_committed == (None not in update.token_ids)
            if previous is not None and previous.response_start == update.response_start:
                changed = [
                    (old, new)
                    for old, new in zip(previous.token_ids, update.token_ids, strict=True)
                    if old != new
                ]
                assert changed and all(old is None for old, _ in changed)
            else:
                assert previous is None or previous.is_committed
            previous = update


def test_provisional_text_shows_masks_and_whole_characters(make_scripted, tiny_tokenizer):
    """The two bytes of é are two tokens: once both are there it is one character."""
    answering = make_scripted(token_ids(tiny_tokenizer, "né!"))
    params = DecodeParams(remasking="sequential", max_new_tokens=4)
    texts = [update.text for update in answering.stream([1, 2, 3, 4], params, provisional=True)]
    assert (texts[0], texts[2], texts[3]) == ("n░░░", "né░", "né!")


def test_provisional_text_begins_with_what_is_held_back_and_ends_where_the_answer_ends(
    make_scripted, tiny_tokenizer
):
    """A text that may begin a stop text is told with the draft; what is behind a stop token, never."""
    answering = make_scripted(token_ids(tiny_tokenizer, " apples left now answer is"))
    params = DecodeParams(remasking="sequential", max_new_tokens=7, stop=["answer the", "w a"])
    texts = [update.text for update in answering.stream([1, 2, 3, 4], params, provisional=True)]
    assert texts[:2] == [" apples░░░", " apples left░░"] and texts[2] == " apples left now░"
    plain = DecodeParams(remasking="sequential", max_new_tokens=7, stop=["answer the"])
    updates = list(answering.stream([1, 2, 3, 4], plain, provisional=True))
    assert [update.text for update in updates[3:]] == [
        " apples left now ",
        "answer is░░",
        "answer is",
        *["answer is"] * 2,
    ]
    assert [update.num_visible for update in updates[4:]] == [3, 2, 2, 2]


def test_a_character_split_over_blocks_comes_with_its_last_byte(make_scripted, tiny_tokenizer):
    """Blocks of two tokens, a byte each: a é | é 🙂 | 🙂 🙂 | 🙂 b | end."""
    answering = make_scripted(token_ids(tiny_tokenizer, "aé🙂b"))
    params = DecodeParams(block_size=2, steps_per_block=1, max_new_tokens=20)
    updates = list(answering.stream([1, 2, 3, 4], params))
    assert [update.text for update in updates] == ["a", "é", "", "🙂b", ""]
    assert updates[-1].completion.text == "aé🙂b"


@settings(max_examples=25)
@given(st.text(max_size=10), st.sampled_from([1, 2, 4]), st.integers(1, 5))
def test_a_streamed_text_never_shows_half_a_character(
    make_scripted, tiny_tokenizer, text, block_size, prompt_length
):
    """Whatever the text and where its bytes are cut: its own U+FFFD aside, there is none."""
    text = text.replace("\ufffd", "")
    answering = make_scripted(token_ids(tiny_tokenizer, text), prompt_length)
    params = DecodeParams(block_size=block_size, steps_per_block=1, max_new_tokens=60)
    updates = list(answering.stream([1] * prompt_length, params))
    assert not any("\ufffd" in update.text for update in updates)
    assert "".join(update.text for update in updates) == updates[-1].completion.text == text


@settings(max_examples=25)
@given(st.lists(st.integers(0, 372), max_size=20), st.sampled_from([1, 2, 4]), st.integers(1, 24))
def test_streamed_texts_add_up_for_any_tokens(make_scripted, tiny_tokenizer, ids, block_size, new_tokens):
    """Stray bytes, special tokens in the middle of a character, an answer cut inside one."""
    answering = make_scripted(ids)
    params = DecodeParams(block_size=block_size, steps_per_block=1, max_new_tokens=new_tokens)
    updates = list(answering.stream([1, 2, 3, 4], params))
    completion = updates[-1].completion
    assert completion.text == tiny_tokenizer.decode(completion.visible_ids, skip_special_tokens=True)
    assert "".join(update.text for update in updates) == completion.text


# --- wrong inputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["generate", "stream"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": ["a"]}, "ids=1: there are 3 prompts. Fix: give one id per prompt."),
        ({"ids": []}, "ids=0: there are 3 prompts. Fix: give one id per prompt."),
        ({"ids": ["a", "b", "a"]}, "id='a': used by two requests. Fix: give each its own id."),
        (
            {"params": [SAMPLED] * 2},
            "params=2: there are 3 requests. Fix: give one DecodeParams, or one per request.",
        ),
        ({"params": []}, "params=0: there are 3 requests. Fix: give one DecodeParams, or one per request."),
    ],
)
def test_ids_and_settings_that_do_not_fit_the_prompts_are_named(llm, verb, options, message):
    """At once: a stream does not wait for its first update to say so."""
    with pytest.raises(InputError) as caught:
        getattr(llm, verb)(QUESTIONS, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("prompts", [5, None, [5.0], ["now?", None], {"role": "user", "content": "now?"}])
def test_what_is_no_prompt_is_named(llm, prompts):
    with pytest.raises(InputError) as caught:
        without_type_checks(LLM.requests)(llm, prompts)
    odd = prompts[-1] if isinstance(prompts, list) else prompts
    kinds = "texts, chats (lists of messages) or lists of token ids"
    assert str(caught.value) == f"prompts={odd!r}: not a prompt. Fix: give {kinds}."


@pytest.mark.parametrize("token", [-1, 374, "5", 5.0])
def test_a_token_id_outside_the_vocabulary_is_named(llm, token):
    assert llm.loaded.model.config.vocab_size == 374
    assert llm.requests([0, 373])[0].prompt_ids == (0, 373)
    with pytest.raises(InputError) as caught:
        without_type_checks(LLM.requests)(llm, [[1, token]])
    assert str(caught.value) == f"prompts={token!r}: not a token id. Fix: use ids of 0 to 373."


@pytest.mark.parametrize("field", ["max_batch_size", "max_model_len", "max_prefill_tokens"])
def test_a_size_below_one_is_named(llm, field):
    with pytest.raises(InputError, match=f"{field}=0: not positive"):
        LLM(llm.loaded, **{field: 0})


def test_a_model_in_memory_needs_its_tokenizer(make_model):
    with pytest.raises(InputError, match=r"tokenizer=None: .*Fix: give its tokenizer"):
        LLM(make_model())


# --- what a model may be ------------------------------------------------------------------------------


def test_a_folder_a_loaded_model_and_a_transformers_model_generate_the_same(checkpoint, tiny_tokenizer):
    """Under "auto" the folder's own dtype, float32."""
    from_folder = LLM(checkpoint, device="cpu")
    in_memory = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    others = [LLM(from_folder.loaded), LLM(str(checkpoint), device="cpu"), LLM(in_memory, tiny_tokenizer)]
    expected = as_pairs(generate(from_folder, QUESTIONS))
    for other in others:
        assert other.loaded.model.dtype == torch.float32
        assert as_pairs(generate(other, QUESTIONS)) == expected


def test_a_tokenizer_of_ones_own_replaces_the_models(llm, tiny_tokenizer):
    assert LLM(llm.loaded).tokenizer is llm.loaded.tokenizer is not tiny_tokenizer
    assert LLM(llm.loaded, tiny_tokenizer).tokenizer is tiny_tokenizer


def test_a_tokenizer_or_a_stop_id_that_contradicts_the_model_is_named(llm, tiny_tokenizer):
    mask = llm.loaded.mask_token_id
    with pytest.raises(InputError, match=rf"stop_token_ids=\[3, {mask}\]: holds the mask token"):
        LLM(llm.loaded, stop_token_ids=[3, mask])
    wider, other = copy.deepcopy(tiny_tokenizer), copy.deepcopy(tiny_tokenizer)
    wider.add_tokens(["<|extra|>"])
    with pytest.raises(
        InputError, match=rf"tokenizer=.*'<\|extra\|>' has id {mask + 1}, but model .* 0 to {mask} "
    ):
        LLM(llm.loaded, wider)
    other.mask_token = "<|im_start|>"
    with pytest.raises(
        InputError, match=rf"its mask token is {other.mask_token_id}, that of the model {mask}"
    ):
        LLM(llm.loaded, other)


def test_stop_ids_of_ones_own_replace_the_checkpoints(make_scripted, tiny_tokenizer):
    apples, left = token_ids(tiny_tokenizer, " apples left")
    answering = make_scripted([apples, left])  # ends after them
    params = DecodeParams(max_new_tokens=6)
    eos = tiny_tokenizer.eos_token_id
    for stops, length, reason in ((None, 3, "stop"), ((), 6, "length"), ((left,), 2, "stop")):
        completion = generate(LLM(answering.loaded, stop_token_ids=stops), [1, 2, 3, 4], params)[0]
        assert completion.visible_ids == (apples, left, eos, eos, eos, eos)[:length]
        assert completion.finish_reason == reason


def test_max_model_len_refuses_what_is_longer(llm):
    short = LLM(llm.loaded, max_model_len=16)
    assert generate(short, [1] * 5)[0].finish_reason != "error"  # 5 + 11 tokens
    with pytest.raises(DecodingError, match="would need 20 positions, but max_model_len is 16"):
        generate(short, [1] * 6)

"""Which tokens become mask and pad."""

import pytest
from adopt_helpers import CHAT, END, TURN_END, plain_tokenizer

from t3d.errors import InputError
from t3d.models.token_choice import assign, choose_mask, choose_pad, used_ids

SMOLLM2 = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<repo_name>",
    "<reponame>",
    "<file_sep>",
    "<gh_stars>",
)
LLAMA3 = ("<|begin_of_text|>", END, TURN_END, "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>")
QWEN = (*CHAT, "<|vision_pad|>", "<|image_pad|>", "<tool_call>")


def chosen(specials, stops=(TURN_END,), wanted=None, **roles):
    tokenizer = plain_tokenizer(specials, **roles)
    ids = {tokenizer.convert_tokens_to_ids(token) for token in stops}
    used = ids | used_ids(tokenizer)
    mask = choose_mask(tokenizer, wanted, used).token
    return mask, choose_pad(tokenizer, ids, mask, used).token


@pytest.mark.parametrize(
    ("specials", "stops", "mask", "pad"),
    [
        (SMOLLM2, [TURN_END], "<reponame>", END),
        (LLAMA3, [TURN_END, END], "<|reserved_special_token_0|>", "<|finetune_right_pad_id|>"),
        (QWEN, [TURN_END, END], "<|MASK|>", "<|PAD|>"),
        (QWEN, [TURN_END], "<|MASK|>", END),
        ((*CHAT, "<|fim_pad|>"), [TURN_END], "<|fim_pad|>", END),
        ((*CHAT, "[unused1]", "[MASK]"), [TURN_END], "[MASK]", END),
        ((*CHAT, "<unused0>", "<unused1>"), [TURN_END, END], "<unused0>", "<unused1>"),
        ((*CHAT, "<unk>"), [TURN_END, END], "<|MASK|>", "<unk>"),
    ],
)
def test_what_families_get(specials, stops, mask, pad):
    """SmolLM2, Llama 3, Qwen and others; never a token that may have been learnt, such as a picture's."""
    assert chosen(specials, stops) == (mask, pad)


def test_the_tokenizers_own_mask_and_pad_are_kept_unless_they_are_stops():
    specials = (*CHAT, "<m>", "<p>", "<|reserved_0|>")
    assert chosen(specials, mask_token="<m>", pad_token="<p>") == ("<m>", "<p>")
    assert chosen(specials, ("<m>", "<p>"), mask_token="<m>", pad_token="<p>") == ("<|reserved_0|>", END)


def test_a_token_with_a_role_or_in_the_chat_template_is_not_free():
    specials = (*CHAT, "<|reserved_0|>", "<|reserved_1|>")
    assert chosen(specials, bos_token="<|reserved_0|>")[0] == "<|reserved_1|>"
    tokenizer = plain_tokenizer(specials)
    tokenizer.chat_template = "<|reserved_0|>" + tokenizer.chat_template
    assert choose_mask(tokenizer, None, set()).token == "<|reserved_1|>"
    tokenizer.chat_template = {"default": "{{ x }}", "tools": "<|reserved_1|><|reserved_0|>"}
    assert choose_mask(tokenizer, None, set()).token == "<|MASK|>"


def test_ids_of_configs_count_as_used():
    tokenizer = plain_tokenizer()
    told = {"decoder_start_token_id": 7, "eos_token_id": [1, 2], "bos_token_id": None, "mask_token_id": 9}
    assert used_ids(tokenizer, told, {"suppress_token_ids": [3]}) == {258, 7, 1, 2, 3}


@pytest.mark.parametrize("wanted", ["<|reserved_0|>", "<|ordinary|>", "<|brand new|>"])
def test_the_mask_may_be_named(wanted):
    assert chosen((*CHAT, "<|ordinary|>", "<|reserved_0|>"), wanted=wanted)[0] == wanted


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("a", "an ordinary token of the vocabulary"),
        (TURN_END, "has another role"),
        ("<|im_start|>", "stands in the chat template"),
        (" x", "with spaces around it"),
        ("", "empty"),
    ],
)
def test_what_texts_use_is_no_mask(wanted, said):
    with pytest.raises(InputError, match=f"^mask_token={wanted!r}: .*{said}") as caught:
        chosen(CHAT, wanted=wanted)
    assert caught.value.field == "mask_token"


def test_a_new_name_is_new_and_the_ids_of_others_stay():
    tokenizer = plain_tokenizer()
    before = tokenizer.get_vocab()
    assert choose_pad(tokenizer, {256, 258}, "<|MASK|>", {256, 258}).token == "<|PAD|>"
    assert assign(tokenizer, "pad_token", "<|PAD|>") == 259
    tokenizer.pad_token = TURN_END
    found = choose_pad(tokenizer, {256, 258, 259}, "<|MASK|>", {256, 258, 259})
    assert (found.token, found.reason) == ("<|PAD_|>", "new")
    assert {name: tokenizer.get_vocab()[name] for name in before} == before

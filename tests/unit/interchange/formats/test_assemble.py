"""What foreign records do not say, and texts that do not give their tokens back."""

import pytest
from format_helpers import make, settings
from strategies import TOKENIZER, encode

from t3d.errors import InputError
from t3d.interchange.formats.assemble import DropReason, ids_text, text_drop, text_tokens


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"block_size": 0}, "block_size"),
        ({"steps_per_block": 0}, "steps_per_block"),
        ({"steps_per_block": 5}, "steps_per_block"),
        ({"first_step": 2}, "first_step"),
        ({"mask_token_id": 2**31}, "mask_token_id"),
        ({"mask_token_id": -1}, "mask_token_id"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, field):
    with pytest.raises(InputError) as caught:
        settings(**changes)
    assert caught.value.field == field


def test_only_known_decoding_settings_are_recorded():
    assert settings().decode_params == {}
    assert settings(steps_per_block=2).decode_params == {"steps_per_block": 2}


def test_bytes_of_a_cut_character_are_no_text():
    """The two bytes of an e with accent are two tokens; one of them alone decodes to U+FFFD."""
    both = encode("\u00e9")
    assert len(both) == 2
    assert ids_text(TOKENIZER, both) == "\u00e9"
    assert ids_text(TOKENIZER, both[:1]) is None
    assert text_tokens(TOKENIZER, "\ufffd") is None


def test_ids_that_are_not_the_tokenizers_own_choice_are_no_text():
    """The bytes of a word that is one token: same text, other ids."""
    word = encode(" apples")
    letters = tuple(TOKENIZER.convert_tokens_to_ids(list("\u0120apples")))
    assert len(word) == 1
    assert ids_text(TOKENIZER, letters) is None
    one_block = {"block_size": 64, "terminal_complete": False}
    spelled = make(response_ids=letters, step_map=(1,) * 7, visible_length=7, **one_block)
    assert text_drop(spelled, TOKENIZER).reason == DropReason.TEXT_CHANGED
    assert text_drop(make(prompt_ids=letters, **one_block), TOKENIZER).reason == DropReason.TEXT_CHANGED
    assert text_drop(make(**one_block), TOKENIZER) is None


def test_filler_does_not_decide_whether_the_answer_is_text():
    trajectory = make()
    cut_character = encode("\u00e9")[:1]
    with_filler = make(response_ids=trajectory.response_ids[:-1] + cut_character)
    assert with_filler.visible_length < len(with_filler.response_ids)
    assert text_drop(with_filler, TOKENIZER) is None

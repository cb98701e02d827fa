"""Token ids of a checkpoint that contradict its network or each other are named where it is loaded."""

import json
import shutil

import pytest

from t3d.errors import InputError
from t3d.models.loading import adopt_model, load_model, load_tokenizer

LOADERS = {"model": lambda folder: load_model(folder, device="cpu"), "tokenizer": load_tokenizer}


@pytest.fixture(params=LOADERS)
def load(request):
    """With the weights, and the tokenizer alone."""
    return LOADERS[request.param]


@pytest.fixture
def copy_of(tmp_path, checkpoint):
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint, folder)
    return folder


def edit_json(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize("mask", [-1, 374, 10**6, True])
def test_a_mask_id_without_a_row_is_named(copy_of, load, mask):
    edit_json(copy_of / "tokenizer_config.json", mask_token=None)
    edit_json(copy_of / "config.json", mask_token_id=mask)
    expected = rf"^mask_token_id={mask}: of model '.*copy': no token id: .* rows for 0 to 373\. Fix: correct"
    with pytest.raises(InputError, match=expected):
        load(copy_of)


@pytest.mark.parametrize("stops", [5, [3, 5]])
def test_a_mask_that_is_a_stop_token_too_is_named(copy_of, load, stops):
    edit_json(copy_of / "tokenizer_config.json", mask_token=None)
    edit_json(copy_of / "config.json", mask_token_id=5)
    edit_json(copy_of / "generation_config.json", eos_token_id=stops)
    with pytest.raises(InputError, match=r"^mask_token_id=5: of model .*: a stop token too"):
        load(copy_of)


@pytest.mark.parametrize("mask", [7, -1, "seven"])
def test_a_mask_id_at_odds_with_the_tokenizers_mask_token_is_named(copy_of, load, tiny_tokenizer, mask):
    edit_json(copy_of / "config.json", mask_token_id=mask)
    expected = (
        rf"^mask_token_id={mask!r}: .*mask token '<\|MASK\|>' is {tiny_tokenizer.mask_token_id}\. Fix: "
    )
    with pytest.raises(InputError, match=expected):
        load(copy_of)


def test_a_tokenizer_with_more_ids_than_rows_is_named(copy_of, load, tiny_tokenizer):
    """Its size alone does not tell: ids may have gaps."""
    definition = json.loads((copy_of / "tokenizer.json").read_text())
    rows = len(tiny_tokenizer)
    definition["added_tokens"].append(definition["added_tokens"][-1] | {"id": rows, "content": "<|extra|>"})
    (copy_of / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(InputError, match=rf"^tokenizer='.*copy': .*'<\|extra\|>' has id {rows}, but model"):
        load(copy_of)


def test_a_network_with_more_rows_than_the_tokenizer_has_ids_loads(make_model, tiny_tokenizer):
    """As SDAR's: 151,936 rows, 151,670 ids."""
    mask = tiny_tokenizer.mask_token_id
    adopted = adopt_model(make_model(vocab_size=len(tiny_tokenizer) + 9, mask_token_id=mask), tiny_tokenizer)
    assert adopted.vocab_size == len(tiny_tokenizer) + 9


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, "tokenizer='.*': its token .* has id 373, but model .* rows for 0 to 39 only"),
        ({"vocab_size": 374}, "mask_token_id=37: .*mask token .* is 373"),
    ],
)
def test_a_model_in_memory_that_does_not_fit_its_tokenizer_is_named(
    make_model, tiny_tokenizer, overrides, message
):
    with pytest.raises(InputError, match=message):
        adopt_model(make_model(**overrides), tiny_tokenizer)

"""A tokenizer without its weights: the same ids as the whole model's."""

import shutil

import pytest

from t3d.errors import InputError
from t3d.models.loading import load_model, load_tokenizer


def test_the_tokenizer_alone_has_the_ids_of_the_whole_model(checkpoint):
    whole, alone = load_model(checkpoint, device="cpu"), load_tokenizer(checkpoint)
    assert alone.mask_token_id == whole.mask_token_id
    assert alone.stop_token_ids == whole.stop_token_ids
    assert alone.tokenizer_hash == whole.tokenizer_hash
    assert alone.vocab_size == whole.model.config.vocab_size


def test_no_weights_are_needed(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    assert load_tokenizer(tmp_path / "copy").tokenizer_hash == load_tokenizer(checkpoint).tokenizer_hash


def test_the_bundled_teachers_tokenizer_loads_by_name():
    assert load_tokenizer("mini").tokenizer.mask_token_id == load_tokenizer("mini").mask_token_id


def test_a_missing_folder_and_a_missing_tokenizer_are_named(checkpoint, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_tokenizer(tmp_path / "none")
    shutil.copytree(checkpoint, tmp_path / "copy", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path / "copy")
    assert caught.value.field == "model"

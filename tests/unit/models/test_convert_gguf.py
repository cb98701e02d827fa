"""Adopting a GGUF file; the reader is an extra, so without it all but the refusal is left out."""

import importlib.util
import json

import pytest
import torch
from adopt_helpers import plain_tokenizer, save_gguf, save_source
from safetensors.torch import load_file

from t3d.errors import InputError
from t3d.models.convert import ConvertConfig, convert
from t3d.models.loading import load_model

HAS_GGUF = importlib.util.find_spec("gguf") is not None
needs_gguf = pytest.mark.skipif(not HAS_GGUF, reason="pip install t3d[gguf]")


@pytest.fixture
def source(tmp_path):
    """A tiny Llama, and the folder of its GGUF file; make others with ``told``."""
    tokenizer = plain_tokenizer((*("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<reponame>"))
    model = save_source(tmp_path / "whole", "llama", tokenizer)
    (tmp_path / "gguf").mkdir()
    return model, tokenizer, tmp_path / "gguf"


@needs_gguf
@pytest.mark.filterwarnings("ignore")  # of the reader's own
def test_the_values_of_a_gguf_file_go_over(source, tmp_path):
    model, tokenizer, folder = source
    save_gguf(folder / "tiny.gguf", model, tokenizer, **{"rope.scaling.factor": 1.0})  # which says nothing
    made = convert(str(folder), tmp_path / "out", ConvertConfig(gguf_file="tiny.gguf"))
    assert (made.dtype, made.architecture) == ("float32", "T3DLlamaForCausalLM")
    assert (made.mask_token, made.pad_token) == ("<reponame>", "<|endoftext|>")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in fields and fields["tie_word_embeddings"] is False
    loaded = load_model(tmp_path / "out", device="cpu")
    assert loaded.stop_token_ids == (258,)
    ids = torch.randint(0, 260, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, model(input_ids=ids).logits)
    assert loaded.tokenizer.encode("how <|im_end|>") == tokenizer.encode("how <|im_end|>")


@needs_gguf
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["rope.scaling.factor", "attention.sliding_window", "final_logit_softcapping"]
)
def test_what_transformers_would_not_read_of_the_file_is_refused(source, tmp_path, name):
    model, tokenizer, folder = source
    save_gguf(folder / "tiny.gguf", model, tokenizer, **{name: 30.0})
    with pytest.raises(InputError, match=rf"^gguf_file='tiny.gguf': has llama.{name}, which"):
        convert(str(folder), tmp_path / "out", ConvertConfig(gguf_file="tiny.gguf"))
    assert not (tmp_path / "out").exists()


@needs_gguf
def test_a_file_that_is_not_there_or_is_none_is_named(tmp_path):
    (tmp_path / "other.gguf").write_bytes(b"no gguf")
    with pytest.raises(InputError, match=r"^gguf_file='tiny.gguf': no such file .*other\.gguf"):
        convert(str(tmp_path), tmp_path / "out", ConvertConfig(gguf_file="tiny.gguf"))
    with pytest.raises(InputError, match=r"^gguf_file='other.gguf': transformers cannot read it"):
        convert(str(tmp_path), tmp_path / "out", ConvertConfig(gguf_file="other.gguf"))


def test_without_the_reader_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"gguf_file='x.gguf': .* absent\. Fix: pip install t3d\[gguf\]"):
        convert(str(tmp_path), tmp_path / "out", ConvertConfig(gguf_file="x.gguf"))

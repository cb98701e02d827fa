"""The judge: its numbers are those of a slow loop, whatever is judged beside; what it cannot judge."""

import dataclasses

import pytest
import torch
from adopt_helpers import CHAT, plain_tokenizer, save_source
from next_token_helpers import next_logits

from t3d.errors import InputError
from t3d.evaluation.judge import check_judge, negative_log_likelihoods
from t3d.models.convert import ConvertConfig, convert
from t3d.models.loading import load_model, load_tokenizer

PROMPTS = [(65, 66, 67), (70,), (80, 81, 82, 83, 84, 85, 86), (90, 91)]
RESPONSES = [(10, 11), (12, 13, 14, 15, 258), (16,), (17, 18, 19)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    save_source(folder, "llama", plain_tokenizer([*CHAT, "<reponame>", "<|pad|>"]))
    return folder


@pytest.fixture(scope="module")
def judge(source):
    return load_model(source, device="cpu", dtype="float64")


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_it_is_the_mean_of_what_a_slow_loop_adds_up(judge, batch_size):
    expected = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        tokens, total = list(prompt), 0.0
        for token in response:
            total -= next_logits(judge.model, tokens)[-1].log_softmax(-1)[token].item()
            tokens.append(token)
        expected.append(total / len(response))
    judged = []
    found = negative_log_likelihoods(
        judge, PROMPTS, RESPONSES, batch_size=batch_size, on_judged=judged.append
    )
    assert found == pytest.approx(expected, rel=1e-9)
    assert sum(judged) == len(PROMPTS)


def test_half_precision_is_summed_in_float32(judge):
    half = dataclasses.replace(judge, model=load_model(judge.source, device="cpu", dtype="bfloat16").model)
    expected = negative_log_likelihoods(judge, PROMPTS, RESPONSES)
    assert negative_log_likelihoods(half, PROMPTS, RESPONSES) == pytest.approx(expected, rel=0.1)
    assert half.model.dtype == torch.bfloat16


def test_it_judges_what_was_converted_from_it_with_a_mask_that_was_there(judge, source, tmp_path):
    convert(str(source), tmp_path / "blocks", ConvertConfig())
    blocks = load_model(tmp_path / "blocks", device="cpu")
    check_judge(judge, blocks)
    with pytest.raises(InputError, match="not about the next token"):
        negative_log_likelihoods(blocks, PROMPTS, RESPONSES)


def test_another_tokenizer_is_refused_by_its_hash(judge, tmp_path):
    save_source(tmp_path / "other", "llama", plain_tokenizer())
    convert(str(tmp_path / "other"), tmp_path / "blocks", ConvertConfig())  # which adds a mask
    with pytest.raises(InputError, match=f"tokenizer \\({judge.tokenizer_hash[:12]}\\)"):
        check_judge(judge, load_tokenizer(tmp_path / "blocks"))


@pytest.mark.parametrize(("prompts", "responses"), [([()], [(1,)]), ([(1,)], [()])])
def test_nothing_cannot_be_judged(judge, prompts, responses):
    with pytest.raises(InputError, match="nothing to judge"):
        negative_log_likelihoods(judge, prompts, responses)

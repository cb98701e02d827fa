"""transformers' streamers are told what the completion holds, in its order."""

from itertools import chain

import pytest
import torch
from transformers import TextDiffusionStreamer, TextStreamer

from t3d.decoding.completion import DecodingError
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError

PARAMS = DecodeParams(temperature=1.0, steps_per_block=2, max_new_tokens=11)
QUESTION = "how many apples are left now?"


class Kept:
    """Keeps what it is told."""

    def __init__(self):
        self.told, self.num_ends = [], 0

    def put(self, value):
        assert value.dtype == torch.int64 and value.shape[0] == 1
        self.told.append(value[0].tolist())

    def end(self):
        self.num_ends += 1


class WithDrafts(Kept):
    def __init__(self):
        super().__init__()
        self.drafts = []

    def put_draft(self, value):
        self.drafts.append((len(self.told), value[0].tolist()))


@pytest.fixture(scope="module")
def llm(checkpoint):
    return LLM(checkpoint, device="cpu", dtype="float64", max_batch_size=2)


@pytest.mark.parametrize("kind", [Kept, WithDrafts])
@pytest.mark.parametrize("remasking", ["low_confidence_static", "self_speculative"])
def test_the_prompt_and_then_the_visible_tokens_are_put_block_by_block(llm, kind, remasking):
    params = DecodeParams(temperature=1.0, remasking=remasking, max_new_tokens=11)
    streamer = kind()
    (completion,) = llm.generate(QUESTION, params, streamer=streamer)
    assert completion == llm.generate(QUESTION, params, progress=False)[0]
    assert streamer.told[0] == list(completion.prompt_ids) and streamer.num_ends == 1
    assert list(chain.from_iterable(streamer.told[1:])) == list(completion.visible_ids)


def test_a_streamer_of_drafts_sees_every_step_of_a_block_before_the_block(llm):
    streamer = WithDrafts()
    (completion,) = llm.generate(QUESTION, PARAMS, streamer=streamer)
    mask, start = llm.loaded.mask_token_id, 0
    assert streamer.drafts and all(mask in draft for _, draft in streamer.drafts)
    for place, block in enumerate(streamer.told[1:], 1):
        whole = completion.response_ids[start:]
        for draft in (draft for told, draft in streamer.drafts if told == place):
            assert all(token in (mask, own) for token, own in zip(draft, whole, strict=False))
        start += len(block)


def test_the_streamers_of_transformers_print_the_answer(llm, capsys):
    for kind in (TextStreamer, TextDiffusionStreamer):
        (completion,) = llm.generate(QUESTION, PARAMS, streamer=kind(llm.tokenizer, skip_prompt=True))
        assert (
            capsys.readouterr().out.rstrip("\n").endswith(llm.tokenizer.decode(completion.visible_ids)[-4:])
        )


def test_several_responses_are_refused_before_anything_is_told(llm):
    for prompts, params in (([QUESTION] * 2, PARAMS), (QUESTION, DecodeParams(n=2, temperature=1.0))):
        streamer = Kept()
        with pytest.raises(InputError, match=r"^streamer='given': there are 2 responses, .* use LLM.stream"):
            llm.generate(prompts, params, streamer=streamer)
        assert not streamer.told and not streamer.num_ends


def test_a_response_that_fails_ends_the_stream_and_is_named(llm):
    streamer = Kept()
    with pytest.raises(DecodingError):
        llm.generate([[]], PARAMS, streamer=streamer)
    assert streamer.num_ends == 1

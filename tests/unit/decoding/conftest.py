"""Models that say what a test has written for them."""

from types import SimpleNamespace

import pytest
import torch

from t3d.decoding.llm import LLM
from t3d.models.sdar import SDARForCausalLM


class ScriptedSDAR(SDARForCausalLM):
    """Predicts the token that its script has for each position, whatever it sees."""

    script: list[int]
    forwards_left = 1_000_000

    def forward(self, input_ids, position_ids, logit_positions, **_):
        if self.forwards_left == 0:
            raise RuntimeError("out of memory\nand a traceback")
        self.forwards_left -= 1
        wanted_N = torch.tensor(self.script)[position_ids[0, logit_positions]]
        choice_NV = torch.nn.functional.one_hot(wanted_N, self.config.vocab_size).double()
        return SimpleNamespace(logits=1000 * choice_NV)


@pytest.fixture(scope="module")
def make_scripted(tiny_config, tiny_tokenizer):
    """Factory of LLMs that answer any prompt of ``num_prompt_tokens`` with these tokens, then end."""
    ids = {name: getattr(tiny_tokenizer, name) for name in ("eos_token_id", "pad_token_id", "mask_token_id")}
    config = tiny_config(vocab_size=len(tiny_tokenizer), num_hidden_layers=1, **ids)

    def make(response_ids, num_prompt_tokens=4, **options):
        model = ScriptedSDAR(config)
        ends = [tiny_tokenizer.eos_token_id] * 128
        model.script = [0] * num_prompt_tokens + list(response_ids) + ends
        return LLM(model, tiny_tokenizer, **options)

    return make

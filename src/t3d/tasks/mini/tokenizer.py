"""The mini suite's tokenizer: byte-level BPE in which every word of the suite is one token.

The words enter the vocabulary whole (``ignore_merges``); any other text falls back to bytes, so
everything encodes and decodes exactly.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from t3d.tasks.mini.suite import TASKS

END_OF_TEXT, TURN_START, TURN_END, MASK = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|MASK|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte alphabet, numbers 0-99, every word of ``texts`` with and without a leading space."""
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocab = {byte: index for index, byte in enumerate(sorted(pre_tokenizer.alphabet()))}

    def add(text: str) -> None:
        for piece, _ in pre_tokenizer.pre_tokenize_str(text):
            vocab.setdefault(piece, len(vocab))

    for text in ("user", "assistant", *(f" {number}" for number in range(100))):
        add(text)
    for text in texts:
        add(text)
        add(" " + text)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    return wrap_tokenizer(backend)


def wrap_tokenizer(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """Add the special tokens and the chat template of the SDAR family to a byte-level tokenizer."""
    specials = (END_OF_TEXT, TURN_START, TURN_END, MASK)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        mask_token=MASK,
        extra_special_tokens=[TURN_START, TURN_END],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def mini_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer in which every word of every task is one token; a test keeps it small."""
    return build_tokenizer(word for task in TASKS.values() for word in task.corpus_words())

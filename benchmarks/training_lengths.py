"""The trajectories of the training benchmark, and the script that made their lengths.

python benchmarks/training_lengths.py GSM8K/train.jsonl.gz > benchmarks/training_lengths.json

training_lengths.json holds 256 pairs (prompt tokens, response tokens), drawn with a fixed seed. Nine in
ten are a question and its answer of GSM8K's training file, counted by a simple rule in place of Qwen's
tokenizer: a run of letters, a digit or another sign is a token; the chat template adds 8 to a prompt,
the stop token one to a response. One of every ten consecutive pairs, so that a prefix of the list is like
the whole, has a question of GSM8K and a response of 300 to 1,024 tokens, uniformly drawn: the released
configuration generates up to 1,024. A response fills its last block of four on the absolute grid.
"""

import gzip
import json
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from t3d.trajectory import Trajectory, cut_blocks

LENGTHS_FILE = Path(__file__).with_suffix(".json")
BLOCK_SIZE = 4
"""Of the rollout."""
MAX_RESPONSE_LENGTH, NUM_PAIRS, TAIL_EVERY = 1024, 256, 10
_PIECE = re.compile(r"[A-Za-z]+|\d|[^\sA-Za-z\d]")

Lengths = Sequence[tuple[int, int]]
"""(prompt tokens, response tokens) of each trajectory."""


def draw_lengths(records: Sequence[dict[str, str]], seed: int) -> list[tuple[int, int]]:
    """Pairs from GSM8K records, as the module's docstring says."""
    draw = random.Random(seed)
    pairs = []
    for index, record in enumerate(draw.sample(records, NUM_PAIRS)):
        if index % TAIL_EVERY == 0:
            tail_index = index + draw.randrange(TAIL_EVERY)
        prompt = len(_PIECE.findall(record["question"])) + 8
        response = len(_PIECE.findall(record["answer"])) + 1
        if index == tail_index:
            response = draw.randint(300, MAX_RESPONSE_LENGTH)
        response += -(prompt + response) % BLOCK_SIZE
        pairs.append((prompt, response if response <= MAX_RESPONSE_LENGTH else response - BLOCK_SIZE))
    return pairs


def read_lengths() -> list[tuple[int, int]]:
    """The committed pairs."""
    return [(prompt, response) for prompt, response in json.loads(LENGTHS_FILE.read_text(encoding="utf-8"))]


def random_trajectory(index: int, prompt_length: int, response_length: int, vocab_size: int) -> Trajectory:
    """Random tokens, committed one per step in a random order within each block.

    Token 0 is the stop token, which ends the response; the last one is the mask.
    """
    draw = random.Random(index)
    tokens = [draw.randrange(1, vocab_size - 1) for _ in range(prompt_length + response_length)]
    step_map: list[int] = []
    for block in cut_blocks(range(response_length), prompt_length, BLOCK_SIZE):
        steps = [len(step_map) + place for place in range(1, len(block) + 1)]
        step_map += draw.sample(steps, len(steps))
    return Trajectory(
        id=str(index),
        prompt_ids=tuple(tokens[:prompt_length]),
        response_ids=(*tokens[prompt_length:-1], 0),
        step_map=tuple(step_map),
        visible_length=response_length,
        finish_reason="stop",
        block_size=BLOCK_SIZE,
        mask_token_id=vocab_size - 1,
    )


def number_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Token i is the number i; the special tokens of :func:`random_trajectory`."""
    backend = Tokenizer(WordLevel({str(number): number for number in range(vocab_size)}, unk_token="0"))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="0", pad_token="0", mask_token=str(vocab_size - 1)
    )


if __name__ == "__main__":
    with gzip.open(sys.argv[1], "rt", encoding="utf-8") as file:
        pairs = draw_lengths([json.loads(line) for line in file], seed=0)
    print("[" + ",\n ".join(str(list(pair)) for pair in pairs) + "]")

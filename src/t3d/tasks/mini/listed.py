"""A mini problem's listed solutions as token ids, each as often as it is likely."""

import numpy as np
from transformers import PreTrainedTokenizerBase

from t3d.problems.prompts import prompt_ids, token_ids, token_text
from t3d.tasks.mini.mini_task import MiniTask
from t3d.tasks.mini.tokenizer import END_OF_TEXT, TURN_END


def listed_solutions(
    task: MiniTask, question: str, tokenizer: PreTrainedTokenizerBase, num_positions: int
) -> np.ndarray:
    """A row for each solution: its tokens, the stop, and filler, at least ``num_positions`` long."""
    (turn_end,), (filler,) = token_ids(tokenizer, TURN_END), token_ids(tokenizer, END_OF_TEXT)
    encoded = [[*token_ids(tokenizer, text), turn_end] for text in task.solutions(question)]
    length = max(num_positions, *map(len, encoded))
    solutions_NL = np.full((len(encoded), length), filler, dtype=np.int64)
    for row, ids in enumerate(encoded):
        solutions_NL[row, : len(ids)] = ids
    return solutions_NL


def question_of(tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...]) -> str | None:
    """The question that a prompt of the plain style puts; None for any other prompt."""
    text = token_text(tokenizer, prompt, skip_special_tokens=False)
    question = text.partition("user\n")[2].partition(TURN_END)[0]
    return question if tuple(prompt_ids(tokenizer, question)) == prompt else None

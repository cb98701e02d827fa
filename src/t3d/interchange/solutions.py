"""Real solutions as training records, for supervised fine-tuning."""

from collections.abc import Sequence

from t3d.errors import InputError
from t3d.models.token_ids import LoadedTokenizer
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.problems.prompts import chat_ids, problem_ids, token_ids
from t3d.trajectory import Trajectory, cut_blocks

SOURCES = ("solutions", "texts")
"""``source`` in the decoding settings of records that nobody decoded."""


def solution_trajectory(
    problem: Problem,
    loaded: LoadedTokenizer,
    block_size: int,
    *,
    style: PromptStyle = "plain",
    kind: PromptKind = "math",
) -> Trajectory:
    """A problem's solution as a record that training takes.

    The answer is the solution and the stop token of :func:`turn_stop_id`; pad tokens fill its last block.
    There is no order of commits, so each block counts as one step.

    Raises InputError for a problem without a solution, or with the mask or a stop token in it, and where the
    style has no prompt of that kind.
    """
    if not problem.solution:
        fix = 'give each line a "solution"'
        raise InputError("solution", problem.solution, f"problem {problem.id!r} has none", fix)
    tokenizer = loaded.tokenizer
    prompt = problem_ids(tokenizer, problem, style=style, kind=kind)
    answer = token_ids(tokenizer, problem.solution)
    check_plain(answer, loaded, "solution", problem.solution, f"problem {problem.id!r}")
    answer.append(turn_stop_id(loaded))
    return given_trajectory(problem.id, prompt, answer, loaded, block_size, task=problem.task)


def check_plain(ids: Sequence[int], loaded: LoadedTokenizer, field: str, text: str, where: str) -> None:
    """Raise InputError for an answer with the mask or a stop token in it; ``field`` has the ``text``."""
    special = {loaded.mask_token_id, *loaded.stop_token_ids}.intersection(ids)
    if special:
        found = f"{where}: the text has the special token {min(special)}"
        raise InputError(field, text, found, "give the text of the answer only")


def given_trajectory(
    identity: str,
    prompt: Sequence[int],
    answer: Sequence[int],
    loaded: LoadedTokenizer,
    block_size: int,
    *,
    task: str,
    source: str = "solutions",
) -> Trajectory:
    """A record of token ids that nobody decoded: pads fill its last block, each block counts as one step.

    It has ended if ``answer`` ends with a stop token.
    """
    pad = loaded.tokenizer.pad_token_id
    pad = turn_stop_id(loaded) if pad is None else pad
    response = [*answer, *[pad] * (-(len(prompt) + len(answer)) % block_size)]
    blocks = cut_blocks(response, len(prompt), block_size)
    return Trajectory(
        id=identity,
        prompt_ids=tuple(prompt),
        response_ids=tuple(response),
        step_map=tuple(step for step, block in enumerate(blocks, start=1) for _ in block),
        visible_length=len(answer),
        finish_reason="stop" if answer[-1] in loaded.stop_token_ids else "length",
        block_size=block_size,
        mask_token_id=loaded.mask_token_id,
        decode_params={"source": source},
        task=task,
        tokenizer_hash=loaded.tokenizer_hash,
    )


def turn_stop_id(loaded: LoadedTokenizer) -> int:
    """The stop token with which the chat template ends an assistant's turn, else the end-of-text token."""
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant")]
    stops = [token for token in chat_ids(loaded.tokenizer, turns) if token in loaded.stop_token_ids]
    if stops:
        return stops[-1]
    end_of_text = loaded.tokenizer.eos_token_id
    return loaded.stop_token_ids[0] if end_of_text is None else end_of_text

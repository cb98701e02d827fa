"""A completion as a line that the page can play: with its steps, log-probabilities and drafts."""

from t3d.decoding.completion import Completion
from t3d.decoding.origins import origins
from t3d.problems.problem import Problem
from t3d.work.kept import Row

BEGINNING = '{"kind": "t3d response"'
"""Of every such line, by which an older file is known."""


def recorded(problem: Problem, completion: Completion, *, model: str, tokenizer_hash: str) -> Row:
    """All of it, JSON-ready; the question stands in place of the prompt's text.

    ``logprobs``: natural, the model's own at temperature 1, when the token was committed.
    """
    drafts = completion.params.remasking == "self_speculative"
    return {
        "kind": "t3d response",
        "id": completion.id,
        "task": problem.task,
        "question": problem.conversation,
        "answer": problem.answer,
        "response": completion.text,
        "prompt_ids": list(completion.prompt_ids),
        "response_ids": list(completion.response_ids),
        "step_map": list(completion.step_map),
        "logprobs": [round(value, 6) for value in completion.logprobs],
        "origins": list(origins(completion)) if drafts else [],
        "visible_length": completion.visible_length,
        "block_size": completion.params.block_size,
        "num_denoising_steps": completion.num_denoising_steps,
        "num_forwards": completion.num_forwards,
        "finish_reason": completion.finish_reason,
        "model": model,
        "tokenizer_hash": tokenizer_hash,
    }

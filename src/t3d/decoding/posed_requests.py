"""Problems as requests."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from t3d.decoding.completion import DecodeRequest
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind, PromptStyle
from t3d.problems.prompts import problem_ids


def decode_requests(
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    style: PromptStyle = "plain",
    kind: PromptKind = "math",
) -> list[DecodeRequest]:
    """One request per problem, under the problem's id, with its :func:`problem_ids`."""
    return [
        DecodeRequest(
            id=problem.id, prompt_ids=tuple(problem_ids(tokenizer, problem, style=style, kind=kind))
        )
        for problem in problems
    ]

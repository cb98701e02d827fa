"""The exact posterior over a problem's solutions, as a model: the ideal factorised decoder.

A factorised model predicts the masked tokens one by one, each from what is visible. The best such
prediction is the posterior of a response drawn as the training data are, and here it can be computed:
every task lists its solutions, each as often as it is likely. Decoded with the same rule as any model,
it shows what a decoding setting costs a model that has learnt its data perfectly. A model may still do
better, by preferring some of the right responses, so that tokens chosen together agree; that is what
distillation teaches. V vocabulary, Q query positions, N solutions, L response length.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.params import DecodeParams
from t3d.decoding.specification import decode_as_specified
from t3d.evaluation.measure import Asked, measure
from t3d.problems.problem import Problem
from t3d.problems.prompts import prompt_ids, token_ids, token_text
from t3d.tasks.mini.listed import listed_solutions
from t3d.tasks.mini.mini_task import MiniTask
from t3d.tasks.mini.tokenizer import END_OF_TEXT, TURN_END
from t3d.work.kept import KeptLines


class Oracle(torch.nn.Module):
    """Stands for a model that knows one problem's solutions; decodes that problem only."""

    def __init__(
        self, task: MiniTask, problem: Problem, tokenizer: PreTrainedTokenizerBase, num_positions: int
    ) -> None:
        """``num_positions``: longest response to be decoded, the terminal block's filler included."""
        super().__init__()
        (turn_end,), (filler,) = token_ids(tokenizer, TURN_END), token_ids(tokenizer, END_OF_TEXT)
        self.prompt_ids = tuple(prompt_ids(tokenizer, problem.question))
        self.solutions_NL = listed_solutions(task, problem.question, tokenizer, num_positions)
        self.vocab_size, self.mask_token_id = len(tokenizer), tokenizer.mask_token_id
        self.stop_token_ids = (turn_end, filler)

    def forward(self, input_ids: Tensor, position_ids: Tensor, **unused: Any) -> SimpleNamespace:
        """Log-posteriors ``[1, Q, V]`` (float64) of the masked tokens, given all visible ones.

        Where no solution agrees with all visible tokens there is no posterior; then those that agree with
        most of them count.
        """
        del unused
        assert input_ids.shape[0] == 1
        is_response_Q = position_ids[0].numpy() >= len(self.prompt_ids)
        response_Q = input_ids[0].numpy()[is_response_Q]
        is_visible_Q = response_Q != self.mask_token_id
        visible_columns = np.flatnonzero(is_visible_Q)
        matches_N = (self.solutions_NL[:, visible_columns] == response_Q[visible_columns]).sum(1)
        left_NL = self.solutions_NL[matches_N == matches_N.max()]
        logits_QV = torch.zeros(len(is_response_Q), self.vocab_size, dtype=torch.float64)
        for column in np.flatnonzero(~is_visible_Q):
            counts_V = np.bincount(left_NL[:, column], minlength=self.vocab_size)
            position = len(is_response_Q) - len(response_Q) + column
            logits_QV[position] = torch.from_numpy(counts_V / len(left_NL)).log()
        return SimpleNamespace(logits=logits_QV[None])


def decode_oracle(oracle: Oracle, request_id: str, params: DecodeParams) -> Completion:
    """Decode the oracle's problem by the reference decoder: the rule that every model follows.

    ``request_id`` keys the sampling noise, as it does for a model that answers the same problem.
    """
    return decode_as_specified(
        oracle,
        DecodeRequest(id=request_id, prompt_ids=oracle.prompt_ids),
        params,
        mask_token_id=oracle.mask_token_id,
        stop_token_ids=oracle.stop_token_ids,
    )


def oracle_results(
    task: MiniTask,
    problems: Sequence[Problem],
    settings: Mapping[str, DecodeParams],
    tokenizer: PreTrainedTokenizerBase,
    *,
    on_finish: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """How many of the problems the oracle gets right under each setting."""
    num_positions = max(params.max_new_tokens + params.block_size for params in settings.values())
    asked: list[Asked] = []
    answers: dict[str, list[Completion]] = {name: [] for name in settings}
    for problem in problems:
        oracle = Oracle(task, problem, tokenizer, num_positions)  # made once, for all settings
        asked.append((problem, DecodeRequest(id=problem.id, prompt_ids=oracle.prompt_ids)))
        for name, params in settings.items():
            completion = decode_oracle(oracle, problem.id, params)
            text = token_text(tokenizer, completion.visible_ids)
            answers[name].append(dataclasses.replace(completion, text=text))
        on_finish()
    return {name: _num_correct(task, asked, params, answers[name]) for name, params in settings.items()}


def _num_correct(
    task: MiniTask, asked: Sequence[Asked], params: DecodeParams, answers: Sequence[Completion]
) -> int:
    def give(requests: Sequence[DecodeRequest], on_finish: Callable[[Completion], None]) -> None:
        """Answer all requests at once with what was decoded before."""
        assert len(requests) == len(answers)
        for completion in answers:
            on_finish(completion)

    return measure(task, asked, params, give, KeptLines(fresh="response")).num_correct

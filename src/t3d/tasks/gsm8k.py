"""GSM8K (arXiv 2110.14168): grade-school word problems with a number as answer."""

import dataclasses

from t3d.errors import InputError
from t3d.grading.math import exact_match, flexible_extract, gsm8k_gold, strict_match
from t3d.grading.verdict import Verdict
from t3d.problems.problem import Problem
from t3d.tasks.math_task import MathTask

SPLITS = ("train", "test")


class Gsm8kTask(MathTask):
    """GSM8K, graded by the last box.

    A verdict's ``others`` hold lm-eval's ``strict-match`` and ``flexible-extract`` of the same response.
    Reads OpenAI's ``test.jsonl``, the hub's Parquet files, or T3D's and dLLM-RL's ``GSM8K.json``.
    """

    name = "gsm8k"
    question_keys = ("question",)
    answer_keys = ("ground_truth_answer", "answer")

    def file_patterns(self, split: str) -> tuple[str, ...]:
        """Names of files that may hold a split, the preferred first; InputError for an unknown split."""
        if split not in SPLITS:
            raise InputError("split", split, "not a split of gsm8k", f"use {' or '.join(SPLITS)}")
        original = (f"{split}.jsonl", f"{split}.jsonl.gz", f"{split}-*.parquet", f"main/{split}-*.parquet")
        released = ("GSM8K.json", "*GSM8K.jsonl") if split == "test" else ("GSM8K_train.json",)
        return (*original, *released)

    def gold(self, answer: str) -> str:
        """The number of a solution that ends in ``#### number``, or the number alone."""
        return gsm8k_gold(answer)

    def assess(self, problem: Problem, response: str) -> Verdict:
        """The verdict on a response, with lm-eval's two beside it."""
        verdict = super().assess(problem, response)
        gold = self.gold(str(problem.answer))
        others = {
            "strict-match": exact_match(strict_match(response), gold),
            "flexible-extract": exact_match(flexible_extract(response), gold),
        }
        return dataclasses.replace(verdict, others=others)

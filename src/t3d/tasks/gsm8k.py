"""GSM8K (arXiv 2110.14168): grade-school word problems with a number as answer."""

import dataclasses

from t3d.grading.math import exact_match, flexible_extract, gsm8k_gold, strict_match
from t3d.grading.verdict import Verdict
from t3d.problems.problem import Problem
from t3d.tasks.math_task import MathTask


class Gsm8kTask(MathTask):
    """GSM8K, graded by the last box.

    A verdict's ``others`` hold lm-eval's ``strict-match`` and ``flexible-extract`` of the same response.
    Reads OpenAI's ``test.jsonl``, the hub's Parquet files, or T3D's and dLLM-RL's ``GSM8K.json``.
    """

    name = "gsm8k"
    question_keys = ("question",)
    files = {  # noqa: RUF012 - read only
        split: (
            *(f"{split}.jsonl", f"{split}.jsonl.gz", f"{split}-*.parquet", f"main/{split}-*.parquet"),
            *released,
        )
        for split, released in (("train", ("GSM8K_train.json",)), ("test", ("GSM8K.json", "*GSM8K.jsonl")))
    }

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

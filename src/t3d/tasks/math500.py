"""MATH500: 500 competition problems of MATH (arXiv 2103.03874), chosen for arXiv 2305.20050.

The data are not ours to ship; the task reads a copy of the user's.
"""

from t3d.errors import InputError
from t3d.tasks.math_task import MathTask


class Math500Task(MathTask):
    """MATH500, graded by the last box.

    Reads the hub's ``test.jsonl`` (problem, answer, ...), Parquet, or T3D's and dLLM-RL's ``MATH500.json``.
    """

    name = "math500"
    question_keys = ("problem", "question")
    answer_keys = ("ground_truth_answer", "answer")

    def file_patterns(self, split: str) -> tuple[str, ...]:
        """Names of files that may hold a split, the preferred first; InputError for an unknown split."""
        if split != "test":
            raise InputError("split", split, "math500 has no such split", "use test")
        return ("test.jsonl", "test-*.parquet", "data/test-*.parquet", "MATH500.json", "*MATH500.jsonl")

    def gold(self, answer: str) -> str:
        """The answer as it is."""
        return answer.strip()

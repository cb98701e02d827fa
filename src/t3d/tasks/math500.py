"""MATH500: 500 competition problems of MATH (arXiv 2103.03874), chosen for arXiv 2305.20050.

The data are not ours to ship; the task reads a copy of the user's.
"""

from t3d.tasks.math_task import MathTask


class Math500Task(MathTask):
    """MATH500, graded by the last box.

    Reads the hub's ``test.jsonl`` (problem, answer, ...), Parquet, or T3D's and dLLM-RL's ``MATH500.json``.
    """

    name = "math500"
    question_keys = ("problem", "question")
    files = {  # noqa: RUF012 - read only
        "test": ("test.jsonl", "test-*.parquet", "data/test-*.parquet", "MATH500.json", "*MATH500.jsonl")
    }

    def gold(self, answer: str) -> str:
        """The answer as it is."""
        return answer.strip()

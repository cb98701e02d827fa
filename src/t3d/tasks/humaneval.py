"""HumanEval (arXiv 2107.03374): complete a Python function of which signature and docstring are given."""

import ast
from collections.abc import Mapping, Sequence

from t3d.grading.code import FunctionTests
from t3d.problems.fields import Record, said_text
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptKind
from t3d.tasks.code_task import CodeProblem, CodeTask


class HumanEvalTask(CodeTask):
    """HumanEval's 164 problems, all in the split ``test``; ids are OpenAI's, such as ``HumanEval/0``.

    A question is the beginning of the function. It also runs before every program, so that an answer may
    leave out its imports and helpers, and before the tests, which use its helpers and not the answer's. Reads
    OpenAI's ``HumanEval.jsonl.gz`` or the hub's Parquet file.
    """

    name = "humaneval"
    splits = ("test",)
    kind: PromptKind = "completion"

    def file_patterns(self) -> Mapping[str, Sequence[str]]:
        """One file with all problems."""
        names = ("HumanEval.jsonl.gz", "HumanEval.jsonl")
        return {"test": (*names, "test-*.parquet", "openai_humaneval/test-*.parquet")}

    def read_row(self, row: Record, where: str) -> CodeProblem:
        """The problem of one row."""
        names = ("task_id", "prompt", "test", "entry_point", "canonical_solution")
        identity, prompt, test, entry_point, solution = (said_text(row, (name,), where) for name in names)
        return CodeProblem(
            problem=Problem(id=identity, question=prompt, task=self.name),
            split="test",
            tests=FunctionTests(
                tests=(f"check({entry_point})",), setup=f"{helpers(prompt, entry_point)}\n{test}"
            ),
            preamble=f"{prompt}\n",
            reference=prompt + solution,
        )


def helpers(prompt: str, entry_point: str) -> str:
    """What a prompt defines beside the function that it asks for: imports and helpers that tests use."""
    for text in (prompt, f"{prompt}\n    pass"):  # a prompt may end before the function's body
        try:
            statements = ast.parse(text).body
        except (SyntaxError, ValueError):
            continue
        kept = [node for node in statements if getattr(node, "name", None) != entry_point]
        return ast.unparse(ast.Module(kept, []))
    return ""

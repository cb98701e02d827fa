"""The command ``t3d grade``: score saved outputs of a benchmark, without a model."""

import math
from dataclasses import dataclass
from typing import Any

from t3d.cli.arguments import check_flags_are_used
from t3d.cli.config_file import check_config, write_config
from t3d.errors import InputError, require_positive
from t3d.grading.math_worker import GraderName
from t3d.grading.program_text import CodeRule
from t3d.sandbox.sandbox import Limits
from t3d.tasks.benchmarks import BENCHMARKS, BenchmarkName, load_benchmark, option_users, own_options
from t3d.tasks.math_task import MathTask
from t3d.tasks.mbpp import MbppProtocol


@dataclass(frozen=True, kw_only=True)
class Grade:
    """Grade saved outputs of a benchmark again: accuracy with its 95 % interval, and why each is wrong."""

    task: BenchmarkName
    """Benchmark whose problems were answered."""
    samples: str
    """JSONL file with "id", "output" and, for math, optionally "reference" per line; or a samples.jsonl."""
    output: str
    """JSONL file to write: the lines with "correct", "extracted" and "reason". Sums: OUTPUT.summary.json."""
    data: str | None = None
    """Folder of the benchmark's data; not needed where every line has its reference."""
    split: str = "test"
    """Split of the data in which to look up ids."""
    grader: GraderName = "math_verify"
    """Of math answers: math_verify, legacy (the grader of T3D's released code), or exact (the same text)."""
    time_limit_s: float | None = None
    """Seconds for a math answer (default 3), or for a program and again for each of its tests (10)."""
    protocol: MbppProtocol = "t3d"
    """Of mbpp: t3d, all_tests or sanitized."""
    code_rule: CodeRule = "opencompass"
    """Where the program of a code answer is looked for: opencompass for answers to prompts of style sdar and
    plain, dllm_rl for those to released and paper."""
    unsafe_no_sandbox: bool = False
    """Run the programs of code answers without a sandbox if none works here."""
    num_workers: int | None = None
    """Outputs graded at the same time; by default one per core, at most 4."""

    def run(self) -> None:
        """Run the command."""
        from t3d.evaluation.grade_file import grade_to_file

        require_positive(self, "num_workers")
        if self.time_limit_s is not None and not 0 < self.time_limit_s < math.inf:
            raise InputError("time_limit_s", self.time_limit_s, "not a time", "use seconds above 0")
        check_config(self, f"{self.output}.yaml", self.samples)
        users = option_users()
        check_flags_are_used(self, users | {"code_rule": users["unsafe_no_sandbox"]}, [self.task])
        summary = grade_to_file(
            load_benchmark(self.task, self.data, **self._options()),
            self.samples,
            self.output,
            split=self.split,
            num_workers=self.num_workers,
        )
        write_config(self, f"{self.output}.yaml")
        print(summary_line(summary))
        for label, part in summary.get("settings", {}).items():
            print(summary_line({"task": f"  {label}", **part}))

    def _options(self) -> dict[str, Any]:
        """The task's own settings."""
        options = own_options(self.task, vars(self))
        is_math = issubclass(BENCHMARKS[self.task], MathTask)
        options |= {"num_workers": self.num_workers} if is_math else {"code_rule": self.code_rule}
        if self.time_limit_s is None:
            return options
        limit = self.time_limit_s if is_math else Limits(time_limit_s=self.time_limit_s)
        return {**options, "time_limit_s" if is_math else "limits": limit}


def summary_line(summary: dict[str, Any]) -> str:
    """``gsm8k: 81.2 % [79.0, 83.2], n=1319; strict-match 0.0 %; equal 1071, different 240, ...``."""
    low, high = summary["ci95"]
    parts = [f"{summary['task']}: {summary['accuracy']:.1f} % [{low:.1f}, {high:.1f}], n={summary['n']}"]
    names = ("strict-match", "flexible-extract")
    parts += [f"{name} {summary[name]:.1f} %" for name in names if name in summary]
    parts.append(", ".join(f"{reason} {count}" for reason, count in summary["reasons"].items()))
    return "; ".join(parts)

"""The command ``t3d data prompts``: published data sets as a file of training problems."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.cli.config_file import check_config, write_config
from t3d.errors import InputError
from t3d.tasks.benchmarks import BenchmarkName, load_benchmark
from t3d.work.files import check_output_file, read_json, write_text
from t3d.work.own import json_with
from t3d.work.plan import file_sha256


@dataclass(frozen=True, kw_only=True)
class DataPrompts:
    """Write training problems of published data sets, or of other prompt files, as one prompt file."""

    source: tuple[str, ...]
    """gsm8k_train, math_train, primeintellect, mbpp_train, bespoke_stratos, stratos_hard, stratos_easy, or a
    .jsonl file of prompts; several are put together."""
    output: str
    """JSONL file to write. Counts and hashes: OUTPUT.summary.json; this command's settings: OUTPUT.yaml."""
    data: str | None = None
    """Folder of the data sets (or the file, of one source), or hub to download them."""
    limit: tuple[int, ...] | None = None
    """At most this many problems of each source: one number for all, or one per source."""
    seed: int | None = None
    """Draw and shuffle with this seed; without it the first are kept, source after source."""
    max_solution_tokens: int | None = None
    """Drop problems with a longer solution (600 in the paper's SFT data)."""
    tokenizer: str | None = None
    """Checkpoint whose tokenizer counts solutions: folder, hub id or mini."""
    exclude: tuple[BenchmarkName, ...] = ()
    """Drop questions of these benchmarks' test splits, white space and case aside."""
    exclude_data: str | None = None
    """Folder of the benchmarks' data, or hub; by default data, where that is no file."""

    def run(self) -> None:
        """Run the command."""
        from t3d.models.loading import load_tokenizer
        from t3d.problems.prompts import token_ids
        from t3d.problems.sources.registry import read_source
        from t3d.problems.sources.selection import SelectionConfig, select_problems, write_prompt_file

        config = SelectionConfig(
            limits=self.limit, seed=self.seed, max_solution_tokens=self.max_solution_tokens
        )
        if len(set(self.source)) < len(self.source):
            raise InputError("source", self.source, "one of them twice", "name each source once")
        if (self.max_solution_tokens is None) != (self.tokenizer is None):
            problem = f"max_solution_tokens={self.max_solution_tokens}: one needs the other"
            raise InputError("tokenizer", self.tokenizer, problem, "give both or neither")
        self._check_output()
        loaded = None if self.tokenizer is None else load_tokenizer(self.tokenizer)
        questions, excluded = self._test_questions()
        selected = select_problems(
            [read_source(name, self.data) for name in self.source],
            config,
            test_questions=questions,
            count_tokens=None if loaded is None else lambda text: len(token_ids(loaded.tokenizer, text)),
        )
        summary = {
            "num_problems": len(selected.problems),
            "sha256": write_prompt_file(self.output, selected.problems),
            "sources": list(selected.counts),
            "excluded": excluded,
            "tokenizer_hash": None if loaded is None else loaded.tokenizer_hash,
        }
        write_text(f"{self.output}.summary.json", json.dumps(summary, indent=2) + "\n")
        write_config(self, f"{self.output}.yaml")
        print("\n".join(_lines(selected.counts)))
        print(f"{len(selected.problems)} problems in {self.output}")

    def _check_output(self) -> None:
        """Raise InputError for what is read, and for files that this command did not write."""
        summary, inputs = Path(f"{self.output}.summary.json"), (self.data, *self.source)
        made = read_json(summary)
        sha256 = made.get("sha256") if isinstance(made, dict) else None
        check_output_file(self.output, *inputs, is_own=lambda path: file_sha256(path) == sha256)
        check_output_file(summary, *inputs, is_own=json_with("num_problems", "sha256", "sources"))
        check_config(self, f"{self.output}.yaml", *inputs)

    def _test_questions(self) -> tuple[list[str], dict[str, Any]]:
        """Questions of the excluded benchmarks, and the files that they are from."""
        from t3d.problems.hub import HUB, benchmark_folder

        questions: list[str] = []
        files: dict[str, Any] = {}
        # A file given as data holds training problems.
        data = self.exclude_data or (None if Path(self.data or "").is_file() else self.data)
        for name in self.exclude:
            if data is None:
                raise InputError("exclude_data", None, f"{name} needs its data", f"give a folder, or {HUB}")
            task = load_benchmark(name, benchmark_folder(name) if data == HUB else data)
            questions += [problem.question for problem in task.problems("test", None, 0)]
            files[name] = task.data
        return questions, files


def _lines(counts: Sequence[dict[str, Any]]) -> list[str]:
    """``math_train: 12000 read, 11950 kept; 30 duplicate question, 20 no answer`` for each source."""
    lines = []
    for count in counts:
        left_out = {**count["dropped"], "over the limit": count["num_over_limit"]}
        texts = [f"{number} {reason}" for reason, number in left_out.items() if number]
        line = f"{count['source']}: {count['num_read']} read, {count['num_kept']} kept"
        lines.append("; ".join(filter(None, [line, ", ".join(texts)])))
    return lines

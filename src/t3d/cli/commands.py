"""The commands: frozen dataclasses whose fields are the flags."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from t3d.cli.config_file import write_config
from t3d.cli.options import Flat, ModelChoice, ProblemChoice, PromptChoice
from t3d.decoding.completion import check_requests
from t3d.decoding.llm import LLM, decode_requests
from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out_to_file
from t3d.errors import InputError, require_positive
from t3d.problems.problem import Problem
from t3d.problems.prompts import read_prompt_file
from t3d.report.console import coloured_steps
from t3d.report.demo_table import summary_table
from t3d.reproduce.demo import DemoConfig, run_demo
from t3d.work.kept import CHUNK_SIZE
from t3d.work.versions import versions


@dataclass(frozen=True, kw_only=True)
class Rollout(ModelChoice, ProblemChoice):
    """Let a teacher decode prompts and keep its trajectories."""

    output: str
    """Parquet file to write; its settings go to OUTPUT.yaml."""
    split: str = "train"
    batch_size: int = 256
    """Requests decoded together."""
    chunk_size: int = CHUNK_SIZE
    """Prompts decoded between two saves; a killed rollout continues after the last."""
    decode: Flat = field(default_factory=DecodeParams)

    def run(self) -> None:
        """Run the command."""
        require_positive(self, "batch_size", "chunk_size")
        posed = self.resolve(self.split)
        trajectories = roll_out_to_file(
            self.load(),
            posed.problems,
            self.decode,
            self.output,
            style=posed.style,
            kind=posed.kind,
            batch_size=self.batch_size,
            chunk_size=self.chunk_size,
        )
        write_config(self, f"{self.output}.yaml")
        print(f"{len(trajectories)} trajectories in {self.output}")


@dataclass(frozen=True, kw_only=True)
class Generate(ModelChoice, PromptChoice):
    """Answer prompts on the terminal."""

    model: str = "mini"
    """Local folder or hub id of an SDAR checkpoint; 'mini' and 'mini-small' are bundled teachers."""
    prompt: str | None = None
    """One question."""
    prompts: str | None = None
    """JSONL file with a "question" per line."""
    limit: int | None = None
    batch_size: int = 256
    show_steps: bool = False
    """Colour each token by the denoising step that committed it, and print the step beside it."""
    decode: Flat = field(default_factory=DecodeParams)

    def run(self) -> None:
        """Run the command."""
        problems = self._problems()
        loaded = self.load()
        style, kind = self.prompt_style or "plain", self.prompt_kind or "math"
        requests = decode_requests(loaded.tokenizer, problems, style=style, kind=kind)
        check_requests(requests, self.decode, loaded.model.config.max_position_embeddings)
        completions = LLM(loaded, max_batch_size=self.batch_size).decode(requests, self.decode)
        console = Console(highlight=False)
        for completion in completions:
            if self.show_steps:
                console.print(coloured_steps(loaded.tokenizer, completion))
                steps, forwards = completion.num_denoising_steps, completion.num_forwards
                console.print(
                    f"{completion.visible_length} tokens, {steps} steps, {forwards} forwards", style="dim"
                )
            else:
                print(completion.text)

    def _problems(self) -> list[Problem]:
        if (self.prompt is None) == (self.prompts is None):
            raise InputError(
                "prompt", self.prompt, f"prompts={self.prompts!r}: give one of the two", "set one"
            )
        require_positive(self, "limit", "batch_size")
        if self.prompts is not None:
            return read_prompt_file(self.prompts)[: self.limit]
        if not str(self.prompt).strip():
            raise InputError("prompt", self.prompt, "empty", "give a question")
        return [Problem(id="prompt", question=str(self.prompt))]


@dataclass(frozen=True, kw_only=True)
class Demo(DemoConfig):
    """Distil the bundled teacher into a few-step student and compare them, in minutes on a CPU."""

    output: str = "runs/demo"
    """Folder for summary.json, plot.png, student and trajectories."""

    def run(self) -> None:
        """Run the command."""
        summary = run_demo(self)
        write_config(self, Path(self.output) / "config.yaml")
        Console().print(summary_table(summary))
        print(f"{summary['seconds']['total']:.0f} s; summary, plot, student, trajectories in {self.output}")


@dataclass(frozen=True, kw_only=True)
class Env:
    """Print the versions and devices that a bug report needs."""

    def run(self) -> None:
        """Run the command."""
        cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        facts = {**versions(), "platform": sys.platform, "cpu_threads": torch.get_num_threads(), "cuda": cuda}
        print(json.dumps(facts, indent=2))

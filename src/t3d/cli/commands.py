"""The commands: frozen dataclasses whose fields are the flags."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console

from t3d.claim import CHUNK_SIZE
from t3d.cli.config_file import resolved_config, write_config
from t3d.data.prompts import Problem, decode_requests, read_prompt_file
from t3d.decoding.completion import check_requests
from t3d.decoding.params import DecodeParams
from t3d.demo import DemoConfig, run_demo
from t3d.errors import InputError, require_positive
from t3d.evaluation.chunks import evaluate_to_folder
from t3d.evaluation.task import PromptFileTask, Task
from t3d.llm import LLM
from t3d.mini.tasks import mini_task
from t3d.models.loading import LoadedModel, load_model
from t3d.models.placement import DTYPES
from t3d.report.console import coloured_steps, results_table
from t3d.report.demo_table import summary_table
from t3d.rollout import roll_out_to_file
from t3d.training.config import T3DConfig
from t3d.training.presets import parse_overrides, preset_fields
from t3d.training.run import distil
from t3d.trajectory import read_trajectories
from t3d.versions import versions

Flat = Annotated[DecodeParams, tyro.conf.arg(name="")]
"""Decoding settings as top-level flags."""


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model, and where it runs."""

    model: str
    """Local folder or hub id of an SDAR checkpoint; 'mini' and 'mini-small' are bundled teachers."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: str = "float32"
    """float32, bfloat16 or float64; auto is the checkpoint's own (not for training)."""

    def load(self) -> LoadedModel:
        """Load it."""
        return load_model(self.model, device=self.device, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True)
class ProblemChoice:
    """Which problems: a task of the mini suite, or a JSONL file."""

    task: str | None = None
    """Task of the mini suite, for example chain."""
    prompts: str | None = None
    """JSONL file with a "question" per line, and optional "id" and "answer"."""
    limit: int | None = None
    """At most this many problems."""
    problem_seed: int = 0
    """Seed that draws the problems of a mini task."""

    def resolve(self, split: str) -> tuple[Task, list[Problem]]:
        """The task and its problems. Raises InputError unless exactly one source is given."""
        if (self.task is None) == (self.prompts is None):
            raise InputError(
                "task", self.task, f"prompts={self.prompts!r}: give one of the two", "set task or prompts"
            )
        require_positive(self, "limit")
        task = PromptFileTask(self.prompts) if self.prompts is not None else mini_task(str(self.task))
        return task, task.problems(split, self.limit, self.problem_seed)


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
        _, problems = self.resolve(self.split)
        sizes = {"batch_size": self.batch_size, "chunk_size": self.chunk_size}
        trajectories = roll_out_to_file(self.load(), problems, self.decode, self.output, **sizes)
        write_config(self, f"{self.output}.yaml")
        print(f"{len(trajectories)} trajectories in {self.output}")


@dataclass(frozen=True, kw_only=True)
class Train(ModelChoice):
    """Distil a student on trajectories; it starts from the weights of --model, the teacher."""

    trajectories: str
    """Parquet file of t3d rollout."""
    output: str
    """Folder for checkpoints and the student (OUTPUT/student); the same command continues a killed run."""
    preset: str = "t3d"
    """t3d, paper, released or naive_td."""
    block_size: int = 8
    num_optimizer_steps: int = 200
    batch_size: int = 64
    """Trajectories per optimizer step, over all gradient_accumulation_steps."""
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-5
    warmup_steps: int = 20
    random_token_prob: float | None = None
    """Override of the preset, like the next three."""
    path_weight: float | None = None
    ddo_alpha: float | None = None
    ddo_beta: float | None = None
    override: tuple[str, ...] = ()
    """Any T3DConfig field over the preset, as name=value, for example log_ratio=sum state_scope=response."""
    refresh_every: int = 10
    """Optimizer steps between copies of the student into the reference."""
    save_every: int = 100
    """Optimizer steps between checkpoints."""
    limit: int | None = None
    """At most this many trajectories."""
    seed: int = 0

    def run(self) -> None:
        """Run the command."""
        counts = ("num_optimizer_steps", "gradient_accumulation_steps", "save_every", "limit", "batch_size")
        require_positive(self, *counts)
        if self.batch_size % self.gradient_accumulation_steps:
            problem = f"not a multiple of gradient_accumulation_steps={self.gradient_accumulation_steps}"
            raise InputError("batch_size", self.batch_size, problem, "use a multiple")
        overrides = ("random_token_prob", "path_weight", "ddo_alpha", "ddo_beta")
        fields = preset_fields(self.preset)
        fields |= {name: getattr(self, name) for name in overrides if getattr(self, name) is not None}
        fields |= parse_overrides(self.override)
        if self.dtype not in DTYPES:
            raise InputError("dtype", self.dtype, "not known to training", f"use one of {', '.join(DTYPES)}")
        trajectories = read_trajectories(self.trajectories)[: self.limit]
        # AdamW needs float32 weights: a bfloat16 run keeps them and computes under autocast.
        weights_dtype = "float32" if self.dtype == "bfloat16" else self.dtype
        loaded = load_model(self.model, device=self.device, dtype=weights_dtype)
        if loaded.model.device.type == "cuda" and loaded.model.device.index not in (None, 0):
            fix = f"use device=cuda with CUDA_VISIBLE_DEVICES={loaded.model.device.index}"
            raise InputError("device", self.device, "training uses the first visible GPU", fix)
        config = self._trainer_config(loaded, fields)
        output = Path(self.output)
        student = distil(loaded, trajectories, config, output / "student", export_dtype=DTYPES[self.dtype])
        write_config(self, output / "config.yaml")
        print(f"student in {student}")

    def _trainer_config(self, loaded: LoadedModel, fields: dict[str, Any]) -> T3DConfig:
        """The flags as T3DConfig; ``fields``, the preset with its overrides, win."""
        arguments: dict[str, Any] = {
            "output_dir": str(Path(self.output) / "checkpoints"),
            "max_steps": self.num_optimizer_steps,
            "per_device_train_batch_size": self.batch_size // self.gradient_accumulation_steps,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "save_steps": self.save_every,
            "save_total_limit": 2,
            "seed": self.seed,
            "block_size": self.block_size,
            "refresh_every": self.refresh_every,
            "bf16": self.dtype == "bfloat16",
            "use_cpu": loaded.model.device.type == "cpu",
            "dataloader_pin_memory": loaded.model.device.type == "cuda",
        }
        return T3DConfig(**(arguments | fields))


@dataclass(frozen=True, kw_only=True)
class Eval(ModelChoice, ProblemChoice):
    """Accuracy with its 95 % interval, and what decoding cost."""

    output: str
    """Folder for results.json, samples.jsonl and config.yaml."""
    split: str = "test"
    batch_size: int = 256
    samples_per_prompt: int = 1
    """Answers drawn for each prompt."""
    chunk_size: int = CHUNK_SIZE
    """Answers decoded between two saves; a killed evaluation continues after the last."""
    decode: Flat = field(default_factory=DecodeParams)

    def run(self) -> None:
        """Run the command."""
        require_positive(self, "samples_per_prompt", "batch_size", "chunk_size")
        task, problems = self.resolve(self.split)
        result = evaluate_to_folder(
            self.load(),
            task,
            problems,
            self.decode,
            self.output,
            config=resolved_config(self),
            batch_size=self.batch_size,
            samples_per_prompt=self.samples_per_prompt,
            chunk_size=self.chunk_size,
        )
        write_config(self, Path(self.output) / "config.yaml")
        Console().print(results_table([result.summary()], title=self.model))


@dataclass(frozen=True, kw_only=True)
class Generate(ModelChoice):
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
        requests = decode_requests(loaded.tokenizer, problems)
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

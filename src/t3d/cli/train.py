"""The command that distils a student."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3d.cli.accelerate_settings import check_started, checked_file
from t3d.cli.config_file import check_config, flags_of, write_config
from t3d.cli.launching import launch
from t3d.cli.options import ModelChoice
from t3d.cli.processes import check_count, is_first_process, num_processes
from t3d.cli.train_scores import DRAFTER, EVALUATION_COUNTS, check_evaluation, evaluator_of
from t3d.decoding.params import DecodeParams
from t3d.errors import InputError, naming, require_positive
from t3d.grading.math_worker import GraderName
from t3d.model_choice import check_dtype, check_model, require_training_device
from t3d.report.html.name import NAME, check_report
from t3d.training.choices import ReferenceChoice
from t3d.training.presets import parse_overrides, preset_fields
from t3d.trajectory import check_is_there, read_trajectories

if TYPE_CHECKING:
    from t3d.training.config import T3DConfig

_FLAG_OF_FIELD = {
    "output_dir": "output",
    "resume_from_checkpoint": "output",
    "max_steps": "num_optimizer_steps",
    "num_train_epochs": "num_optimizer_steps",
    "per_device_train_batch_size": "batch_size",
    "save_steps": "save_every",
    "eval_strategy": "eval_every",
    "eval_steps": "eval_every",
    "bf16": "dtype",
    "use_cpu": "device",
}
"""Flags under which settings of other names are given."""
_SAME_NAMES = ("gradient_accumulation_steps", "warmup_steps", "seed", "block_size", "refresh_every")
_SAME_NAMES += ("max_length",)
"""Flags that are T3DConfig fields."""
_PRESET_FLAGS = ("random_token_prob", "path_weight", "ddo_alpha", "ddo_beta", "reference_choice")
_PRESET_FLAGS += ("learning_rate", "lora_rank")
"""Flags over the preset's fields."""


@dataclass(frozen=True, kw_only=True)
class Train(ModelChoice):
    """Distil a student on trajectories; it starts from the weights of --model, the teacher."""

    trajectories: str
    """Parquet file of t3d rollout."""
    output: str
    """Folder for checkpoints and the student (OUTPUT/student) or drafter (OUTPUT/drafter); the same command
    continues a killed run."""
    preset: str = "t3d"
    """t3d, t3d-plus, t3d-plus-verified, paper, paper-sampled, released, ddo, ddo_path, ddo_random, naive_td,
    naive_td_path, naive_td_random, naive_td_path_random, redi, redi_random_start, dparallel; sft and
    sft_dllm_rl want the records of t3d data solutions; drafter makes no student, but an adapter that drafts
    for --model."""
    block_size: int | None = None
    """Of the student. Default: 8, or the checkpoint's where that is larger or itself a student's."""
    tokens_per_step: int | None = None
    """What the student is for, and its default wherever it is loaded (docs/evaluation.md): tokens that a
    denoising step commits. Default: 4, or as many of them as divide block_size."""
    dynamic: float | None = None
    """Instead: the confidence threshold of dynamic decoding."""
    num_optimizer_steps: int = 200
    batch_size: int = 64
    """Trajectories per optimizer step, over all gradient_accumulation_steps and processes of torchrun."""
    gradient_accumulation_steps: int = 1
    learning_rate: float | None = None
    """Default: 1e-5, or the preset's."""
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
    soft_targets_from: str | None = None
    """A checkpoint of --model's tokens. What it says of each token is a target beside the token itself, by
    --override soft_target_weight=0.5: of solutions and texts the autoregressive one that --model was
    converted from (docs/convert.md), of rollouts a block-diffusion teacher (docs/checkpoint.md). With
    soft_target_source=student there is none: the student gives them."""
    lora_rank: int | None = None
    """Train a LoRA adapter of this rank and merge it at the end (a drafter: never). Default: all weights, or
    the preset's rank."""
    reference_choice: ReferenceChoice | None = None
    """Refresh the reference from the latest student, or only from one that scores no worse (best), or that if
    there are eval_tasks (auto). Default: the preset's, which is latest, but auto of paper."""
    max_length: int | None = None
    """Tokens of a packed row, clean and noisy copies together; longer responses are split over rows."""
    eval_every: int | None = None
    """Optimizer steps between evaluations of the student on held-out problems; None: no evaluation."""
    eval_tasks: tuple[str, ...] = ()
    """Tasks of the mini suite, or JSONL files with a "question" and an "answer" per line."""
    eval_limit: int = 64
    """Problems of each task."""
    eval_tokens_per_step: int = 4
    """Of the few-step accuracy; the full-step accuracy decodes one token per step."""
    eval_max_new_tokens: int = DecodeParams.max_new_tokens
    eval_trajectories: str | None = None
    """Instead, for a drafter: Parquet file of held-out rollouts, of whose blocks it drafts every one."""
    eval_grader: GraderName = "math_verify"
    """Of JSONL files, as the grader of t3d eval: math_verify, legacy or exact."""
    report_to: tuple[str, ...] = ()
    """Trackers of transformers: tensorboard, trackio (both in t3d[trackers]), wandb, ..."""
    seed: int = 0
    num_processes: int | None = None
    """Train in so many processes on this machine, a GPU each, which accelerate starts; batch_size is that of
    all together. Default: one, or those that torchrun or accelerate started."""
    accelerate_config: str | None = None
    """Of num_processes: ddp, the default (each has the whole model), fsdp2 (each has a part of the model, the
    optimizer and the reference), zero1 (a part of the optimizer; it needs deepspeed), or a YAML file of
    accelerate config."""

    def run(self) -> None:
        """Run the command."""
        self._check_flags()
        check_started()
        check_config(self, Path(self.output) / "config.yaml", self.trajectories)
        check_report(Path(self.output) / NAME)
        self.check_model()
        if self.soft_targets_from is not None:
            check_model(self.soft_targets_from, "soft_targets_from")
        check_is_there(self.trajectories)
        self._fields()
        if self._num_processes > num_processes():
            launch("train", flags_of(self), self._num_processes, self._accelerate_file())
        else:
            dataclasses.replace(self, block_size=self._student_block_size())._train()

    @property
    def _num_processes(self) -> int:
        return self.num_processes or num_processes()

    def _accelerate_file(self) -> Path:
        from t3d.models.placement import resolve_device

        return checked_file(self.accelerate_config or "ddp", resolve_device(self.device).type)

    def _check_flags(self) -> None:
        """Raise InputError for flags that no checkpoint can make right."""
        counts = ("num_optimizer_steps", "gradient_accumulation_steps", "save_every", "limit", "batch_size")
        require_positive(self, *counts, "block_size", "eval_every", "num_processes", *EVALUATION_COUNTS)
        require_training_device(self.device)
        if self.num_processes in (None, 1) and self.accelerate_config is not None:
            problem, fix = "ignored: it says how num_processes are started", "set num_processes to 2 or more"
            raise InputError("accelerate_config", self.accelerate_config, problem, fix)
        check_count(self.num_processes, self.device)
        count = self.gradient_accumulation_steps * self._num_processes
        if self.batch_size % count:
            problem = f"not a multiple of gradient_accumulation_steps={self.gradient_accumulation_steps}"
            problem += f" times {self._num_processes} processes" if self._num_processes > 1 else ""
            raise InputError("batch_size", self.batch_size, problem, f"use a multiple of {count}")
        check_dtype(self.dtype)
        if self.dynamic is not None and self.tokens_per_step is not None:
            raise InputError("dynamic", self.dynamic, "tokens_per_step is given too", "give one of the two")

    @property
    def resolved_block_size(self) -> int:
        """The student's block size."""
        assert self.block_size is not None, "run has filled it in"
        return self.block_size

    def _student_block_size(self) -> int:
        if self.block_size is not None:
            return self.block_size
        from t3d.decoding.precedence import check_own
        from t3d.training.config import T3DConfig

        told = self.own_settings()
        size = check_own(told).get("block_size", T3DConfig.block_size)
        return size if "steps_per_block" in told else max(size, T3DConfig.block_size)

    def _train(self) -> None:
        from t3d.models.loading import load_model
        from t3d.models.placement import DTYPES, export_precision
        from t3d.report.html.page import add_report
        from t3d.training.ignored import check_training_fields
        from t3d.training.run import distil
        from t3d.training.selection import check_source
        from t3d.training.student_settings import student_settings

        check_evaluation(self)
        config = self.trainer_config()
        check_training_fields(config)
        self._check_soft_targets(config)
        trajectories = read_trajectories(self.trajectories)[: self.limit]
        check_source(trajectories, self.preset)
        made_for = {"tokens_per_step": self.tokens_per_step, "threshold": self.dynamic}
        own = student_settings(trajectories, self.resolved_block_size, **made_for)
        made = "drafter" if self.preset == DRAFTER else "student"
        # AdamW needs float32 weights: a bfloat16 run keeps them and computes under autocast.
        weights_dtype = "float32" if self.dtype == "bfloat16" else self.dtype
        loaded = load_model(self.model, device=self.device, dtype=weights_dtype)
        told = self.soft_targets_from
        if told is not None:
            with naming(model="soft_targets_from"):
                told = load_model(told, device=self.device, dtype=weights_dtype)
        output, evaluator = Path(self.output), evaluator_of(self, loaded, config)
        folder = distil(
            loaded,
            trajectories,
            config,
            output / made,
            export_dtype=export_precision(loaded.checkpoint_dtype, DTYPES[self.dtype]),
            evaluator=evaluator,
            own_settings=own if any(value is not None for value in made_for.values()) else None,
            soft_target_model=told,
        )
        if is_first_process():
            write_config(self, output / "config.yaml")
            print(f"{made} in {folder}")
            add_report(output)

    def _check_soft_targets(self, config: "T3DConfig") -> None:
        """Raise InputError for a model that gives soft targets without their weight, and for a weight without
        a model."""
        from t3d.training.soft_targets import check_both

        source = self.soft_targets_from
        check_both(config, "soft_targets_from", source, "give --soft-targets-from CHECKPOINT")

    def trainer_config(self) -> "T3DConfig":
        """The settings of the training, where block_size is given. Raises InputError for what cannot be."""
        return self._trainer_config(self._fields())

    def _fields(self) -> dict[str, Any]:
        """The preset with its overrides. Raises InputError for an override of what has a flag of its own."""
        for override in self.override:
            name = override.partition("=")[0]
            flag = name if hasattr(self, name) else _FLAG_OF_FIELD.get(name)
            if flag is not None:
                problem = f"--{flag.replace('_', '-')} sets {name}"
                raise InputError("override", override, problem, f"use --{flag.replace('_', '-')}")
        fields = preset_fields(self.preset)
        fields |= {name: getattr(self, name) for name in _PRESET_FLAGS if getattr(self, name) is not None}
        return fields | parse_overrides(self.override)

    def _trainer_config(self, fields: dict[str, Any]) -> "T3DConfig":
        """The flags as T3DConfig; ``fields``, the preset with its overrides, win.

        Raises InputError for a warm-up that lasts for the whole run.
        """
        from t3d.models.placement import resolve_device
        from t3d.training.config import T3DConfig
        from t3d.training.config_checks import warmup_covers_run

        device = resolve_device(self.device).type
        arguments: dict[str, Any] = {
            "output_dir": str(Path(self.output) / "checkpoints"),
            "max_steps": self.num_optimizer_steps,
            "per_device_train_batch_size": self.batch_size
            // (self.gradient_accumulation_steps * self._num_processes),
            "save_steps": self.save_every,
            "save_total_limit": 2,
            **{name: getattr(self, name) for name in _SAME_NAMES},
            "eval_strategy": "no" if self.eval_every is None else "steps",
            "eval_steps": self.eval_every,
            "report_to": list(self.report_to) or "none",
            "bf16": self.dtype == "bfloat16",
            "use_cpu": device == "cpu",
            "dataloader_pin_memory": device == "cuda",
        }
        config = T3DConfig(**(arguments | fields))
        if warmup_covers_run(config):
            problem = "the learning rate, 0 at first, never reaches its value"
            fix = f"use less than num_optimizer_steps={self.num_optimizer_steps}, for example 0"
            raise InputError("warmup_steps", self.warmup_steps, problem, fix)
        return config

    def resolved_config(self) -> "T3DConfig":
        """The settings of a training by these flags. Raises InputError for what no records can make right."""
        from t3d.training.ignored import check_training_fields

        self._check_flags()
        command = dataclasses.replace(self, block_size=self._student_block_size())
        config = command._trainer_config(command._fields())
        check_training_fields(config)
        return config

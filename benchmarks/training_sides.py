"""The sides of benchmarks/training.py: models, data, one round of each, and its peak memory."""

import copy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from tempfile import gettempdir
from typing import Any

import torch
from training_baselines import authors_step, careful_step, draw_state
from training_lengths import Lengths, number_tokenizer, random_trajectory

from t3d.models.adopted import ARCHITECTURES
from t3d.training.config import T3DConfig
from t3d.training.lora import add_adapter
from t3d.training.presets import preset_fields
from t3d.training.trainer import T3DTrainer

SIDES = ("authors_step", "careful_step", "ours")
MODEL = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "vocab_size": 151_936,
}
SMOLLM2 = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
"""SmolLM2-135M, a Llama."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all sides share."""

    model: dict[str, Any]
    """Fields of the architecture's config."""
    lengths: Lengths
    architecture: str = "qwen3"
    """Of the table of those that are adopted; Qwen3 is SDAR."""
    preset: str = "released"
    """The baselines know ``released`` only."""
    has_autocast: bool = False
    """Of ours: bfloat16 arithmetic on the weights' own dtype, as the Trainer does with ``bf16``."""
    micro_batch: int = 4
    """Of careful_step and ours."""
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    gradient_checkpointing: bool = False
    lora_rank: int = 0
    """Of ours: train an adapter of this rank; 0: all weights."""

    @property
    def mask_token_id(self) -> int:
        """The last token; 0 is the stop token and the padding."""
        return self.model["vocab_size"] - 1

    @cached_property
    def config(self) -> T3DConfig:
        """One for all sides: a second one resets accelerate's state."""
        return T3DConfig(
            output_dir=gettempdir(),  # nothing is written
            use_cpu=self.device == "cpu",
            per_device_train_batch_size=self.micro_batch,
            lora_rank=self.lora_rank,
            bf16=self.has_autocast,
            **preset_fields(self.preset),
        )


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way to train."""

    student: torch.nn.Module
    micro_batch: int
    accumulate: Callable[[Sequence[int]], float]
    """Forward and backward of these trajectories; returns the loss, their mean."""


def build_model(setting: Setting) -> Any:
    """Random weights, the same for the same setting."""
    fields = {
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    fields |= {"mask_token_id": setting.mask_token_id, "attn_implementation": "sdpa"} | setting.model
    architecture = ARCHITECTURES[setting.architecture]
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(setting.dtype)
    try:
        with torch.device(setting.device):
            return architecture.model(architecture.config(**fields))
    finally:
        torch.set_default_dtype(default)


@torch.no_grad()
def start_student(model: Any, setting: Setting) -> None:
    """Move what it trains away from the reference a little, so that no margin is zero, and let it train."""
    torch.manual_seed(1)
    trainable = (parameter for parameter in model.parameters() if parameter.requires_grad)
    for parameter in trainable:
        parameter.add_(torch.randn_like(parameter), alpha=0.1 * model.config.initializer_range)
    model.train()
    if setting.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})


def chunks(ids: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Micro-batches."""
    return (ids[first : first + size] for first in range(0, len(ids), size))


def make_side(name: str, setting: Setting) -> Side:
    """Models and data of a side."""
    vocab_size = setting.model["vocab_size"]
    trajectories = [random_trajectory(row, *pair, vocab_size) for row, pair in enumerate(setting.lengths)]
    config, model = setting.config, build_model(setting)
    if name == "ours":
        model = add_adapter(model, setting.lora_rank) if setting.lora_rank else model
        trainer = T3DTrainer(model, config, trajectories, processing_class=number_tokenizer(vocab_size))
        start_student(model, setting)
        if setting.has_autocast:  # for the rest, there is nothing to prepare for one process
            trainer.model = trainer.accelerator.prepare_model(model)
        return Side(
            student=model, micro_batch=setting.micro_batch, accumulate=lambda ids: train_on(trainer, ids)
        )
    reference = copy.deepcopy(model).eval().requires_grad_(False)
    start_student(model, setting)
    states = [draw_state(trajectory, config, vocab_size) for trajectory in trajectories]
    widths = max(prompt for prompt, _ in setting.lengths), max(response for _, response in setting.lengths)
    micro_batch = 1 if name == "authors_step" else setting.micro_batch

    def accumulate(ids: Sequence[int]) -> float:
        shared: dict[str, Any] = {"mask_token_id": setting.mask_token_id, "num_samples": len(ids)}
        total = 0.0
        for chunk in chunks(ids, micro_batch):
            chosen = [states[index] for index in chunk]
            if name == "authors_step":
                total += authors_step(model, reference, chosen[0], widths, config, **shared).item()
            else:
                total += careful_step(model, reference, chosen, config, **shared).item()
        return total

    return Side(student=model, micro_batch=micro_batch, accumulate=accumulate)


def train_on(trainer: T3DTrainer, ids: Sequence[int]) -> float:
    """What Trainer does with an accumulated batch, the optimizer aside."""
    size = trainer.args.per_device_train_batch_size
    batches = [
        trainer.data_collator([trainer.train_dataset[i] for i in chunk]) for chunk in chunks(ids, size)
    ]
    counts = trainer._get_num_items_in_batch(batches, trainer.args.device)
    return sum(trainer.training_step(trainer.model, batch, counts).item() for batch in batches)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One round of a side."""

    accumulation_seconds: float
    optimizer_seconds: float
    loss: float
    grad_norm: float


def timed_round(side: Side, optimizer: torch.optim.Optimizer, ids: Sequence[int]) -> Measured:
    """Train once on these trajectories."""
    started = time.perf_counter()
    loss = side.accumulate(ids)  # ends in .item(), so a GPU has finished
    accumulated = time.perf_counter()
    grad_norm = torch.nn.utils.clip_grad_norm_(side.student.parameters(), 1.0).item()
    optimizer.step()
    optimizer.zero_grad()
    if side.student.device.type == "cuda":
        torch.cuda.synchronize()
    return Measured(
        accumulation_seconds=accumulated - started,
        optimizer_seconds=time.perf_counter() - accumulated,
        loss=loss,
        grad_norm=grad_norm,
    )


def still_adamw(student: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW that does all its work and changes nothing."""
    return torch.optim.AdamW(student.parameters(), lr=0.0, weight_decay=0.01)


def peak_bytes(name: str, setting: Setting) -> int:
    """Peak memory of a side's heaviest micro-batch above its models and data; for a process of its own."""
    side = make_side(name, setting)
    everyone = range(len(setting.lengths))
    heaviest = max(
        chunks(everyone, side.micro_batch), key=lambda ids: max(setting.lengths[i][1] for i in ids)
    )
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    before = memory_of_process("VmRSS")
    side.accumulate(heaviest)
    return memory_of_process("VmHWM") - before


def memory_of_process(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def peak_bytes_apart(name: str, setting: Setting) -> int:
    """:func:`peak_bytes` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_bytes, name, setting).result()


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)

"""Settings of the pretraining of a mini teacher."""

import math
from dataclasses import dataclass

from t3d.errors import (
    InputError,
    require_at_least_zero,
    require_below_one,
    require_positive,
    require_seed,
)
from t3d.tasks.mini.suite import TASKS


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How a mini teacher is made."""

    output: str
    """Folder of checkpoints, log and the finished model."""
    start_from: str | None = None
    """Folder of a teacher to train on from, with the same network and tokenizer; None starts at random."""
    task_shares: tuple[float, ...] = (0.4, 0.45, 0.15)
    """Shares of chain, make and code among the examples."""
    num_optimizer_steps: int = 5000
    batch_size: int = 64
    learning_rate: float = 3e-3
    adam_beta2: float = 0.98
    warmup_steps: int = 100
    weight_decay: float = 0.01
    seed: int = 0
    bf16: bool = True
    """Compute under bfloat16 autocast (weights stay float32); slow on CPUs without bf16 instructions."""
    hidden_size: int = 160
    num_layers: int = 4
    num_heads: int = 4
    num_key_value_heads: int = 2
    intermediate_size: int = 480
    save_every: int = 200
    """Optimizer steps between checkpoints; a killed run continues from the last one."""
    show_progress: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "num_optimizer_steps", "batch_size", "save_every", "hidden_size")
        require_positive(self, "num_layers", "num_heads", "num_key_value_heads", "intermediate_size")
        require_seed(self)
        require_at_least_zero(self, "learning_rate", "weight_decay", "warmup_steps")
        require_below_one(self, "adam_beta2")
        are_numbers = all(0 <= share < math.inf for share in self.task_shares)
        if len(self.task_shares) != len(TASKS) or not are_numbers or sum(self.task_shares) <= 0:
            fix = f"give {len(TASKS)} shares, of {', '.join(TASKS)}"
            raise InputError("task_shares", self.task_shares, "not one share per task", fix)
        if self.num_heads % self.num_key_value_heads:
            problem = f"not a divisor of num_heads={self.num_heads}"
            raise InputError("num_key_value_heads", self.num_key_value_heads, problem, "use a divisor")
        if self.hidden_size % (2 * self.num_heads):  # rotary embedding turns pairs inside a head
            problem = f"not a multiple of 2 * num_heads={2 * self.num_heads}"
            raise InputError("hidden_size", self.hidden_size, problem, "use a multiple")

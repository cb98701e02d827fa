"""Settings of the demo."""

from dataclasses import dataclass

from t3d.decoding.params import BATCH_SIZE
from t3d.errors import (
    InputError,
    require_above_zero,
    require_at_least_zero,
    require_below_one,
    require_positive,
    require_seed,
)
from t3d.model_choice import check_dtype, require_training_device
from t3d.training.preset_rounds import ROUNDS, preset_rollouts
from t3d.training.presets import PRESETS, SOLUTION_PRESETS

_METHODS = ("t3d", "t3d-plus", "naive_td")
"""Of all presets, of which some want solutions, a filter or a learning rate of their own."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of the demo."""

    output: str
    """Folder for summary, plot, student and trajectories."""
    seed: int = 0
    """Of prompts, rollouts, training and sampling."""
    method: str = "t3d"
    """Preset of the training: t3d, t3d-plus or naive_td. t3d distil --preset takes others."""
    num_rounds: int | None = None
    """Rounds of rollout and training: the teacher rolls out in the first, the student of the round
    before in the others, on prompts of their own. 1 is the paper's method. Default: 2, or the method's."""
    num_prompts: int = 1536
    """Training prompts rolled out in a round, over all tasks."""
    rollout_temperature: float = 0.0
    """0 is greedy: among equally good responses a draw has nothing that a student could learn."""
    num_optimizer_steps: int = 100
    """Optimizer steps in a round."""
    train_batch_size: int = 32
    """Trajectories per optimizer step."""
    learning_rate: float = 1.2e-3
    random_token_prob: float = 0.05
    """Share of masks replaced by random tokens, of method t3d; twice as much, the preset's, costs full-step
    accuracy (docs/LOG.md)."""
    limit: int = 192
    """Held-out prompts per task."""
    batch_size: int = BATCH_SIZE
    """Requests decoded together."""
    drafter: str | None = None
    """Folder of a drafter of the bundled teacher (t3d train --preset drafter), for one more row, in which it
    drafts. A finished demo can be given one."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: str | None = None
    """Of decoding: float32, bfloat16 or float64. In bfloat16 training multiplies in it, too, with weights in
    float32, and what is to be the same text is decoded in float32. Default: as the demo was begun; bfloat16
    where the processor is made for it, else float32."""
    show_progress: bool = True
    """Say which stage runs, and how far it is."""

    def __post_init__(self) -> None:
        _check_method(self.method)
        if self.num_rounds is None:
            object.__setattr__(self, "num_rounds", ROUNDS.get(self.method, {}).get("num_rounds", 2))
        require_positive(
            self,
            "num_rounds",
            "num_prompts",
            "num_optimizer_steps",
            "train_batch_size",
            "limit",
            "batch_size",
        )
        require_training_device(self.device)
        if self.dtype is not None:
            check_dtype(self.dtype.removeprefix("torch."))
        require_seed(self)
        require_above_zero(self, "learning_rate")
        require_at_least_zero(self, "rollout_temperature")
        require_below_one(self, "random_token_prob")

    @property
    def rollout_settings(self) -> tuple[str, ...]:
        """The method's, one for each round; empty: full steps in all."""
        return preset_rollouts(self.method, self.count_rounds)

    @property
    def count_rounds(self) -> int:
        """The number of rounds that are made."""
        assert self.num_rounds is not None
        return self.num_rounds


def _check_method(method: str) -> None:
    if method in _METHODS:
        return
    fix = f"use one of {', '.join(_METHODS)}"
    if method not in PRESETS:
        raise InputError("method", method, "not known", fix)
    command = "train" if method in (*SOLUTION_PRESETS, "drafter") else "distil"
    fix += f", or train it yourself: t3d {command} --model mini --preset {method}"
    raise InputError("method", method, "a preset, but no method of the demo", fix)

"""The demo's stages in their order, and what each takes where docs/results/demo.md was made."""

from t3d.reproduce.demo_config import DemoConfig
from t3d.reproduce.settings import SETTINGS
from t3d.tasks.mini.suite import TASKS
from t3d.work.progress import Stage

MACHINE = "two cores"
TYPICAL_SECONDS = {"evaluate": 97 / 24576, "rollout": 29 / 6144, "train": 208 / 19200}
"""By what is counted: responses, prompts, trajectories of optimizer steps. Of seed 0 of docs/results/demo.md:
97 s for the 2 x 512 x 3 x 8 responses of both models, 29 s for two rounds of 3,072 prompts, 208 s for two of
150 x 64 trajectories."""


def demo_stages(config: DemoConfig) -> list[Stage]:
    """All of them; the estimate of what is left begins with their typical seconds."""
    num_responses = config.limit * len(TASKS) * len(SETTINGS)
    num_trajectories = config.num_optimizer_steps * config.train_batch_size
    rounds = [
        stage
        for number in range(1, config.num_rounds + 1)
        for stage in (
            _stage(rollout_stage(number), "rollout", config.num_prompts),
            _stage(training_stage(number), "train", num_trajectories),
        )
    ]
    teacher, student = (
        _stage(evaluation_stage(name), "evaluate", num_responses) for name in ("teacher", "student")
    )
    return [teacher, *rounds, student]


def evaluation_stage(model: str) -> str:
    """The name of a stage, as of the next two."""
    return f"evaluate {model}"


def rollout_stage(number: int) -> str:
    """Of a round, counted from 1."""
    return f"rollout round {number}"


def training_stage(number: int) -> str:
    """Of a round, counted from 1."""
    return f"distil round {number}"


def _stage(name: str, kind: str, count: int) -> Stage:
    return Stage(name=name, kind=kind, typical_seconds=count * TYPICAL_SECONDS[kind])

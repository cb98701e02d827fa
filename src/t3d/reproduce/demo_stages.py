"""The demo's stages in their order, and what each takes where docs/results/demo.md was made."""

from t3d.reproduce.demo_config import DemoConfig
from t3d.reproduce.rounds import rollout_stage, training_stage
from t3d.reproduce.settings import LEFT_TO_RIGHT, SETTINGS
from t3d.tasks.mini.suite import TASKS
from t3d.work.progress import Stage

MACHINE = "two cores"
TYPICAL_SECONDS = {
    "evaluate": 39.0 / 9216,
    "left_to_right": 8.6 / 1152,
    "drafter": 13 / 1536,
    "rollout": 17.2 / 3072,
    "train": 66.8 / 6400,
}
"""By what is counted: responses, prompts, trajectories of optimizer steps. Of ``t3d demo`` alone on two cores
with AMX (docs/results/demo.md): 39 s for the 2 x 192 x 3 x 8 responses of both models, 9 s for the teacher's
192 x 3 x 2 left to right, 17 s for two rounds of 1,536 prompts, 67 s for two of 100 x 32
trajectories. The drafter's was measured before."""


def demo_stages(config: DemoConfig) -> list[Stage]:
    """All of them; the estimate of what is left begins with their typical seconds."""
    num_problems = config.limit * len(TASKS)
    num_trajectories = config.num_optimizer_steps * config.train_batch_size
    rounds = [
        stage
        for number in range(1, config.count_rounds + 1)
        for stage in (
            _stage(rollout_stage(number), "rollout", config.num_prompts),
            _stage(training_stage(number), "train", num_trajectories),
        )
    ]
    teacher, student = (
        _stage(evaluation_stage(name), "evaluate", num_problems * len(SETTINGS))
        for name in ("teacher", "student")
    )
    left_to_right = [
        _stage(evaluation_stage("teacher-left-to-right"), "left_to_right", num_problems * len(LEFT_TO_RIGHT))
    ]
    if config.drafter is not None:
        left_to_right.append(_stage(evaluation_stage("teacher-drafter"), "drafter", num_problems))
    return [teacher, *left_to_right, *rounds, student]


def evaluation_stage(name: str) -> str:
    """The name of a stage."""
    return f"evaluate {name}"


def _stage(name: str, kind: str, count: int) -> Stage:
    return Stage(name=name, kind=kind, typical_seconds=count * TYPICAL_SECONDS[kind])

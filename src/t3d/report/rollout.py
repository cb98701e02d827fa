"""What a rollout says of itself when it is done."""

from collections import Counter
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from t3d.errors import InputError
from t3d.evaluation.intervals import wilson_interval
from t3d.evaluation.measure import endings
from t3d.problems.prompts import token_text
from t3d.report.console import accuracy_text
from t3d.tasks.code_task import CodeTask
from t3d.tasks.math_task import MathTask
from t3d.tasks.prompt_file import PromptFileTask
from t3d.tasks.task import PosedTask
from t3d.trajectory import Trajectory


def rollout_lines(
    trajectories: Sequence[Trajectory],
    posed: PosedTask,
    tokenizer: PreTrainedTokenizerBase,
    seconds: float | None,
) -> list[str]:
    """How the responses ended, how many are right where that is known, and how fast they were decoded.

    ``posed`` holds the problems of the trajectories, in their order. ``seconds`` is None if they were not
    all decoded now.
    """
    num_tokens = sum(trajectory.visible_length for trajectory in trajectories)
    lines = [endings(Counter(trajectory.finish_reason for trajectory in trajectories))]
    lines += _accuracy_lines(trajectories, posed, tokenizer)
    if seconds is not None:
        lines.append(
            f"{num_tokens} tokens in {seconds:.1f} s: {num_tokens / max(seconds, 1e-9):.0f} tokens/s"
        )
    return lines


def _accuracy_lines(
    trajectories: Sequence[Trajectory], posed: PosedTask, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """None for programs, which are not run on the way, and where no answer is known or can be graded."""
    if isinstance(posed.task, CodeTask):
        return []
    verdicts: list[bool] = []
    for trajectory, problem in zip(trajectories, posed.problems, strict=True):
        try:
            posed.task.check(problem)
        except InputError:
            continue  # no answer, or no package to grade it
        response = token_text(tokenizer, trajectory.response_ids[: trajectory.visible_length])
        verdicts.append(posed.task.grade(problem, response))
    if not verdicts:
        return []
    if isinstance(posed.task, MathTask | PromptFileTask):
        posed.task.close()  # its workers
    interval = [100 * end for end in wilson_interval(sum(verdicts), len(verdicts))]
    shown = accuracy_text(100 * sum(verdicts) / len(verdicts), interval)
    return [f"{sum(verdicts)} of {len(verdicts)} answers are right: {shown} %"]

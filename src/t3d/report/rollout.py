"""What a rollout says of itself when it is done."""

from collections import Counter
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from t3d.decoding.rollout_filter import RolloutFilter, is_graded
from t3d.decoding.sample_choice import ONE_SAMPLE, SampleChoice
from t3d.errors import InputError
from t3d.evaluation.intervals import wilson_interval
from t3d.evaluation.measure import endings
from t3d.problems.problem import Problem
from t3d.problems.prompts import token_text
from t3d.report.console import accuracy_text
from t3d.tasks.code_task import CodeTask
from t3d.tasks.math_task import MathTask
from t3d.tasks.prompt_file import PromptFileTask
from t3d.tasks.task import PosedTask
from t3d.trajectory import Trajectory

MAX_NAMED = 4
"""Prompts of which no sample was kept that are named."""


def sample_lines(
    trajectories: Sequence[Trajectory], problems: Sequence[Problem], choice: SampleChoice
) -> list[str]:
    """How many samples were kept, and which prompts have none; nothing of the usual rollout."""
    if choice == ONE_SAMPLE:
        return []
    count, ids = len(problems) * choice.num_samples, [trajectory.id for trajectory in trajectories]
    lines = [f"{len(ids)} of {count} samples kept (rollout_filter={choice.rollout_filter})"]
    found = {problem.id for problem in choice.problems_of(ids, problems)}
    lost = [problem.id for problem in problems if problem.id not in found]
    if lost:
        more = ", ..." if len(lost) > MAX_NAMED else ""
        named, kind = ", ".join(lost[:MAX_NAMED]), "right" if is_graded(choice.rollout_filter) else "likely"
        lines.append(
            f"left out of {len(problems)} prompts: {len(lost)} without a {kind} sample ({named}{more})"
        )
    return lines


def rollout_lines(
    trajectories: Sequence[Trajectory],
    posed: PosedTask,
    tokenizer: PreTrainedTokenizerBase,
    seconds: float | None,
    rollout_filter: RolloutFilter = "none",
) -> list[str]:
    """How the responses ended, how many are right where that is known, and how fast they were decoded.

    ``posed`` holds the problems of the trajectories, in their order. ``seconds`` is None if they were not
    all decoded now. Of kept samples, which a filter has graded all right, no accuracy is told.
    """
    num_tokens = sum(trajectory.visible_length for trajectory in trajectories)
    lines = [endings(Counter(trajectory.finish_reason for trajectory in trajectories))]
    if is_graded(rollout_filter):
        _end_workers(posed)
    else:
        lines += _accuracy_lines(trajectories, posed, tokenizer)
    if seconds is not None:
        kind = "tokens" if rollout_filter == "none" else "kept tokens"
        lines.append(
            f"{num_tokens} {kind} in {seconds:.1f} s: {num_tokens / max(seconds, 1e-9):.0f} {kind}/s"
        )
    return lines


def _accuracy_lines(
    trajectories: Sequence[Trajectory], posed: PosedTask, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """None for programs, which are not run on the way, and where no answer is known or can be graded.

    The interval counts prompts: several samples of one are not independent.
    """
    if isinstance(posed.task, CodeTask):
        return []
    verdicts: list[bool] = []
    graded: set[str] = set()
    for trajectory, problem in zip(trajectories, posed.problems, strict=True):
        try:
            posed.task.check(problem)
        except InputError:
            continue  # no answer, or no package to grade it
        response = token_text(tokenizer, trajectory.response_ids[: trajectory.visible_length])
        verdicts.append(posed.task.grade(problem, response))
        graded.add(problem.id)
    if not verdicts:
        return []
    _end_workers(posed)
    num_right = sum(verdicts) * len(graded) / len(verdicts)
    interval = [100 * end for end in wilson_interval(num_right, len(graded))]
    shown = accuracy_text(100 * sum(verdicts) / len(verdicts), interval)
    return [f"{sum(verdicts)} of {len(verdicts)} answers are right: {shown} %"]


def _end_workers(posed: PosedTask) -> None:
    if isinstance(posed.task, MathTask | PromptFileTask):
        posed.task.close()

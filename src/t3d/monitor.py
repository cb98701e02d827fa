"""Scores of a student while it trains: accuracy on a few held-out problems, at few and at full steps."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t3d.data.prompts import Problem
from t3d.decoding.params import DecodeParams
from t3d.evaluation.evaluate import evaluate
from t3d.evaluation.task import Task
from t3d.models.loading import adopt_model
from t3d.training.trainer import Evaluator


def student_evaluator(
    tokenizer: PreTrainedTokenizerBase,
    held_out: Sequence[tuple[Task, Sequence[Problem]]],
    *,
    few_steps: DecodeParams,
    full_steps: DecodeParams,
    batch_size: int = 256,
) -> Evaluator:
    """An evaluator for ``T3DTrainer``: percent right of each task, and ``few_step_accuracy`` and
    ``full_step_accuracy``, their means."""

    def score(student: PreTrainedModel) -> dict[str, float]:
        loaded = adopt_model(student, tokenizer)
        scores: dict[str, float] = {}
        for name, params in (("few_step_accuracy", few_steps), ("full_step_accuracy", full_steps)):
            by_task = {
                task.name: 100
                * evaluate(
                    loaded, task, problems, params, batch_size=batch_size, label=f"{name} on {task.name}"
                ).accuracy
                for task, problems in held_out
            }
            scores |= {f"{name}/{task}": value for task, value in by_task.items()}
            scores[name] = sum(by_task.values()) / len(by_task)
        return scores

    return score

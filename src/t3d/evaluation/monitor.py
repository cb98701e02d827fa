"""Scores of a student while it trains: accuracy on a few held-out problems, at few and at full steps."""

import logging
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from transformers import PreTrainedModel

from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.evaluation.evaluate import EvalConfig, evaluate, requests_of
from t3d.evaluation.measure import endings
from t3d.models.loading import LoadedModel, adopt_model
from t3d.problems.problem import Problem
from t3d.tasks.task import PosedTask, Task
from t3d.training.trainer import Evaluator

_logger = logging.getLogger(__name__)


def student_evaluator(
    teacher: LoadedModel,
    held_out: Sequence[tuple[Task, Sequence[Problem]]],
    *,
    few_steps: DecodeParams,
    full_steps: DecodeParams,
    batch_size: int = BATCH_SIZE,
) -> Evaluator:
    """An evaluator for ``T3DTrainer``: percent right of each task, and ``few_step_accuracy`` and
    ``full_step_accuracy``, their means.

    The student has its ``teacher``'s tokenizer and positions. Raises InputError for a task given twice, and
    for problems that could not be decoded or graded: none, no gold answer, too long. Where responses hit the
    length limit, which a low score may come from, a warning counts them.
    """
    posed = [PosedTask(task=task, problems=list(problems)) for task, problems in held_out]
    settings = {"few_step_accuracy": few_steps, "full_step_accuracy": full_steps}
    requests_of(teacher, posed, settings)  # the refusals, before any training

    def score(student: PreTrainedModel) -> dict[str, float]:
        config = EvalConfig(batch_size=batch_size)
        entries = evaluate(adopt_model(student, teacher.tokenizer), posed, settings, config=config)
        scores = {f"{entry['setting']}/{entry['task']}": entry["accuracy"] for entry in entries}
        for name in settings:
            found = [entry for entry in entries if entry["setting"] == name]
            scores[name] = fmean(entry["accuracy"] for entry in found)
            reasons = sum((Counter(entry["finish_reasons"]) for entry in found), Counter())
            if reasons["length"]:
                _logger.warning("%s: %s", name.replace("_", " "), endings(reasons))
        return scores

    return score

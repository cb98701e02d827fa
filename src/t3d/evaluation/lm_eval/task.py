"""The tasks ``t3d_*`` of lm-evaluation-harness: our problems, prompts and graders.

``tasks/*.yaml`` name this class; ``dataset_name`` there is the mini task's or the benchmark's name.
"""

import os
from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from lm_eval.api.task import ConfigurableTask

from t3d.errors import InputError
from t3d.evaluation.lm_eval.plugin import PROMPT_STYLE, SAMPLE_ID
from t3d.problems.hub import HUB, benchmark_folder
from t3d.problems.problem import Problem
from t3d.problems.prompt_styles import PromptStyle, released_prompt, user_turn
from t3d.tasks.benchmarks import default_prompt_style, load_benchmark, own_options, prompt_kind, style_options
from t3d.tasks.mini.suite import TASKS
from t3d.tasks.task import Task

DATA_VARIABLE = "T3D_DATA"
"""Environment variable: the folder of the benchmarks' data, where ``--metadata data=FOLDER`` does not say."""


class T3dTask(ConfigurableTask):
    """One of our tasks, graded as ``t3d eval`` grades it.

    The harness passes ``--model_args`` and ``--metadata`` as one mapping. Read from it: ``prompt_style``,
    ``problem_seed`` (mini tasks), ``data`` and the benchmark's own settings.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={name: value for name, value in config.items() if name != "class"})

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Read or draw the problems. Raises InputError if one cannot be graded."""
        del dataset_kwargs, kwargs
        name, metadata = str(self.config.dataset_name), dict(self.config.metadata or {})
        style = metadata.get("prompt_style") or default_prompt_style(name)
        self._task = _task(name, metadata, style)
        problems = self._task.problems("test", None, metadata.get("problem_seed", 0))
        for problem in problems:
            self._task.check(problem)
        self._problems = {problem.id: problem for problem in problems}
        rows = [
            {
                SAMPLE_ID: problem.id,
                PROMPT_STYLE: style,
                "prompt": _prompt(problem, name, style),
                "target": problem.answer or "",
            }
            for problem in problems
        ]
        self.dataset = {"test": Dataset.from_list(rows)}

    def process_results(self, doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
        """Whether the answer is right."""
        if "bypass" in self._metric_fn_list:  # --predict_only
            return super().process_results(doc, results)
        return {"acc": float(self._task.grade(self._problems[doc[SAMPLE_ID]], results[0]))}


def _task(name: str, metadata: Mapping[str, Any], style: PromptStyle) -> Task:
    if name in TASKS:
        return TASKS[name]
    folder = metadata.get("data") or os.environ.get(DATA_VARIABLE)
    if not folder:
        fix = f"set {DATA_VARIABLE} or --metadata data=FOLDER, or data={HUB} to download them"
        raise InputError("data", None, f"{name} needs the folder with its data", fix)
    folder = benchmark_folder(name) if folder == HUB else folder
    return load_benchmark(name, folder, **own_options(name, metadata), **style_options(name, style))


def _prompt(problem: Problem, name: str, style: PromptStyle) -> str:
    """The user's turn, or the whole prompt in style ``released``: the text of ``problem_ids``."""
    if style == "released":
        return released_prompt(problem.question, prompt_kind(name), problem.prefix)
    return user_turn(problem.question, style, prompt_kind(name))

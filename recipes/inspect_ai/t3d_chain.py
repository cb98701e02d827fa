"""A mini task of t3d for inspect-ai, whose models may be any; here those of ``t3d serve`` (docs/serving.md).

    t3d serve --model mini
    T3D_BASE_URL=http://127.0.0.1:8000/v1 T3D_API_KEY=none inspect eval recipes/inspect_ai/t3d_chain.py \\
        --model openai-api/t3d/mini --temperature 0

Settings of decoding that inspect-ai has no flag for are arguments of the task: ``-T tokens_per_step=4``.
Problems and verdicts are those of t3d's task ``chain``, so the score is the accuracy of ``t3d eval`` for the
same settings.
"""

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState, generate

from t3d.problems.problem import Problem
from t3d.tasks.mini.suite import mini_task


@task
def t3d_chain(
    num_problems: int = 24, seed: int = 0, block_size: int | None = None, tokens_per_step: int | None = None
) -> Task:
    """Short arithmetic stories of the test split, asked as they are."""
    problems = mini_task("chain").problems("test", num_problems, seed)
    asked = {"block_size": block_size, "tokens_per_step": tokens_per_step}
    extra_body = {name: value for name, value in asked.items() if value is not None}
    return Task(
        dataset=MemoryDataset([Sample(id=p.id, input=p.question, target=p.answer or "") for p in problems]),
        solver=generate(),
        scorer=worked_out(),
        config=GenerateConfig(max_tokens=80, extra_body=extra_body),
    )


@scorer(metrics=[accuracy(), stderr()])
def worked_out() -> Scorer:
    """Right where every step is worked out and the box holds the last total, as t3d grades it."""

    async def score(state: TaskState, target: Target) -> Score:
        problem = Problem(id=str(state.sample_id), question=state.input_text, answer=target.text)
        response = state.output.completion
        return Score(value=mini_task("chain").grade(problem, response), answer=response)

    return score

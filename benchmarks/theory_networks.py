"""What the bundled teacher loses by drawing tokens together, beside what its data's posterior loses.

python benchmarks/theory_networks.py [--prompts 24] [--output docs/results/theory/networks.json]

The rollouts and measures of ``t3d rollout`` and ``t3d theory`` (docs/theory.md), for each mini task: training
prompts, blocks of 8, one token per step at temperature 1, confidence order. Writes each trajectory's
numbers and prints the page's table. A minute of CPU time.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from statistics import mean

from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out
from t3d.evaluation.intervals import t_half_width
from t3d.models.loading import LoadedModel, load_model
from t3d.report.markdown import markdown_table
from t3d.tasks.mini.listed import listed_solutions
from t3d.tasks.mini.suite import TASKS
from t3d.theory.listed import score_steps
from t3d.theory.measured import score_trajectory
from t3d.work.files import write_text
from t3d.work.versions import versions

COUNTS = (2, 4, 8)
BLOCK_SIZE = 8
PARAMS = DecodeParams(block_size=BLOCK_SIZE, steps_per_block=BLOCK_SIZE, temperature=1.0, max_new_tokens=256)
OUTPUT = "docs/results/theory/networks.json"
Values = dict[str, list[float]]
"""By what is measured, a value of each trajectory: nats per token, or a share."""
ROWS = ("mini", "posterior", "difference")


def measured(loaded: LoadedModel, task: str, num_prompts: int) -> dict[str, Values]:
    """By tokens per step.

    ``mini``: the factorisation error. ``posterior``: total correlation, over the steps that begin where a
    listed solution agrees with the state. ``difference``: the error on the tokens of these, less it.
    ``listed``: the share of tokens that are in such steps.
    """
    problems = TASKS[task].problems("train", num_prompts, 0)
    found = {str(count): {name: [] for name in (*ROWS, "listed")} for count in COUNTS}
    for number, trajectory in enumerate(roll_out(loaded, problems, PARAMS)):
        scores = score_trajectory(
            loaded.model, trajectory, number, tokens_per_step=COUNTS, block_size=BLOCK_SIZE
        )
        length = len(trajectory.response_ids)
        solutions = listed_solutions(TASKS[task], problems[number].question, loaded.tokenizer, length)
        for count in COUNTS:
            errors = [score.error(count) for score in scores]
            steps = score_steps(solutions, trajectory, number, tokens_per_step=count, block_size=BLOCK_SIZE)
            of_step = [step for step in steps for _ in range(step.num_tokens)]  # in the order of the errors
            listed = [
                error for error, step in zip(errors, of_step, strict=True) if step.correlation is not None
            ]
            correlation = sum(step.correlation or 0.0 for step in steps if step.num_tokens) / len(listed)
            values = (mean(errors), correlation, mean(listed) - correlation, len(listed) / len(errors))
            for name, value in zip((*ROWS, "listed"), values, strict=True):
                found[str(count)][name].append(round(value, 7))
    return found


def text(values: Sequence[float], sign: str = "") -> str:
    """The mean with half its 95 % interval over trajectories."""
    return f"{mean(values):{sign}.3f} ± {t_half_width(values):.3f}"


def rows(tasks: Mapping[str, Mapping[str, Values]]) -> list[list[str]]:
    """Of the page's table."""
    return [
        [
            task if name == "mini" else "",
            name,
            *(text(found[str(c)][name], "+" * (name == "difference")) for c in COUNTS),
        ]
        for task, found in tasks.items()
        for name in ROWS
    ]


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prompts", type=int, default=24, help="of each task")
    parser.add_argument("--output", default=OUTPUT)
    options = parser.parse_args()
    loaded = load_model("mini", device="cpu")
    tasks = {task: measured(loaded, task, options.prompts) for task in TASKS}
    write_text(options.output, json.dumps({"tasks": tasks, "versions": versions()}) + "\n")
    print(markdown_table(["task", "", *(f"{count} tokens per step" for count in COUNTS)], rows(tasks)))
    for task, found in tasks.items():
        print(task, *(f"{100 * mean(found[str(count)]['listed']):.0f} %" for count in COUNTS))


if __name__ == "__main__":
    main()

"""Markdown of what ``real_text.py`` measured.

python benchmarks/real_text_table.py results.json [--samples 3] > results.md
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from real_text_scores import aup_table, estimate, goals_table

from t3d.report.markdown import markdown_table

Row = dict[str, Any]
NEARNESS = {"agreement": "same token", "exact": "same text", "edit_distance": "edit distance"}
REPETITION = {"doubled": "doubled", "doubled_excess": "in excess", "loops": "in loops"} | {
    f"distinct_{n}": f"distinct {n}-grams" for n in (1, 2, 3, 4)
}
CONTENT = {"nats_per_token": "nats/token", "equations_right": "equations right", "right": "answers right"}
WITHOUT_PERCENT = ("nats_per_token",)
AUP = (
    "AUP of the curve over tokens per forward, in percent of the score times tokens per forward; without an "
    "interval. Few steps are the settings that are not left to right."
)
GOALS = (
    "Times the teacher's share at the same steps, and its full-step text in points less the teacher's; 95 % "
    "intervals over prompts, paired. The goals: agreement 3 times or more, doubled tokens 0.2 times or fewer,"
    " no more repetition (differences of 0)."
)


def cell(row: Row, name: str) -> str:
    """A value with its interval: percent, but nats as they are; nothing where it was not measured."""
    if name not in row["measures"]:
        return ""
    scale, digits = (1, 2) if name in WITHOUT_PERCENT else (100, 1)
    return estimate(row["measures"][name], scale, digits)


def measures_table(rows: list[Row], columns: dict[str, str]) -> str:
    """A line per model and setting."""
    lines = [
        [
            row["model"],
            row["setting"],
            f"{row['tokens_per_forward']:.2f}",
            *(cell(row, name) for name in columns),
        ]
        for row in rows
    ]
    return markdown_table(["model", "setting", "TPF", *columns.values()], lines)


def samples_table(rows: list[Row], number: int) -> str:
    """Answers to one prompt: a line per setting, a column per model."""
    texts = {
        (row["setting"], row["model"]): row["responses"][number]["text"].strip().replace("\n", "<br>")
        for row in rows
    }
    settings, models = (list(dict.fromkeys(row[name] for row in rows)) for name in ("setting", "model"))
    lines = [[setting, *(texts.get((setting, model), "") for model in models)] for setting in settings]
    return markdown_table(["setting", *models], lines)


def page(record: Row, num_samples: int) -> str:
    """All tables."""
    rows, arguments = record["rows"], record["arguments"]
    told = f"{rows[0]['n']} prompts, at most {arguments['max_new_tokens']} new tokens, blocks of "
    told += (
        f"{arguments['block_size']}, greedy, {arguments['dtype']}. Percent with 95 % intervals over prompts."
    )
    against = "To the teacher's text at full steps (its first line). The edit distance is by the longer text."
    repeated = "Read the judge's numbers beside these: it prefers loops."
    parts = [
        "# Few-step text",
        told,
        "## Nearness",
        against,
        measures_table(rows, NEARNESS | {"ended": "ended"}),
        "## Repetition",
        repeated,
        measures_table(rows, REPETITION),
        "## Content",
        measures_table(rows, CONTENT),
        "## Accuracy under parallelism",
        AUP,
        aup_table(rows),
    ]
    goals = goals_table(rows, arguments["block_size"])
    if goals is not None:
        parts += ["## Students beside the teacher", GOALS, goals]
    for number in range(min(num_samples, rows[0]["n"])):
        parts += [f"## Answers to {rows[0]['responses'][number]['id']}", samples_table(rows, number)]
    return "\n\n".join(parts)


def arguments_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("json", type=Path)
    parser.add_argument("--samples", type=int, default=3, help="prompts whose answers stand side by side")
    return parser.parse_args(words)


if __name__ == "__main__":
    given = arguments_of()
    print(page(json.loads(given.json.read_text(encoding="utf-8")), given.samples))

"""Markdown of what ``self_speculation.py`` measured.

python benchmarks/self_speculation_table.py results.json > docs/results/self_speculation.md
"""

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from t3d.evaluation.intervals import mean_interval

Row = dict[str, Any]
NUM_SHARED = {"make": 512}
"""Test problems of tasks that have no more, so that all seeds share them."""


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def pooled(rows: Sequence[Row]) -> Row:
    """One row of all tasks: counts added, offset by offset too."""
    total = {key: sum(row[key] for row in rows) for key in ("n", "num_correct", "tokens", "forwards")}
    for key in ("drafted_at", "accepted_at"):
        total[key] = [sum(column) for column in zip_longest(*(row[key] for row in rows), fillvalue=0)]
    bounds = [row["bound_forwards"] for row in rows]
    positions = sum(row["positions_per_token"] * row["tokens"] for row in rows) / total["tokens"]
    return total | {
        "bound_forwards": None if None in bounds else sum(bounds),
        "positions_per_token": positions,
    }


def by_setting(quality: Sequence[Row]) -> dict[tuple[str, float, str], list[Row]]:
    """The rows of all tasks, by model, temperature and setting."""
    found: dict[tuple[str, float, str], list[Row]] = {}
    for row in quality:
        found.setdefault((row["model"], row["temperature"], row["setting"]), []).append(row)
    return found


def quality_table(quality: Sequence[Row]) -> str:
    """Accuracy and tokens per forward of every model, setting and temperature."""
    lines = []
    for (model, temperature, setting), rows in by_setting(quality).items():
        row = pooled(rows)
        shares = [one["num_correct"] / one["n"] for one in rows]
        low, high = mean_interval(
            shares, [min(one["n"], NUM_SHARED.get(one["task"], one["n"])) for one in rows]
        )
        rate = row["tokens"] / row["forwards"]
        bound = f"{row['tokens'] / row['bound_forwards']:.2f}" if row["bound_forwards"] else ""
        share = f"{100 * rate / (row['tokens'] / row['bound_forwards']):.0f} %" if bound else ""
        lines.append(
            [
                *(model, setting, f"{temperature:g}"),
                f"{100 * row['num_correct'] / row['n']:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
                " / ".join(f"{100 * one['num_correct'] / one['n']:.1f}" for one in rows),
                *(f"{rate:.2f}", bound, share, f"{row['positions_per_token']:.1f}"),
            ]
        )
    header = ["model", "setting", "T", "accuracy %", "chain / make / code", "TPF", "bound", "of it"]
    return markdown([*header, "positions per token"], lines)


def acceptance_table(quality: Sequence[Row]) -> str:
    """How many drafts were right up to each offset."""
    lines = []
    for (model, temperature, setting), rows in by_setting(quality).items():
        for name, row in [*((row["task"], row) for row in rows), ("all", pooled(rows))]:
            if row["drafted_at"]:
                pairs = zip(row["accepted_at"], row["drafted_at"], strict=True)
                shares = [f"{accepted / drafted:.2f}" for accepted, drafted in pairs]
                lines.append([model, setting, f"{temperature:g}", name, *shares])
    width = max(len(line) for line in lines) - 4
    lines = [line + [""] * (4 + width - len(line)) for line in lines]
    return markdown(["model", "setting", "T", "task", *map(str, range(1, width + 1))], lines)


def agreement_table(agreement: Sequence[Row]) -> str:
    """Responses that differ from those without drafts, and by how much."""
    lines, has_draws = [], all("draws" in row for row in agreement)
    for row in agreement:
        said = [median_and_largest(row[name]) for name in ("gaps", "draws")[: 1 + has_draws]]
        different = f"{row['num_different']} of {row['n']}"
        lines.append([row["dtype"], f"{row['temperature']:g}", row["setting"], different, *said])
    header = ["precision", "T", "setting", "different responses", "gap in log-probability: median, largest"]
    return markdown([*header, *["distance of the draw: median, largest"] * has_draws], lines)


def median_and_largest(values: Sequence[float]) -> str:
    """Both, or nothing."""
    return f"{statistics.median(values):.2g}, {max(values):.2g}" if values else ""


def speed_table(speed: Sequence[Row]) -> str:
    """Visible tokens per second of every side, and how often those of the teacher's full steps."""
    rates = {(row["model"], row["setting"], row["batch"]): row["visible_tokens_per_second"] for row in speed}
    batches = sorted({row["batch"] for row in speed})
    sides = list(dict.fromkeys((row["model"], row["setting"]) for row in speed))
    lines = [
        [
            *side,
            *(
                f"{rates[*side, batch]:.0f} ({rates[*side, batch] / rates['teacher', 'B4-T1', batch]:.2f})"
                for batch in batches
            ),
        ]
        for side in sides
    ]
    return markdown(["model", "setting", *(f"batch {batch}" for batch in batches)], lines)


def command_of(arguments: dict[str, Any]) -> str:
    """What was run, without the folders of whoever ran it."""
    flags = [f"--student {item.split('=')[0]}=FOLDER" for item in arguments["student"]]
    flags += ["--drafter FOLDER"] if arguments["drafter"] else []
    flags += [f"--limit {arguments['limit']}", f"--seeds {arguments['seeds']}"]
    return " ".join(["python benchmarks/self_speculation.py --json results.json", *flags])


def sections(record: dict[str, Any]) -> list[str]:
    """Those of the parts that were measured."""
    found = []
    if "quality" in record:
        found += ["## Quality and tokens per forward", quality_table(record["quality"])]
        found += ["## Drafts that were right up to each offset"]
        found += [
            "Share of the drafts that had a token there; places behind the end of a response count, too,\n"
            "here and in `num_drafted` and `num_accepted` of completions and samples.",
            acceptance_table(record["quality"]),
        ]
    if "agreement" in record:
        limit = record["arguments"]["agreement_limit"]
        found += [
            "## The same text",
            f"Teacher, {limit} problems a task. In float64 the texts are equal (tests).",
        ]
        found += [
            "The gap is between the first two different tokens: how near a tie rounding decided at T = 0. Of "
            "sampled ones that is the distance of the draw: how far the uniform was, in float64, from the "
            "interval of the CDF that the other token has."
        ]
        found += [agreement_table(record["agreement"])]
    if "speed" in record:
        found += [
            "## Speed",
            "Visible tokens per second, prompts included; in brackets times the teacher's B4-T1.",
        ]
        found += [speed_table(record["speed"])]
    return found


def report(record: dict[str, Any]) -> str:
    """The whole page."""
    arguments, versions = record["arguments"], record["versions"]
    missing = [part for part in ("quality", "agreement", "speed") if part not in record]
    told = f" Not measured here: {', '.join(missing)}." if missing else ""
    intro = f"""PyTorch {versions["torch"]}, Python {versions["python"]}, float32, one thread.
{arguments["limit"]} held-out problems of each task, seeds 0 to {arguments["seeds"] - 1}; `make` has 512
in all, which its interval counts once. `self-speculative` drafts behind the last token checked, `-all`
behind each, `-auto` (timed only) where it pays. Every forward is counted, and every token that was
committed: block by block that includes what stands behind a stop in the last block, left to right nothing
does, so the tokens per forward of the former are flattered beside the latter. The bound is that of a
drafter that is always right. Parts may have been measured in runs of their own.{told}"""
    script = "python benchmarks/self_speculation_table.py results.json > self_speculation.md"
    commands = f"```sh\n{command_of(arguments)}\n{script}\n```"
    title = "# Self-speculative decoding of the mini suite"
    return "\n\n".join([title, commands, intro, *sections(record)])


if __name__ == "__main__":
    print(report(json.loads(Path(sys.argv[1]).read_text())))

"""Markdown of what ``next_token.py`` measured.

python benchmarks/next_token_table.py results.json > docs/results/smollm2.md
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from next_token import GENERATE, LOOKUP, PLAIN
from self_speculation_table import markdown

Row = dict[str, Any]


def batch_title(rows: list[Row], batch: int) -> str:
    """How many requests were really decoded together, where there were fewer than the batch has room for."""
    together = sorted({min(batch, row["n"]) for row in rows if row["batch"] == batch})
    if together == [batch]:
        return f"batch {batch}"
    return f"{' or '.join(map(str, together))} together (room for {batch})"


def speed_table(rows: list[Row], batch: int) -> str:
    """Every side at one batch size, by kind of prompts; ratios to the engine without drafts."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    lines = []
    for side in dict.fromkeys(row["side"] for row in rows if row["batch"] == batch):
        line = [side]
        for kind in kinds:
            own = {row["side"]: row for row in rows if row["kind"] == kind and row["batch"] == batch}
            row = own[side]
            rate = row["tokens"] / row["seconds"]
            ratio = rate / (own[PLAIN]["tokens"] / own[PLAIN]["seconds"])
            forwards = f"{row['tokens_per_forward']:.2f}" if "tokens_per_forward" in row else ""
            same = "" if side == GENERATE else f"{row['n'] - row['num_different']} of {row['n']}"
            line += [forwards, f"{rate:.1f}", f"{ratio:.2f}", same]
        lines.append(line)
    header = [f"{rows[0]['dtype']}, {batch_title(rows, batch)}"]
    for kind in kinds:
        header += [f"{kind}: TPF", "tokens/s", "ratio", "same text"]
    return markdown(header, lines)


def drafts_table(rows: list[Row]) -> str:
    """Tokens per forward with an interval over prompts, and how many drafts were right up to each offset."""
    lines = []
    for row in rows:
        shares = zip(row["accepted_at"], row["drafted_at"], strict=True)
        spread = 1.96 * statistics.stdev(row["rates"]) / len(row["rates"]) ** 0.5
        rate, positions = row["tokens"] / row["forwards"], row["positions_per_token"]
        line = [row["kind"], row["side"], row["n"], f"{rate:.2f} ± {spread:.2f}", f"{positions:.1f}"]
        lines.append(line + [f"{right / all:.2f}" for right, all in shares])
    longest = max((len(line) for line in lines), default=5)
    header = ["prompts", "drafts", "n", "tokens per forward", "positions per token"]
    header += [f"first {offset}" for offset in range(1, longest - 4)]
    return markdown(header, [line + [""] * (longest - len(line)) for line in lines])


def sameness_table(rows: list[Row]) -> str:
    """Responses that are not those without drafts, and how close a call the first difference was."""
    lines = []
    for row in rows:
        gaps = sorted((abs(one["gap"]) for one in row["parted"] if one["gap"] == one["gap"]), reverse=True)
        places = ", ".join(str(one["place"]) for one in row["parted"])
        parted = f"{len(row['parted'])} of {row['n']}"
        lines.append([row["dtype"], row["side"], parted, places, ", ".join(f"{gap:.3f}" for gap in gaps)])
    header = ["precision", "drafts", "different", "first different token", "gap in log-probability"]
    return markdown(header, lines)


def main() -> None:
    """Print all tables."""
    record = json.loads(Path(sys.argv[1]).read_text())
    speed, told = record.get("speed", []), record["arguments"]
    if "drafts" in record:
        print(f"{told['drafts']['max_new_tokens']} tokens at most:\n")
        print(drafts_table(record["drafts"]), end="\n\n")
    if speed:
        own = told["speed"]
        print(f"Speed: {own['timed']} prompts of a kind, {own['max_new_tokens']} tokens at most, ", end="")
        rounds = "one round" if own["rounds"] == 1 else f"the best of {own['rounds']} rounds"
        print(f"{own['threads']} threads, {rounds}.\n")
    for dtype, batch in dict.fromkeys((row["dtype"], row["batch"]) for row in speed):
        print(speed_table([row for row in speed if row["dtype"] == dtype], batch), end="\n\n")
    if speed:
        print(f"Same text: as `{GENERATE}`. `{LOOKUP}` is for batch 1 alone.\n")
    if "sameness" in record:
        own = told["sameness"]
        print(
            f"Beside no drafts, {own['timed']} prompts of a kind, {own['max_new_tokens']} tokens at most:\n"
        )
        print(sameness_table(record["sameness"]))


if __name__ == "__main__":
    main()

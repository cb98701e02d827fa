"""Markdown of the decoding benchmark and of the agreement of dtypes.

python benchmarks/decoding.py --json | tail -n 1 > docs/results/decoding.json
python benchmarks/decoding_agreement.py > docs/results/decoding_agreement.md
python benchmarks/decoding_table.py docs/results/decoding.json docs/results/decoding_agreement.md \
    > docs/results/decoding.md
"""

import json
import sys
from pathlib import Path

SIDES = ("sdar_loop", "reprefill", "separate")
HEADER = """# Decoding speed

```sh
python benchmarks/decoding.py --json | tail -n 1 > docs/results/decoding.json
python benchmarks/decoding_agreement.py > docs/results/decoding_agreement.md
python benchmarks/decoding_table.py docs/results/decoding.json docs/results/decoding_agreement.md \\
    > docs/results/decoding.md
```

Greedy, float32, {threads} threads, all sides in one process on the same weights and prompts; the best of
several rounds counts (the engine: three). `sdar_loop`: one request at a time, a commit forward per block,
logits everywhere (the algorithm of SDAR's generate.py). `reprefill`: a static batch that runs the whole
prefix again for each block (the algorithm of dllm's sampler for block diffusion). `separate`: the engine
with a forward for each commit and prompt. Cells: the engine's tokens/s over the side's, then in brackets
the *bound* of that ratio: what the two algorithms allow on this machine, from measured times of plain
forwards by their number of tokens. `equal`: least share of responses that are token for token the
engine's. {versions}

"""


def headline(ratios: dict[str, float]) -> str:
    """The ratios that the benchmark is about, with the goals that were set for them."""
    goals = {
        "engine_vs_sdar_loop": "20",
        "engine_vs_reprefill": "3",
        "fused_vs_unfused_s1_batch1": "1.6",
        "fused_vs_unfused_min": "0.98",
    }
    lines = ["| ratio | measured | bound | goal |", "|---|---|---|---|"]
    for name, goal in goals.items():
        bound = ratios.get(f"{name}_bound")
        lines.append(f"| {name} | {ratios[name]:.2f} | {'' if bound is None else f'{bound:.2f}'} | {goal} |")
    return "\n".join(lines)


def table(rows: list[dict]) -> str:
    """One line per setting."""
    head = ["model", "batch", "B", "steps", "tokens/s", *SIDES, "forwards per block", "peak MiB", "equal"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row["model"], row["batch"], row["block_size"], row["steps"]]
        cells += [f"{row['tokens_per_second']['engine']:.0f}"]
        cells += [f"{row['ratio'][side]:.2f} ({row['bound'][side]:.2f})" for side in SIDES]
        # With several rows in a forward, a block's share of it
        cells += [" / ".join(f"{row['forwards_per_block'][side]:.2f}" for side in (*SIDES, "engine"))]
        cells += [" / ".join(f"{row['peak_mib'][side]:.0f}" for side in (*SIDES, "engine"))]
        cells += [f"{min(row['equal_outputs'].values()):.2f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the report."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    names = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    print(HEADER.format(threads=report["threads"], versions=names + "."))
    print("## Headline\n")
    print("Bundled teacher, 64 prompts, geometric means over the six settings; the third ratio is that of")
    print("batch 1, one step per block, the last the smallest of the whole table.\n")
    print(headline(report["ratios"]))
    print(
        "\n## All settings\n\nForwards per block, peak memory: sdar_loop / reprefill / separate / engine.\n"
    )
    print(table(report["rows"]))
    print("\n## Agreement with float64\n")
    print(
        "Bundled teacher, held-out problems; percent of tokens at their position, of whole responses, and\n"
        "of responses with the same order of commits, that float64 decodes as well. Near-ties of confidence\n"
        "or of two tokens flip.\n"
    )
    print(Path(sys.argv[2]).read_text(encoding="utf-8").strip())


if __name__ == "__main__":
    main()

"""Markdown of the training benchmark.

python benchmarks/training.py --json | tail -n 1 > docs/results/training.json
python benchmarks/training_table.py docs/results/training.json > docs/results/training.md
"""

import json
import sys
from pathlib import Path

GOALS = {"vs_authors": (">=", 10.0), "vs_careful": (">=", 3.0), "peak_memory_vs_authors": ("<=", 0.2)}
HEADER = """# Training speed

```sh
python benchmarks/training.py --json | tail -n 1 > docs/results/training.json
python benchmarks/training_table.py docs/results/training.json > docs/results/training.md
```

Preset `released`, float32, {threads} threads, all sides in one process on the same weights, noisy states and
fake tokens: {num_samples} trajectories per optimizer step, of lengths like GSM8K's with a tail up to 1,024.
`authors_step`: the algorithm of the authors' released step (every sample alone, padded to {prompt} + 2 x
{response} tokens; four full forwards; all logits). `careful_step`: two forwards, padding per batch, logits of
the noisy copy only. `ours`: the trainer. Random model of 8 layers, width 256, vocabulary 151,936. A step is
collation, forward, backward, clipping and AdamW; ratios are of the best rounds. Peak memory: one
micro-batch with the data set's longest response, above models and data. Micro-batches of {micro_batch}, of
`authors_step` 1 (all of them cost the same: some are timed, the rest extrapolated); gradient
checkpointing {checkpointing}. {versions}
"""


def goals(ratios: dict[str, float]) -> str:
    """The ratios that the benchmark is about, with the goals that were set for them."""
    lines = ["| ratio | measured | goal | met |", "|---|---|---|---|"]
    for name, (sign, goal) in GOALS.items():
        is_met = ratios[name] >= goal if sign == ">=" else ratios[name] <= goal
        lines.append(f"| {name} | {ratios[name]:.2f} | {sign} {goal:g} | {'yes' if is_met else 'no'} |")
    return "\n".join(lines)


def table(rows: list[dict]) -> str:
    """One line per side."""
    head = [
        "side",
        "s per step, best",
        "s per step, median",
        "rounds",
        "samples timed",
        "samples/s",
        "peak MiB",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row["side"], f"{row['seconds_best']:.2f}", f"{row['seconds_median']:.2f}", row["rounds"]]
        cells += [row["timed_samples"], f"{row['samples_per_second']:.3f}", f"{row['peak_mib']:.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the report."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    names = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    prompt, response = report["widths"]
    fields = {name: report[name] for name in ("threads", "num_samples", "micro_batch")}
    fields["checkpointing"] = "on" if report["gradient_checkpointing"] else "off"
    print(HEADER.format(**fields, prompt=prompt, response=response, versions=names + "."))
    print("## Goals\n")
    print(goals(report["ratios"]))
    print("\n## Sides\n")
    print(table(report["rows"]))
    print(
        f"\nLargest difference of a side's loss from ours: {report['loss_abs_diff']:.1e}; "
        f"of the gradient's norm, relative: {report['grad_norm_rel_diff']:.1e}."
    )
    print("\n## Where the trainer's time goes\n")
    print("Percent of forward and backward; the first two with all that they call.\n")
    print("| part | % |\n|---|---|")
    for name, share in report["profile"].items():
        print(f"| {name} | {share:.1f} |")


if __name__ == "__main__":
    main()

"""Markdown report of demo runs with different seeds.

for seed in 0 1 2; do t3d demo --output runs/demo-$seed --seed $seed; done
python benchmarks/demo_table.py runs/demo-0 runs/demo-1 runs/demo-2 > docs/results/demo.md
"""

import json
import sys
from pathlib import Path
from statistics import mean

GROUPS = {
    "B4/B8 at TokPS 4": ("B4-T4", "B8-T4"),
    "B4/B8 at TokPS 2": ("B4-T2", "B8-T2"),
    "B4/B8 at TokPS 1": ("B4-T1", "B8-T1"),
}

HEADER = """# The demo, three seeds

```sh
for seed in 0 1 2; do t3d demo --output runs/demo-$seed --seed $seed; done
python benchmarks/demo_table.py runs/demo-0 runs/demo-1 runs/demo-2 > docs/results/demo.md
```

A seed draws the training prompts, the held-out prompts, the sampling noise and the training noise; the
bundled teacher is the same. Accuracy in percent on {n} held-out prompts of `chain` per cell, temperature
0.1, 95 % Wilson intervals. `B8-T4`: blocks of 8, four tokens per denoising step; `B4-dynamic`: all tokens
above confidence 0.9. TPF counts commit forwards. {versions}
"""


def accuracy(summary: dict, model: str, settings: tuple[str, ...]) -> float:
    """Mean accuracy of a model over settings, percent."""
    return mean(summary["models"][model][setting]["accuracy"]["mean"] for setting in settings)


def cell(entry: dict) -> str:
    """``73.2 [69.2, 76.9]``."""
    low, high = entry["ci95"]["mean"]
    return f"{entry['accuracy']['mean']:.1f} [{low:.1f}, {high:.1f}]"


def main(folders: list[str]) -> None:
    """Print the report of the runs in these folders."""
    summaries = [json.loads((Path(folder) / "summary.json").read_text()) for folder in folders]
    first = summaries[0]["models"]["teacher"]
    names = ", ".join(f"{name} {number}" for name, number in summaries[0]["versions"].items())
    print(HEADER.format(n=next(iter(first.values()))["n"], versions=names + "."))
    print("## Student minus teacher\n")
    seeds = " | ".join(f"seed {summary['seed']}" for summary in summaries)
    print(f"| points | {seeds} |\n|---|{'---|' * len(summaries)}")
    for name, settings in GROUPS.items():
        gains = [accuracy(s, "student", settings) - accuracy(s, "teacher", settings) for s in summaries]
        print(f"| {name} | {' | '.join(f'{gain:+.1f}' for gain in gains)} |")
    kept = [100 * accuracy(s, "student", ("B4-T1",)) / accuracy(s, "teacher", ("B4-T1",)) for s in summaries]
    print(f"| B4-T1 kept, % of the teacher's | {' | '.join(f'{share:.1f}' for share in kept)} |")
    for summary in summaries:
        teacher, student = summary["models"]["teacher"], summary["models"]["student"]
        print(
            f"\n## Seed {summary['seed']}, {summary['method']}, {summary['seconds']['total']:.0f} seconds\n"
        )
        print("| setting | TokPS | TPF | teacher | student | difference |\n|---|---|---|---|---|---|")
        for setting in teacher:
            before, after = teacher[setting], student[setting]
            gain = after["accuracy"]["mean"] - before["accuracy"]["mean"]
            cost = f"{after['tokens_per_step']:.2f} | {after['tokens_per_forward']:.2f}"
            print(f"| {setting} | {cost} | {cell(before)} | {cell(after)} | {gain:+.1f} |")
        times = ", ".join(f"{name} {value:.0f}" for name, value in summary["seconds"].items())
        print(f"\nSeconds: {times}.")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Markdown of the oracle beside models, from the JSON that ``t3d mini oracle`` writes.

t3d mini oracle --models mini mini-small --output docs/results/oracle.json
python benchmarks/oracle_table.py docs/results/oracle.json > docs/results/oracle.md
"""

import json
import sys
from pathlib import Path
from statistics import mean

from t3d.evaluation.intervals import wilson_interval
from t3d.report.console import accuracy_text

GROUPS = (("B4-T1",), ("B8-T1",), ("B4-T2", "B8-T2"), ("B4-T4", "B8-T4"), ("B8-T8",), ("B4-dynamic",))
HEADER = """# The oracle beside the bundled teachers

```sh
t3d mini oracle --models {models} --output {path}
python benchmarks/oracle_table.py {path} > docs/results/oracle.md
```

Accuracy in percent on {n} held-out problems per task, temperature 0.1, 95 % Wilson intervals. `B8-T4`: blocks
of 8, four tokens per denoising step; `B4-dynamic`: all tokens above confidence 0.9. The oracle is the exact
posterior over a problem's solutions, decoded by the rule that the models follow; the last column is how far
`{first}` is above it. {versions}

Where a model is above the oracle it is not a better posterior. A reading: the oracle gives even choices even
probabilities, commits equally sure tokens from left to right and draws each by itself; a model's small
errors break such ties, and what is committed first then tells which choice was made more often. One test of
it: Gaussian noise of 0.1 on the oracle's own logits lifted `make` at B8-T2 from 75 to 85 (an earlier version
of the task, n = 150). `chain` was not tested.
"""


def main(path: str) -> None:
    """Print the report of this file."""
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    rows, models = report["rows"], report["config"]["models"]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    names = ["oracle", *models]
    fields = {"models": " ".join(models), "path": path, "n": rows[0]["n"], "first": models[0]}
    print(HEADER.format(**fields, versions=versions + "."))
    print(f"| task | setting | {' | '.join(names)} | {models[0]} - oracle |")
    print(f"|---|---|{'---|' * (len(names) + 1)}")
    for row in rows:
        percent = {name: 100 * row["num_correct"][name] / row["n"] for name in names}
        bounds = {name: wilson_interval(row["num_correct"][name], row["n"]) for name in names}
        cells = [accuracy_text(percent[name], [100 * bound for bound in bounds[name]]) for name in names]
        gap = percent[models[0]] - percent["oracle"]
        print(f"| {row['task']} | {row['setting']} | {' | '.join(cells)} | {gap:+.1f} |")
    print(f"\n## Means over the tasks\n\n| settings | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for settings in GROUPS:
        chosen = [row for row in rows if row["setting"] in settings]
        means = [mean(100 * row["num_correct"][name] / row["n"] for row in chosen) for name in names]
        print(f"| {', '.join(settings)} | {' | '.join(f'{value:.1f}' for value in means)} |")


if __name__ == "__main__":
    main(sys.argv[1])

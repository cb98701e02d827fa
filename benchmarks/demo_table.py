"""Markdown report of demo runs with different seeds.

for seed in 0 1 2; do t3d demo --output runs/demo-$seed --seed $seed --limit 512; done
python benchmarks/demo_table.py runs/demo-0 runs/demo-1 runs/demo-2 > docs/results/demo.md
"""

import json
import sys
from pathlib import Path

from t3d.report.demo_table import markdown_report

if __name__ == "__main__":
    folders = sys.argv[1:]
    summaries = [json.loads((Path(folder) / "summary.json").read_text()) for folder in folders]
    print(markdown_report(summaries, folders))

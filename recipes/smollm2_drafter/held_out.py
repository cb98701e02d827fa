"""Questions of a benchmark's test split as JSON lines: python held_out.py gsm8k 24 hub (or its folder)."""

import json
import sys

from t3d.problems.hub import HUB, benchmark_folder
from t3d.tasks.benchmarks import load_benchmark

name, count, data = sys.argv[1:]
task = load_benchmark(name, benchmark_folder(name) if data == HUB else data)
for problem in task.problems("test", int(count), 0):
    print(json.dumps({"id": problem.id, "question": problem.question}))

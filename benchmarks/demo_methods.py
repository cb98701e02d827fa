"""The curves of demos of several methods, beside their teacher's: a plot, and a table on stdout.

t3d demo --output runs/demo-0 --limit 512
t3d demo --method t3d-plus --output runs/demo-plus --limit 512
python benchmarks/demo_methods.py runs/demo-0 runs/demo-plus --plot docs/results/demo_methods.png
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from t3d.errors import InputError
from t3d.report.console import accuracy_text
from t3d.report.markdown import markdown_table
from t3d.report.plots import plot_lines
from t3d.report.points import FORWARDS, setting_lines


def main(argv: Sequence[str] | None = None) -> None:
    """Read the summaries, plot and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args(argv)
    summaries = [json.loads((Path(folder) / "summary.json").read_text()) for folder in options.folders]
    teacher = summaries[0]["models"]["teacher"]
    models = {"teacher": teacher}
    for folder, summary in zip(options.folders, summaries, strict=True):
        told = summary["models"]["teacher"]
        if any(told[name]["accuracy"] != teacher[name]["accuracy"] for name in teacher):
            problem = "its teacher answered otherwise, so its prompts are others"
            raise InputError("folders", folder, problem, "use demos of one seed and limit")
        models[summary["method"]] = summary["models"]["student"]
    if options.plot is not None:
        title = "accuracy of the teacher and of students by method"
        lines = setting_lines(models, subject=summaries[-1]["method"])
        plot_lines(lines, Path(options.plot), title, xlabel=FORWARDS, has_powers=True)
    body = [[name, *(_text(models[method][name]) for method in models)] for name in teacher]
    print(markdown_table(["setting", *models], body))
    for summary in summaries:
        print(f"{summary['method']}: {summary['seconds']['total']:.0f} s")


def _text(found: dict) -> str:
    accuracy = found["accuracy"]
    return accuracy_text(accuracy["mean"], found["ci95"]["mean"])


if __name__ == "__main__":
    main()

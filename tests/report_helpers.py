"""What tests of report.html share: folders as commands leave them."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from viewer_helpers import graded, write_lines

ELEMENTS = {
    *("html", "head", "meta", "link", "title", "style", "body", "header", "h1", "h2", "h3", "h4", "p", "dl"),
    *("div", "dt", "dd", "fieldset", "label", "input", "figure", "figcaption", "svg", "path", "text", "ul"),
    *("li", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "span", "bdi"),
}
"""Of which a report consists; no script, no link that leads anywhere."""


def entry(setting: str = "B4-T1", task: str = "chain", num_correct: int = 3, **fields: Any) -> dict[str, Any]:
    """Of results.json: of four answers so many are right."""
    accuracy = 25.0 * num_correct
    return {
        "setting": setting,
        "task": task,
        "accuracy": accuracy,
        "ci95": [max(0.0, accuracy - 20), min(100.0, accuracy + 20)],
        "n": 4,
        "num_correct": num_correct,
        "num_prompts": 4,
        "tokens_per_step": 1.0,
        "tokens_per_forward": 1.0,
        "tokens_per_second": 100.0,
        "seconds": 1.0,
        "latency": 0.25,
        "mean_denoising_steps": 10.0,
        "mean_length": 25.0,
        "stopped": 1.0,
        **fields,
    }


def write_evaluation(folder: Path, *entries: dict[str, Any], rows: Any = None, **record: Any) -> Path:
    """results.json and samples.jsonl, whose rows are a right and a wrong answer unless others are given."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"results": list(entries), "config": {"model": "mini", "seed": 0}}
    told |= {"versions": {"python": "3.11.7", "t3d": "0.1.0"}, "model": {"dtype": "torch.float32"}}
    (folder / "results.json").write_text(json.dumps(told | record))
    rows = [graded("a", correct=True), graded("b", correct=False)] if rows is None else rows
    write_lines(folder / "samples.jsonl", *rows)
    return folder


def write_demo_like(folder: Path) -> Path:
    """Teacher and student, two settings and two tasks each, and the logs of two rounds."""
    for name, right in (("teacher", (4, 4, 1, 1)), ("student", (4, 3, 3, 3))):
        cells = [
            ("B4-T1", "chain", 1.0),
            ("B4-T1", "make", 1.0),
            ("B4-T4", "chain", 3.9),
            ("B4-T4", "make", 3.8),
        ]
        entries = [
            entry(setting, task, count, tokens_per_forward=forwards, tokens_per_second=200 * forwards)
            for (setting, task, forwards), count in zip(cells, right, strict=True)
        ]
        write_evaluation(folder / "evaluations" / name, *entries)
    for name in ("student-1", "student"):
        write_lines(folder / f"{name}.log.jsonl", *log_entries())
    (folder / "config.yaml").write_text("seed: 0\nmethod: t3d\n")
    return folder


def log_entries(num: int = 5) -> list[dict[str, Any]]:
    """Of a training."""
    found: list[dict[str, Any]] = [
        {
            "step": 10 * number,
            "loss": 2.0 / number,
            "loss/total": 2.0 / number,
            "loss/path": 1.0 / number,
            "nll/mask_ratio_1": 1.5 / number,
            "grad_norm": 1.0,
            "learning_rate": 1e-4 * number,
        }
        for number in range(1, num + 1)
    ]
    return [
        *found,
        {"step": 10 * num, "eval_few_step_accuracy": 70.0},
        {"step": 10 * num, "train_runtime": 12.0},
    ]


class Read(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        """Every element."""
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        """What is read."""
        self.text += data

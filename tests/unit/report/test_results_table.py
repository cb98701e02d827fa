"""The table of an evaluation fits a terminal and says below what its columns mean."""

import io

from rich.console import Console

from t3d.report.console import results_table

ENTRY = {
    "task": "humaneval",
    "setting": "B4-self-speculative",
    "accuracy": 73.2,
    "ci95": (69.2, 76.9),
    "tokens_per_step": 1.0,
    "tokens_per_forward": 0.8,
    "tokens_per_second": 10758.2,
    "latency": 0.0123,
    "mean_denoising_steps": 155.5,
    "mean_length": 155.5,
    "stopped": 0.25,
}


def test_every_column_of_costs_is_explained_below_in_80_columns():
    table = results_table([ENTRY], title="mini")
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = [number for number, line in enumerate(lines) if "humaneval" in line]
    below = " ".join(line.strip() for line in lines[row + 1 :])
    names = [str(column.header) for column in table.columns[3:]]
    assert names == ["TokPS", "TPF", "tok/s", "s", "steps", "length", "end %"]
    for name in names:
        assert f" {name}: " in f" {below}" or f"{name}, " in below, name

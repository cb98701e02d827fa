"""The plots of a reproduction: per teacher, what each table shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from t3d.report.plots import FORWARDS, Bar, plot_bars, plot_lines
from t3d.reproduce.recipes import LAMBDAS, ORIGINAL, Demand
from t3d.reproduce.settings import DYNAMIC, GRID_SETTINGS, LAMBDA_SETTINGS
from t3d.reproduce.suites import Suite
from t3d.reproduce.summaries import AVERAGE, CURVES, Entry, Records, Rows
from t3d.reproduce.tables import TITLES, method_title

_FULL = "full steps (block size 4)"
_BARS: dict[int, dict[str, str]] = {
    1: {_FULL: "B4-T1", "2 tokens per step": "T2", "4 tokens per step": "T4"},
    2: {_FULL: "B4-T1"},
    3: {"confidence of the model's own": DYNAMIC[0], "confidence as sampled": DYNAMIC[1]},
    5: {_FULL: GRID_SETTINGS[0]},
    6: {"block size 8, 2 tokens per step": GRID_SETTINGS[1]},
    7: {"block size 8, 4 tokens per step": GRID_SETTINGS[2]},
}
"""Groups of bars of a table, and the setting that each shows."""


def write_plots(
    suite: Suite, found: Sequence[tuple[Demand, Records]], entries: Sequence[Entry], output: Path
) -> list[Path]:
    """A plot per table and teacher, and Table 1's accuracy-TPF curves; returns their paths."""
    paths = []
    tasks = f"mean over {', '.join(suite.tasks)}"
    for teacher, name in _names(list(dict.fromkeys(entry.teacher for entry in entries))).items():
        for table in sorted({entry.table for entry in entries if entry.teacher == teacher}):
            accuracies = {
                (entry.setting, entry.method): _bar(entry)
                for entry in entries
                if (entry.table, entry.teacher, entry.task) == (table, teacher, AVERAGE)
                and entry.metric == "accuracy"
            }
            paths.append(output / f"table{table}-{name}.png")
            _table_plot(table, accuracies, paths[-1], f"Table {table}: {name}, {tasks}")
        rows = [
            Rows(suite, demand, records)
            for demand, records in found
            if (demand.table, demand.teacher) == (1, teacher) and set(CURVES["B4"]) <= set(demand.settings)
        ]
        for block, settings in CURVES.items() if rows else ():
            curves = {TITLES[item.demand.method]: _curve(item, settings) for item in rows}
            paths.append(output / f"accuracy-tpf-{name}-{block}.png")
            title = f"{name}, block size {block[1:]}, {tasks}"
            annotated = (TITLES[ORIGINAL], TITLES["t3d"])
            plot_lines(curves, paths[-1], title, xlabel=FORWARDS, annotated=annotated)
    return paths


def _names(teachers: Sequence[str]) -> dict[str, str]:
    """By teacher the name of its folder; a second one with the same name gets ``-2`` behind it."""
    names: dict[str, str] = {}
    for teacher in teachers:
        name = Path(teacher).name
        earlier = sum(Path(other).name == name for other in names)
        names[teacher] = f"{name}-{earlier + 1}" if earlier else name
    return names


def _table_plot(table: int, accuracies: Mapping[tuple[str, str], Bar], path: Path, title: str) -> None:
    """Bars, of Table 4 lines; ``accuracies`` are by setting and method."""
    if table == 4:
        methods = list(dict.fromkeys(method for _, method in accuracies))  # in the order of LAMBDAS
        lines = {
            setting: {m: (value, accuracies[setting, m]) for value, m in zip(LAMBDAS, methods, strict=True)}
            for setting in LAMBDA_SETTINGS
        }
        plot_lines(lines, path, title, xlabel="lambda (weight of the path term)")
        return
    groups = {
        group: {method_title(m): bar for (s, m), bar in accuracies.items() if s == setting}
        for group, setting in _BARS[table].items()
    }
    if len(groups) == 1:
        title += f"\n{next(iter(groups))}"
    plot_bars(groups, path, title, baseline=TITLES[ORIGINAL])


def _bar(entry: Entry) -> Bar:
    assert entry.ci95 is not None
    return Bar(value=entry.mean, low=entry.ci95[0], high=entry.ci95[1])


def _curve(rows: Rows, settings: Sequence[str]) -> dict[str, tuple[float, Bar]]:
    return {
        setting: (
            mean(rows.values(setting, AVERAGE, "tokens_per_forward")),
            _bar(rows.accuracy_entry(setting, AVERAGE)),
        )
        for setting in settings
    }

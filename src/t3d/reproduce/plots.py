"""The plots of a reproduction: per teacher, what each table shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from t3d.report.plots import plot_gains, plot_lines
from t3d.report.points import FORWARDS, Bar, Line
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


def plot_paths(shown: Sequence[tuple[int, str]], output: Path) -> list[Path]:
    """Where :func:`write_plots` may write for these tables and teachers."""
    names = _names(list(dict.fromkeys(teacher for _, teacher in shown)))
    bars = [output / f"table{table}-{names[teacher]}.png" for table, teacher in dict.fromkeys(shown)]
    curves = [output / f"accuracy-tpf-{name}-{block}.png" for name in names.values() for block in CURVES]
    return bars + curves


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
            lines = [_curve(item, settings) for item in rows]
            paths.append(output / f"accuracy-tpf-{name}-{block}.png")
            title = f"{name}, block size {block[1:]}, {tasks}\n{_leader(lines, settings[-1])}"
            plot_lines(lines, paths[-1], title, xlabel=FORWARDS, has_powers=True)
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
    """Gains over the original, of Table 4 lines; ``accuracies`` are by setting and method."""
    if table == 4:
        methods = list(dict.fromkeys(method for _, method in accuracies))
        of_lambdas = dict(zip(LAMBDAS, methods, strict=False))  # the others are added rows, which have none
        lines = [
            Line(
                name=setting,
                points={m: (v, accuracies[setting, m]) for v, m in of_lambdas.items()},
                is_subject=setting == LAMBDA_SETTINGS[-1],
            )
            for setting in LAMBDA_SETTINGS
        ]
        spans = {line.name: _span([bar.value for _, bar in line.points.values()]) for line in lines}
        widest = max(spans, key=spans.__getitem__)
        title += f"\nlambda changes accuracy by {spans[widest]:.1f} points at most ({widest})"
        plot_lines(lines, path, title, xlabel="lambda (weight of the path term)")
        return
    groups = {
        group: {method_title(m): bar for (s, m), bar in accuracies.items() if s == setting}
        for group, setting in _BARS[table].items()
    }
    group, bars = list(groups.items())[-1]
    title += f"\n{group}:\n{_sentence({method: bar.value for method, bar in bars.items()})}"
    plot_gains(groups, path, title, baseline=TITLES[ORIGINAL], subject=TITLES["t3d"])


def _span(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _sentence(values: Mapping[str, float]) -> str:
    """Which method is best, and where T3D and the original stand."""
    best = max(values, key=values.__getitem__)
    named = [f"{_short(best)} is best with {values[best]:.1f} %"]
    for method in (TITLES["t3d"], TITLES[ORIGINAL]):
        if method in values and method != best:
            named.append(f"{_short(method)} has {values[method]:.1f} %")
    return ", ".join(named)


def _short(title: str) -> str:
    """A method's name without what stands in brackets behind it."""
    return "the original" if title == TITLES[ORIGINAL] else title.partition(" (")[0]


def _bar(entry: Entry) -> Bar:
    assert entry.ci95 is not None
    return Bar(value=entry.mean, low=entry.ci95[0], high=entry.ci95[1])


def _curve(rows: Rows, settings: Sequence[str]) -> Line:
    points = {
        setting: (
            mean(rows.values(setting, AVERAGE, "tokens_per_forward")),
            _bar(rows.accuracy_entry(setting, AVERAGE)),
        )
        for setting in settings
    }
    method = rows.demand.name
    is_labelled = method in (ORIGINAL, "t3d")
    name = method_title(method)
    return Line(name=name, points=points, is_subject=method == "t3d", is_labelled=is_labelled)


def _leader(lines: Sequence[Line], setting: str) -> str:
    """The title's sentence: what the curves show where the fewest steps are taken."""
    values = {line.name: line.points[setting][1].value for line in lines}
    return f"{setting}: {_sentence(values)}"

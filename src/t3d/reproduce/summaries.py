"""From finished cells to the numbers of the tables: means and intervals over prompts and seeds."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import mean
from typing import Any

from t3d.evaluation.aup import accuracy_under_parallelism
from t3d.evaluation.intervals import seeds_interval
from t3d.reproduce.paired import paired_difference
from t3d.reproduce.paper import METRICS, PAPER_TASKS, paper_mean, printed
from t3d.reproduce.recipes import ORIGINAL, Demand
from t3d.reproduce.settings import DIVERSITY, DYNAMIC, FEW_STEPS, STATIC_SETTINGS
from t3d.reproduce.suite_data import shared_share
from t3d.reproduce.suites import Suite

AVERAGE = "average"
"""The mean over the suite's tasks."""
PAIRED_TO_ORIGINAL, PAIRED_TO_BEST = "paired_to_original", "paired_to_best"
"""Metrics: points above the teacher, and above (mostly below) the method with the best average, on the same
prompts."""
GROUPS = {"T2": FEW_STEPS[:2], "T4": FEW_STEPS[2:]}
"""Settings that Table 1 averages over."""
CURVES = {block: tuple(name for name in STATIC_SETTINGS if name.startswith(block)) for block in ("B4", "B8")}
"""Settings of an accuracy-TPF curve, by block size."""

Records = Mapping[tuple[int, str], Mapping[str, Any]]
"""Records of a demand's cells by seed and setting."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One number of a table, ours and the paper's; accuracies in percent."""

    table: int
    teacher: str
    paper_model: str
    method: str
    setting: str
    task: str
    metric: str
    mean: float
    ci95: tuple[float, float] | None
    seeds: tuple[int, ...]
    n: int
    """Responses, over all seeds."""
    paper: float | None
    """The printed number of the same task, or, for our average, the paper's average."""
    paper_is_printed: bool
    """False: the mean of printed cells, which the paper itself does not print."""
    config_hashes: tuple[str, ...]
    commands: tuple[str, ...]


def _single(setting: str) -> tuple[str, ...]:
    """The decoding settings that a setting of a table, which may be a group or a curve, stands for."""
    return GROUPS.get(setting) or CURVES.get(setting) or (setting,)


class Rows:
    """The rows of a demand's cells by seed, setting and task."""

    def __init__(self, suite: Suite, demand: Demand, records: Records) -> None:
        self.suite, self.demand, self.records = suite, demand, records
        self.rows = {
            (seed, setting, row["task"]): row
            for (seed, setting), record in records.items()
            for row in record["results"]
        }

    def _tasks(self, task: str) -> tuple[str, ...]:
        return self.suite.tasks if task == AVERAGE else (task,)

    def accuracy(self, seed: int, settings: Sequence[str], task: str) -> float:
        """As a fraction, over these settings."""
        rows = [self.rows[seed, setting, task] for setting in settings]
        return mean(row["num_correct"] / row["n"] for row in rows)

    def values(self, setting: str, task: str, metric: str) -> list[float]:
        """One value of a row per seed; of ``average`` the tasks' mean."""
        tasks = self._tasks(task)
        return [mean(self.rows[seed, setting, name][metric] for name in tasks) for seed in self.demand.seeds]

    def entry(
        self, setting: str, task: str, metric: str, value: float, ci95: tuple[float, float] | None = None
    ) -> Entry:
        """An entry of this demand. ``setting`` may also be a group of Table 1 or a curve."""
        names = _single(setting)
        tasks = self._tasks(task)
        rows = [self.rows[s, name, t] for s in self.demand.seeds for name in names for t in tasks]
        records = [self.records[seed, name] for seed in self.demand.seeds for name in names]
        paper, is_printed = self._paper(setting, task, metric)
        return Entry(
            table=self.demand.table,
            teacher=self.demand.teacher,
            paper_model=self.suite.teachers[self.demand.teacher],
            method=self.demand.name,
            setting=setting,
            task=task,
            metric=metric,
            mean=round(value, 4),
            ci95=None if ci95 is None else (round(ci95[0], 4), round(ci95[1], 4)),
            seeds=self.demand.seeds,
            n=sum(row["n"] for row in rows),
            paper=None if paper is None else round(paper, 4),
            paper_is_printed=is_printed,
            config_hashes=tuple(record["config_hash"] for record in records),
            commands=tuple(record["command"] for record in records),
        )

    def accuracy_entry(self, setting: str, task: str) -> Entry:
        """Accuracy with its interval. Settings of a group share their prompts, which count once."""
        names = _single(setting)
        tasks = self._tasks(task)
        seeds = self.demand.seeds
        counts = {name: self.rows[seeds[0], names[0], name]["num_prompts"] for name in tasks}
        per_seed = [
            ([self.accuracy(seed, names, name) for name in tasks], list(counts.values())) for seed in seeds
        ]
        shared = [shared_share(self.suite.data, name, count, seeds) for name, count in counts.items()]
        centre, low, high = (100 * value for value in seeds_interval(per_seed, shared))
        return self.entry(setting, task, "accuracy", centre, (low, high))

    def minus(self, base: "Rows", setting: str) -> tuple[float, float, float] | None:
        """Average accuracy minus that of another method on the same prompts, as fractions, with its interval;
        None where not all cells have verdicts."""
        names = _single(setting)
        seeds = self.demand.seeds
        return paired_difference(
            self.suite.data,
            self.records[seeds[0], names[0]]["config"]["evaluation"]["limit"],
            base.rows,
            self.rows,
            seeds=seeds,
            settings=names,
            tasks=self.suite.tasks,
        )

    def _paper(self, setting: str, task: str, metric: str) -> tuple[float | None, bool]:
        """The paper's number, and whether the paper prints it."""
        model, method = self.suite.teachers[self.demand.teacher], self.demand.name
        if task != AVERAGE or not has_only_some_tasks_of_the_paper(self.suite):
            value = printed(self.demand.table, model, method, setting, task, metric)
            if value is not None or task != AVERAGE:
                return value, value is not None
        if metric not in ("improvement", "retention"):
            return self._paper_mean(method, setting, metric), False
        own, base = (self._paper_mean(name, setting, "accuracy") for name in (method, ORIGINAL))
        if own is None or not base:
            return None, False
        return 100 * own / base - (100 if metric == "improvement" else 0), False

    def _paper_mean(self, method: str, setting: str, metric: str) -> float | None:
        """The mean of the paper's cells. None where our tasks are benchmarks that it does not all print, as
        means over different benchmarks say nothing side by side."""
        where = (self.demand.table, self.suite.teachers[self.demand.teacher], method)
        tasks = self.suite.tasks if set(self.suite.tasks) <= set(PAPER_TASKS) else None
        names = _single(setting)
        means = [paper_mean(*where, name, metric, tasks=tasks) for name in names]
        values = [value for value in means if value is not None]
        return mean(values) if len(values) == len(names) else None


def has_only_some_tasks_of_the_paper(suite: Suite) -> bool:
    """Whether our tasks are some, but not all, of the paper's; its averages are then no match for ours."""
    return set(suite.tasks) < set(PAPER_TASKS)


def table_entries(suite: Suite, found: Sequence[tuple[Demand, Records]]) -> list[Entry]:
    """All entries of one table's demands, the original model's among them."""
    all_rows = [Rows(suite, demand, records) for demand, records in found]
    own = [(rows, entry) for rows in all_rows for entry in _entries(rows)]
    averages = [(rows, entry) for rows, entry in own if _is_average_of_a_row(entry)]
    entries = [entry for _, entry in own]
    return [*entries, *_relative_entries(averages), *_aup_entries(all_rows), *_paired_entries(averages)]


def _entries(rows: Rows) -> Iterator[Entry]:
    demand = rows.demand
    for setting in demand.settings:
        metrics = METRICS[:-1] if setting in DYNAMIC else ()
        metrics = ("distinct_answers_per_prompt",) if setting == DIVERSITY else metrics
        for task in (*rows.suite.tasks, AVERAGE):
            yield rows.accuracy_entry(setting, task)
            for metric in metrics:
                yield rows.entry(setting, task, metric, mean(rows.values(setting, task, metric)))
    for group, settings in GROUPS.items():
        if demand.table == 1 and set(settings) <= set(demand.settings):
            yield rows.accuracy_entry(group, AVERAGE)


def _is_average_of_a_row(entry: Entry) -> bool:
    """Whether it is an accuracy under 'Average', where methods are rows of a table."""
    has_average = entry.table in (2, 5, 6, 7) or (entry.table == 1 and entry.setting in GROUPS)
    return has_average and (entry.metric, entry.task) == ("accuracy", AVERAGE)


def _relative_entries(averages: Sequence[tuple[Rows, Entry]]) -> Iterator[Entry]:
    """Table 1's improvement over the original model, and how much of its accuracy is kept at full steps."""
    kinds = {1: "improvement", 2: "retention", 5: "retention"}
    original = {(e.teacher, e.setting): e.mean for _, e in averages if e.method == ORIGINAL}
    for rows, entry in averages:
        base = original.get((entry.teacher, entry.setting), 0.0)
        if base and entry.method != ORIGINAL and entry.table in kinds:
            value = 100 * entry.mean / base - (100 if entry.table == 1 else 0)
            yield rows.entry(entry.setting, AVERAGE, kinds[entry.table], value)


def _paired_entries(averages: Sequence[tuple[Rows, Entry]]) -> Iterator[Entry]:
    """Differences to the original and to the method with the best average, on the same prompts.

    Of methods whose cells and the other's all have verdicts, and the same seeds. The hashes and commands are
    those of both.
    """
    for teacher, setting in dict.fromkeys((entry.teacher, entry.setting) for _, entry in averages):
        group = [(rows, e) for rows, e in averages if (e.teacher, e.setting) == (teacher, setting)]
        bases = {
            PAIRED_TO_ORIGINAL: next((pair for pair in group if pair[1].method == ORIGINAL), None),
            PAIRED_TO_BEST: max(group, key=lambda pair: pair[1].mean),
        }
        for (rows, entry), (metric, pair) in product(group, bases.items()):
            if pair is None or pair[1].method == entry.method or pair[1].seeds != entry.seeds:
                continue
            found, base = rows.minus(pair[0], setting), pair[1]
            if found is not None:
                centre, low, high = (100 * value for value in found)
                yield dataclasses.replace(
                    rows.entry(setting, AVERAGE, metric, centre, (low, high)),
                    config_hashes=entry.config_hashes + base.config_hashes,
                    commands=entry.commands + base.commands,
                )


def _aup_entries(all_rows: Sequence[Rows]) -> Iterator[Entry]:
    """AUP of Table 1's methods, by block size and task; the best accuracy is that of any of them."""
    curves = [rows for rows in all_rows if rows.demand.table == 1 and DIVERSITY not in rows.demand.settings]
    best = {
        (rows.demand.teacher, task): max(
            _point(other, setting, task)[1]
            for other in curves
            if other.demand.teacher == rows.demand.teacher
            for setting in STATIC_SETTINGS
        )
        for rows in curves
        for task in rows.suite.tasks
    }
    for rows in curves:
        for block, settings in CURVES.items():
            scores = {}
            for task in rows.suite.tasks:
                points = [_point(rows, setting, task) for setting in settings]
                scores[task] = accuracy_under_parallelism(points, best[rows.demand.teacher, task])
                yield rows.entry(block, task, "aup", scores[task])
            yield rows.entry(block, AVERAGE, "aup", mean(scores.values()))


def _point(rows: Rows, setting: str, task: str) -> tuple[float, float]:
    accuracies = [rows.accuracy(seed, (setting,), task) for seed in rows.demand.seeds]
    return mean(rows.values(setting, task, "tokens_per_forward")), 100 * mean(accuracies)

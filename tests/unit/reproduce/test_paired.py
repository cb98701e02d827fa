"""Differences of a table's methods on the same prompts, from cells with verdicts made by hand."""

import dataclasses
import json
import math

import numpy as np
import pytest
from reproduce_helpers import records

from t3d.evaluation.compare import compare
from t3d.evaluation.intervals import paired_seeds_interval, score_interval
from t3d.evaluation.samples import read_graded
from t3d.problems.problem import Problem
from t3d.reproduce.recipes import demands
from t3d.reproduce.suites import MINI, MiniData
from t3d.reproduce.summaries import table_entries
from t3d.reproduce.tables import markdown_tables

NUM = 40


class OwnData(MiniData):
    """Every seed has questions of its own."""

    def problems(self, task, split, limit, seed):
        return [Problem(id=str(index), question=f"{task} {seed} {index}?") for index in range(NUM)]


class SharedData(OwnData):
    """Every seed has the same questions."""

    def problems(self, task, split, limit, seed):
        return super().problems(task, split, limit, 0)


def suite_of(data, *tasks):
    return dataclasses.replace(MINI, data=data, tasks=tasks, teachers={"mini": MINI.teachers["mini"]})


def found_of(table, suite, verdicts, num_seeds=1):
    """Demands with their records; ``verdicts(method, seed, setting, task)`` is a text, or None for an old
    cell."""
    found = []
    for demand in demands(suite, [table], num_seeds, suite.full):
        made = records(demand, lambda *_: NUM // 2, suite)
        for (seed, setting), record in made.items():
            for row in record["results"]:
                text = verdicts(demand.method, seed, setting, row["task"])
                row |= {"n": NUM, "num_prompts": NUM}
                if text is not None:
                    row |= {"verdicts": text, "num_correct": text.count("1")}
        found.append((demand, made))
    return found


def paired(found, suite):
    return {
        (e.method, e.setting, e.metric.removeprefix("paired_to_")): e
        for e in table_entries(suite, found)
        if e.metric.startswith("paired_to_")
    }


def random_text(*key, share=0.5):
    """Verdicts that are the same for the same key."""
    rng = np.random.default_rng([sum(map(ord, str(part))) for part in key])
    return "".join("01"[value] for value in (rng.random(NUM) < share).astype(int))


def correlated(method, seed, setting, task):
    """Those of the original; every other method also has every fifth prompt right, T3D every fourth."""
    text = random_text(seed, setting, task)
    step = {"original": NUM + 1, "t3d": 4}.get(method, 5)
    return "".join("1" if (index + 1) % step == 0 else char for index, char in enumerate(text))


@pytest.mark.parametrize("tasks", [("chain",), ("chain", "make", "code")])
def test_of_one_seed_and_setting_the_difference_is_that_of_t3d_compare(tmp_path, tasks):
    suite = suite_of(OwnData(), *tasks)
    found = found_of(7, suite, correlated)
    paths = {}
    for demand, made in found:
        ((_, record),) = made.items()
        paths[demand.method] = tmp_path / f"{demand.method}.json"
        paths[demand.method].write_text(json.dumps(record))
    entries = paired(found, suite)
    for method, base, metric in (("sft", "original", "original"), ("original", "t3d", "best")):
        summary = compare([read_graded(paths[name]) for name in (base, method)])
        (expected,) = summary["means"] or summary["cells"]
        entry = entries[method, "B8-T4", metric]
        assert entry.mean == pytest.approx(expected["difference"], abs=1e-4)
        assert entry.ci95 == pytest.approx(expected["ci95"], abs=1e-4)
        assert entry.task == "average" and entry.n == NUM * len(tasks)


def test_the_difference_of_correlated_verdicts_is_surer_than_that_of_two_accuracies():
    suite = suite_of(OwnData(), "chain", "make")
    entries = table_entries(suite, found_of(7, suite, correlated))
    index = {(e.method, e.metric): e for e in entries if e.task == "average"}
    gain = index["t3d", "paired_to_original"]
    low, high = gain.ci95
    ours, base = (index[name, "accuracy"] for name in ("t3d", "original"))
    assert gain.mean == pytest.approx(ours.mean - base.mean)
    assert low < gain.mean < high
    assert high - low < 0.75 * math.hypot(*(e.ci95[1] - e.ci95[0] for e in (ours, base)))


def test_the_best_has_the_highest_average_and_may_be_the_original():
    suite = suite_of(OwnData(), "chain")
    entries = paired(found_of(7, suite, correlated), suite)
    assert ("t3d", "B8-T4", "best") not in entries and ("original", "B8-T4", "original") not in entries
    for method in ("original", "sft", "ddo_path"):
        assert entries[method, "B8-T4", "best"].mean < 0

    def all_right(method, *_):
        return "1" * NUM if method == "original" else "01" * (NUM // 2)

    entries = paired(found_of(2, suite, all_right), suite)
    assert ("original", "B4-T1", "best") not in entries
    assert entries["sft", "B4-T1", "best"].mean == entries["sft", "B4-T1", "original"].mean == -50.0


def test_an_entry_names_the_cells_of_both_methods():
    suite = suite_of(OwnData(), "chain")
    found = found_of(7, suite, correlated)
    entry = paired(found, suite)["sft", "B8-T4", "original"]
    made = {demand.method: record for demand, records_ in found for record in records_.values()}
    assert entry.config_hashes == tuple(made[name]["config_hash"] for name in ("sft", "original"))
    assert entry.commands == tuple(made[name]["command"] for name in ("sft", "original"))
    assert (entry.paper, entry.table, entry.seeds) == (None, 7, (0,))


@pytest.mark.parametrize("old", ["original", "t3d", "sft"])
def test_a_cell_without_verdicts_has_no_difference(old):
    """T3D has the best average; one of six rows that lacks verdicts is enough."""
    suite = suite_of(OwnData(), "chain", "make")

    def verdicts(method, seed, setting, task):
        is_old = (method, setting, task) == (old, "B8-T2", "make")
        return None if is_old else correlated(method, seed, setting, task)

    entries = paired(found_of(1, suite, verdicts), suite)
    full = paired(found_of(1, suite, correlated), suite)
    missing = {key for key in full if key not in entries}
    assert {setting for _, setting, _ in missing} == {"T2"}
    others = {"original", "sft", "redi", "dparallel", "naive_td", "t3d"} - {old}
    assert (
        missing
        == {
            "original": {(name, "T2", "original") for name in others} | {("original", "T2", "best")},
            "t3d": {(name, "T2", "best") for name in others} | {("t3d", "T2", "original")},
            "sft": {("sft", "T2", "original"), ("sft", "T2", "best")},
        }[old]
    )
    assert all(entries[key] == full[key] for key in entries)


def test_settings_of_a_group_that_agree_are_no_more_prompts():
    """TokPS 2 in blocks of 4 and 8 with the same verdicts is as sure as one of them."""
    suite = suite_of(OwnData(), "chain")
    group = paired(found_of(1, suite, lambda m, seed, setting, task: correlated(m, seed, "", task)), suite)
    one = paired(found_of(6, suite, lambda m, seed, setting, task: correlated(m, seed, "", task)), suite)
    assert group["t3d", "T2", "original"].mean == one["t3d", "B8-T2", "original"].mean
    assert group["t3d", "T2", "original"].ci95 == one["t3d", "B8-T2", "original"].ci95


@pytest.mark.parametrize(("data", "times"), [(SharedData(), 1), (OwnData(), 3)])
def test_three_seeds_that_agree_are_more_prompts_only_where_they_have_their_own(data, times):
    suite = suite_of(data, "chain")
    found = found_of(7, suite, lambda method, seed, setting, task: correlated(method, 0, setting, task), 3)
    texts = [correlated(method, 0, "B8-T4", "chain") for method in ("original", "t3d")]
    more = texts[1].count("1") - texts[0].count("1")  # T3D has all right that the original has
    entry = paired(found, suite)["t3d", "B8-T4", "original"]
    expected = [100 * end for end in score_interval(times * more, 0, times * NUM)]
    assert entry.mean == 100 * more / NUM and entry.seeds == (0, 1, 2)
    assert entry.ci95 == pytest.approx(expected, abs=1e-3)


def test_seeds_that_differ_have_the_t_interval_of_their_differences():
    """Of 40, T3D has 4, 8 and 12 more right than the original: 10, 20, 30 points; 4.303 * 10 / sqrt 3."""
    suite = suite_of(OwnData(), "chain")

    def verdicts(method, seed, setting, task):
        right = 10 if method == "original" else 14 + 4 * seed
        return "1" * right + "0" * (NUM - right)

    entry = paired(found_of(7, suite, verdicts, 3), suite)["t3d", "B8-T4", "original"]
    assert entry.mean == 20.0
    assert entry.ci95 == pytest.approx((20 - 24.84, 20 + 24.84), abs=0.01)


def test_tables_show_the_differences_beside_the_average():
    suite = suite_of(OwnData(), "chain")

    def verdicts(method, seed, setting, task):
        right = {"original": 10, "t3d": 20, "ddo": 30}.get(method, 15)
        return None if method == "sft" else "1" * right + "0" * (NUM - right)

    for table in (1, 2, 5, 6, 7):
        text = markdown_tables(suite, table_entries(suite, found_of(table, suite, verdicts)), "", "")
        lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
        head = next(line for line in lines if "Average" in line)
        first = head.index("vs. original")
        assert head[first - 1 : first + 2] == ["Average", "vs. original", "vs. best"]
        rows = [line for line in lines if len(line) == len(head)]
        shown = {line[head.index("method")]: line[first : first + 2] for line in rows}
        ours = shown["T3D (DDO + path + random tokens)"]
        assert ours[0] == "+25.0 [14.0, 40.2]" and shown["SFT"] == ["-", "-"]
        assert ours[1] == ("-25.0 [-40.2, -14.0]" if table > 4 else "-")
        assert shown["Original Model"][0] == "-" and shown["Original Model"][1].startswith("-")


@pytest.mark.many_inputs
@pytest.mark.parametrize(
    ("num_seeds", "is_shared", "shift_sd"),
    [(1, False, 0.0), (3, True, 0.0), (3, False, 0.08)],
)
def test_paired_intervals_hold_the_truth_as_often_as_they_say(num_seeds, is_shared, shift_sd):
    """Two tasks of 80 prompts that are as hard for both methods; training moves the second's probabilities
    by 0.05 and a normal shift per seed, which one seed does not cover."""
    rng = np.random.default_rng(0)
    repeats, num_held = 100, 0
    for _ in range(repeats):
        drawn = rng.uniform(0.1, 0.8, (1 if is_shared else num_seeds, 2, 80))
        easiness = np.broadcast_to(drawn, (num_seeds, 2, 80))
        shifts = 0.05 + rng.normal(0, shift_sd, (num_seeds, 1, 1))
        first = (rng.random(easiness.shape) < easiness).tolist()
        second = (rng.random(easiness.shape) < np.clip(easiness + shifts, 0, 1)).tolist()
        per_seed = [
            [
                {
                    (0 if is_shared else seed, index): [pair]
                    for index, pair in enumerate(zip(*task, strict=True))
                }
                for task in zip(first[seed], second[seed], strict=True)
            ]
            for seed in range(num_seeds)
        ]
        _, low, high = paired_seeds_interval(per_seed)
        num_held += low <= 0.05 <= high
    assert num_held / repeats >= 0.9

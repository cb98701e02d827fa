"""Markdown and learning-rate choice from synthetic cells."""

import dataclasses

import pytest
from reproduce_helpers import N, record, records

from t3d.reproduce.paper import INCONSISTENCIES
from t3d.reproduce.recipes import TABLES, demands, grid_cells
from t3d.reproduce.runner import ReproduceConfig, Reproduction, added_row
from t3d.reproduce.suites import MINI, load_suite
from t3d.reproduce.summaries import table_entries
from t3d.reproduce.tables import learning_rate_table, markdown_tables, method_title


def text_of(tables, suite=MINI, added=()):
    entries = []
    for table in tables:
        found = [
            (demand, records(demand, lambda *_: N // 2, suite))
            for demand in demands(suite, [table], 1, suite.full, added)
        ]
        entries += table_entries(suite, found)
    return markdown_tables(suite, entries, "# Title\n", "## End\n")


def rows_of(text, heading):
    part = text.split(heading)[1].split("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]


@pytest.fixture(scope="module")
def text():
    return text_of(TABLES)


@pytest.fixture(scope="module", params=[False, True], ids=["own", "added"])
def any_text(request, text):
    return text_of(TABLES, added=[added_row("t3d-plus")]) if request.param else text


def test_all_tables_and_the_papers_inconsistencies_are_there(text):
    for table in TABLES:
        assert f"## Table {table}. " in text
    assert text.startswith("# Title\n\n## Table 1") and text.endswith("\n\n## End\n")
    assert all(f"- {item}" in text for item in INCONSISTENCIES)


def test_every_row_of_a_table_has_all_its_columns(any_text):
    """Added rows are columns of Table 4: it had no heads for them."""
    for part in any_text.split("\n\n"):
        lines = [line for line in part.splitlines() if line.startswith("|")]
        assert len({line.count(" | ") for line in lines}) <= 1


def test_table_1_has_average_and_improvement_of_both(text):
    rows = rows_of(text, "## Table 1. ")
    assert rows[0][-6:-3] == ["Average", "vs. original", "vs. best"]
    assert rows[0][-3:] == ["Improvement %", "paper: Average", "paper: Improvement %"]
    assert rows[0][2:8] == ["B4 chain", "B4 make", "B4 code", "B8 chain", "B8 make", "B8 code"]
    t3d = next(row for row in rows if row[:2] == ["4", method_title("t3d")])
    assert t3d[2].startswith("50.0 [45.7, 54.3]")
    assert t3d[-6:] == ["50.0 [47.5, 52.5]", "-", "-", "+0.0", "39.66", "+85.02"]
    original = next(row for row in rows if row[:2] == ["2", "Original Model"])
    assert original[-3:] == ["-", "52.38", "-"]


def test_table_4_is_settings_by_lambda(text):
    rows = rows_of(text, "## Table 4. ")
    assert rows[0][1:4] == ["lambda = 0.05", "lambda = 0.2", "lambda = 0.5"]
    assert [row[0] for row in rows[2:]] == ["B4-T1", "B8-T1", "B8-T2", "B4-T4", "B8-T4", "B8-T8"]
    assert rows[2][-3:] == ["67.80", "69.00", "69.20"]


def test_full_steps_tell_what_is_kept_by_every_method(text):
    rows = rows_of(text, "## Table 2. ")
    assert rows[0][-3:] == ["kept, %", "paper: mean of its four", "paper: kept, %"]
    t3d = next(row for row in rows if row[0] == method_title("t3d"))
    assert t3d[-3:] == ["100.0", "71.82", "99.6"]
    ablations = rows_of(text, "## Table 5. ")
    assert ablations[0][-2:] == ["kept, %", "paper: MATH500"]
    assert [row[-2] for row in ablations[2:]] == ["-", *["100.0"] * 9]
    assert "kept, %" not in rows_of(text, "## Table 6. ")[0]


def test_math500_stands_beside_math500_where_a_suite_has_it():
    text = text_of((4, 7), load_suite("sdar", "data"))
    assert "(the paper's SDAR-4B-Chat), 1 seed: MATH500; the paper's" in text
    assert rows_of(text, "## Table 4. ")[2][-3:] == ["67.80", "69.00", "69.20"]
    original = next(row for row in rows_of(text, "## Table 7. ") if row[0] == "Original Model")
    assert original[1].endswith("(paper 16.80)") and original[-1] == "16.80"


def test_the_papers_averages_over_some_benchmarks_are_named():
    tasks = ("math500", "gsm8k")
    text = text_of((1, 2, 3), dataclasses.replace(load_suite("sdar", "data"), tasks=tasks))
    assert rows_of(text, "## Table 1. ")[0][-2:] == ["paper: mean of math500, gsm8k", "paper: Improvement %"]
    assert rows_of(text, "## Table 2. ")[0][-2:] == ["paper: mean of math500, gsm8k", "paper: kept, %"]
    assert "of average, the paper's number is the mean of math500, gsm8k." in text
    assert "its four" not in text


def test_table_3_names_both_confidences(text):
    part = text.split("## Table 3. ")[1].split("\n## ")[0]
    assert part.count("confidence the model's own") == part.count("confidence as sampled") == 1
    assert "(paper 843.05)" not in part, "GSM8K is none of the suite's tasks"


def test_overrides_are_named():
    assert method_title("t3d path_weight=0.05") == "T3D, lambda = 0.05"
    assert method_title("t3d") == "T3D (DDO + path + random tokens)"
    assert method_title("t3d refresh_every=5") == "t3d refresh_every=5"


def table_4(output) -> Reproduction:
    return Reproduction(ReproduceConfig(output=str(output), cells=None, device="cpu"), (4,))


def write_grid(store, right_by_rate):
    for cell in grid_cells(MINI, "t3d"):
        if cell.student.learning_rate in right_by_rate:
            store.write(cell.label, record(cell, lambda *_, c=cell: right_by_rate[c.student.learning_rate]))


def test_the_best_learning_rate_is_chosen_once_the_grid_is_complete(tmp_path):
    reproduction, rates = table_4(tmp_path), MINI.learning_rates
    write_grid(reproduction.store, {rates[0]: 100, rates[1]: 300})
    assert reproduction.chosen_rate("t3d") is None
    assert reproduction.scores().keys() == {"t3d"}
    missing = [cell for cell in reproduction.all_cells() if reproduction.find(cell) is None]
    grid = [cell.student.learning_rate for cell in missing if cell.split == "validation"]
    assert grid == [rates[2]]
    write_grid(reproduction.store, {rates[2]: 200})
    assert reproduction.chosen_rate("t3d") == rates[1]
    assert reproduction.scores()["t3d"][rates[1]] == pytest.approx(100 * 300 / N)


def test_of_two_equal_learning_rates_the_smaller_is_chosen(tmp_path):
    reproduction = table_4(tmp_path)
    write_grid(reproduction.store, dict.fromkeys(MINI.learning_rates, 100))
    assert reproduction.chosen_rate("t3d") == min(MINI.learning_rates)


def test_the_learning_rate_table_marks_the_best_of_a_complete_grid():
    text = learning_rate_table((0.1, 0.2), {"t3d": {0.1: 50.0, 0.2: 60.0}, "ddo": {}, "sft": {0.2: 60.0}})
    assert "| 50.0 | **60.0** |" in text
    assert "| DDO | - | - |" in text
    assert "| SFT | - | 60.0 |" in text, "nothing is chosen yet"

"""Which numbers each table's plot shows."""

import dataclasses

import pytest
from reproduce_helpers import N, records

from t3d.reproduce import plots
from t3d.reproduce.recipes import ORIGINAL, TABLES, demands
from t3d.reproduce.runner import added_row
from t3d.reproduce.settings import LAMBDA_SETTINGS
from t3d.reproduce.suites import MINI
from t3d.reproduce.summaries import table_entries
from t3d.reproduce.tables import TITLES


def synthetic(demand, suite):
    """Cells of the suite's main teacher, who can be read, in place of this one's."""
    readable = dataclasses.replace(demand, teacher=next(iter(suite.teachers)))
    return records(readable, rule)


def rule(cell, setting, task):
    return N // 2 if cell.student.method == ORIGINAL else N // 4


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, by file name."""
    found = {}
    for name in ("plot_gains", "plot_lines"):
        monkeypatch.setattr(
            plots,
            name,
            lambda data, path, title, **options: found.update({path.name: (data, options, title)}),
        )
    return found


def test_teachers_of_the_same_folder_name_have_their_own_plots(tmp_path, drawn):
    names = ("runs/a/student", "runs/b/student")
    suite = dataclasses.replace(MINI, teachers=dict(zip(names, MINI.teachers.values(), strict=True)))
    found = [(demand, synthetic(demand, MINI)) for demand in demands(suite, [1], 1, suite.full)]
    paths = plots.write_plots(suite, found, table_entries(suite, found), tmp_path)
    plain = ["table1-student.png", "accuracy-tpf-student-B4.png", "accuracy-tpf-student-B8.png"]
    second = [name.replace("student", "student-2") for name in plain]
    assert [path.name for path in paths] == [*plain, *second]
    assert drawn.keys() == {*plain, *second}


def test_an_added_row_is_a_bar_but_no_lambda(tmp_path, drawn):
    """It was a ValueError, behind all the work."""
    found, entries = [], []
    for table in (1, 4, 7):
        wanted = demands(MINI, [table], 1, MINI.full, [added_row("t3d-plus")])
        of_table = [(demand, records(demand, rule)) for demand in wanted]
        found += of_table
        entries += table_entries(MINI, of_table)
    plots.write_plots(MINI, found, entries, tmp_path)
    assert [len(group) for group in drawn["table7-mini.png"][0].values()] == [12]
    assert [line.name for line in drawn["accuracy-tpf-mini-B8.png"][0]][-1] == "t3d-plus num_rounds=3"
    lines, _, _ = drawn["table4-mini.png"]
    assert [place for place, _ in lines[-1].points.values()] == [0.05, 0.2, 0.5]


def test_every_table_and_teacher_has_its_plot(tmp_path, drawn):
    found, entries = [], []
    for table in TABLES:
        of_table = [(demand, records(demand, rule)) for demand in demands(MINI, [table], 1, MINI.full)]
        found += of_table
        entries += table_entries(MINI, of_table)
    paths = plots.write_plots(MINI, found, entries, tmp_path)
    assert {path.name for path in paths} == drawn.keys()
    expected = {f"table{table}-mini.png" for table in TABLES} | {"table1-mini-small.png"}
    expected |= {"table2-mini-small.png"}
    expected |= {
        f"accuracy-tpf-{name}-{block}.png" for name in ("mini", "mini-small") for block in ("B4", "B8")
    }
    assert drawn.keys() == expected

    bars, options, title = drawn["table1-mini.png"]
    assert list(bars) == ["full steps (block size 4)", "2 tokens per step", "4 tokens per step"]
    assert options == {"baseline": TITLES[ORIGINAL], "subject": TITLES["t3d"]}
    for group in bars.values():
        assert len(group) == 6
        assert group[TITLES[ORIGINAL]].value == 50.0
        assert 22 < group[TITLES["t3d"]].low < 25.0 < group[TITLES["t3d"]].high < 28
    assert [len(group) for group in drawn["table7-mini.png"][0].values()] == [11]
    assert title.endswith("4 tokens per step:\nthe original is best with 50.0 %, T3D has 25.0 %")
    lines, _, title = drawn["table4-mini.png"]
    assert tuple(line.name for line in lines) == LAMBDA_SETTINGS
    assert [place for place, _ in lines[-1].points.values()] == [0.05, 0.2, 0.5]

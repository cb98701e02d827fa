"""report.html: what it shows of a run, that no text breaks it, that it stays small and in its place."""

import json
import math
import re
from itertools import pairwise

import pytest
from report_helpers import ELEMENTS, Read, entry, log_entries, write_demo_like, write_evaluation
from viewer_helpers import TITLES, graded, write_lines

from t3d.errors import InputError
from t3d.report.html.chart import svg
from t3d.report.html.content import Chart, Content
from t3d.report.html.name import BEGINNING
from t3d.report.html.page import add_report, report_page, write_report
from t3d.report.html.run import content_of
from t3d.report.html.shorten import MOST_BYTES
from t3d.report.html.training import training_charts
from t3d.report.playground.page import playground_page
from t3d.report.points import Bar, Line


def test_a_report_of_an_evaluation_has_its_numbers_settings_answers_and_versions(tmp_path):
    run = write_evaluation(tmp_path / "run", entry("B4-T1", num_correct=3), entry("B4-T4", num_correct=1))
    content = content_of(run)
    assert [chart.title for chart in content.charts] == [
        "Accuracy against tokens per forward",
        "Accuracy against tokens per second",
    ]
    (line,) = content.charts[0].lines
    assert {name: (place, bar.value) for name, (place, bar) in line.points.items()} == {
        "B4-T1": (1.0, 75.0),
        "B4-T4": (1.0, 25.0),
    }
    (table,) = content.tables
    assert [row[:3] for row in table.rows] == [
        ["chain", "B4-T1", "75.0 [55.0, 95.0]"],
        ["chain", "B4-T4", "25.0 [5.0, 45.0]"],
    ]
    text = Read(write_report(run).read_text()).text
    for told in ("mini", "how many?", "so 7", "3.11.7", "75.0 [55.0, 95.0]", "torch.float32", "✗ wrong"):
        assert told in text, told


def test_a_report_of_a_demo_has_both_models_means_over_tasks_and_curves(tmp_path):
    content = content_of(write_demo_like(tmp_path))
    assert [(line.name, line.is_subject) for line in content.charts[0].lines] == [
        ("teacher, blocks of 4", False),
        ("student, blocks of 4", True),
    ]
    means = content.tables[0]
    assert [row[:2] for row in means.rows] == [
        ["B4-T1", "teacher"],
        ["B4-T1", "student"],
        ["B4-T4", "teacher"],
        ["B4-T4", "student"],
    ]
    assert means.rows[3][2].startswith("75.0 [") and means.rows[3][3] == "3.85"
    assert [table.is_folded for table in content.tables] == [False, True, True]
    assert [name for name, _ in content.training] == ["student-1", "student"]
    assert content.config == {"seed": 0, "method": "t3d"}


def test_curves_leave_out_what_is_not_finite_and_keep_few_points(tmp_path):
    log = [*log_entries(), {"step": 60, "loss/total": math.nan}, {"step": 70, "loss/total": math.inf}]
    charts = training_charts(log)
    assert [chart.title for chart in charts] == [
        "Loss",
        "Negative log-likelihood by share of masks",
        "Scores on held-out problems",
        "Gradient norm",
        "Learning rate",
    ]
    assert [line.name for line in charts[0].lines] == ["total", "path"]
    assert [place for place, _ in charts[0].lines[0].points.values()] == [10, 20, 30, 40, 50]
    long = training_charts([{"step": number, "loss": 1.0} for number in range(1, 10_001)])
    assert len(long[0].lines[0].points) <= 150
    assert "nan" not in svg(charts[0]) and len(svg(long[0])) < 10_000


@pytest.mark.parametrize("text", [*TITLES, "x\0y", "</style><svg onload=alert(1)>", '" autofocus onfocus="'])
def test_no_text_of_a_run_is_taken_for_a_part_of_the_page(tmp_path, text):
    rows = [graded(text, correct=False, question=text, answer=text, response=text, reason=text, task=text)]
    run = write_evaluation(tmp_path, entry(text, text), rows=rows, config={"model": text, text: text})
    write_lines(tmp_path / "student.log.jsonl", {"step": 1, f"loss/{text}": 1.0})
    page = write_report(run).read_text(encoding="utf-8")
    read = Read(page)
    assert read.elements <= ELEMENTS
    assert not {name for name in read.attributes if name.startswith("on") or name in ("autofocus", "src")}
    shown = text.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
    assert shown in read.text
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_a_report_stays_small_whatever_a_run_holds(tmp_path):
    """Answers of a megabyte, and many settings: a note says that parts are left out."""
    rows = [
        graded(
            f"{index}", correct=right, setting=f"B4-T{index}", response="é" * 1_000_000, question="<" * 4000
        )
        for index in range(3)
        for right in (True, False)
    ]
    entries = [
        entry(f"B{size}-T{count}", f"task{task}")
        for task in range(4)
        for size in range(1, 9)
        for count in range(1, 9)
    ]
    run = write_evaluation(tmp_path, *entries, rows=rows)
    page = write_report(run).read_text(encoding="utf-8")
    assert len(page.encode()) <= MOST_BYTES
    few = write_evaluation(tmp_path / "few", entry(), rows=rows)
    short = write_report(few).read_text(encoding="utf-8")
    assert "998,500 more characters" in short and "left out" not in short
    content = content_of(run)
    content.config = {f"flag{number}": "x" * 1400 for number in range(400)}
    page = report_page(content)
    assert len(page.encode()) <= MOST_BYTES and "Parts are left out" in page


def test_no_field_of_a_run_makes_a_report_large():
    content = Content(title="run", finding="<" * 400_000, facts=[("suite", "\x00" * 400_000)])
    content.environment = {f"package{number}": "x" * 1400 for number in range(400)}
    page = report_page(content)
    assert len(page.encode()) <= MOST_BYTES and "more characters" in page


def test_a_part_is_drawn_once_however_many_are_left_out(tmp_path, monkeypatch):
    run = write_evaluation(tmp_path, entry())
    for number in range(60):
        write_lines(run / f"student-{number:02d}.log.jsonl", *log_entries(60))
    content = content_of(run)
    num_drawn = 0

    def counted(chart):
        nonlocal num_drawn
        num_drawn += 1
        return svg(chart)

    monkeypatch.setattr("t3d.report.html.page.svg", counted)
    page = report_page(content)
    assert num_drawn == len(content.charts) + sum(len(charts) for _, charts in content.training) > 300
    assert 0.9 * MOST_BYTES < len(page.encode()) <= MOST_BYTES and "Parts are left out" in page
    assert "student-00" in page and "student-59" not in page  # the last go first


def test_answers_are_read_until_each_kind_was_there(tmp_path):
    run = write_evaluation(tmp_path, entry("B4-T1", num_correct=4), entry("B4-T4", num_correct=2))
    kinds = [("B4-T1", True), ("B4-T4", False), ("B4-T4", True)]
    rows = [graded(str(number), correct=right, setting=name) for number, (name, right) in enumerate(kinds)]
    with write_lines(run / "samples.jsonl", *rows).open("a") as file:
        file.write("never read\n")
    assert [sample.id for sample in content_of(run).samples] == ["0", "1", "2"]


def test_evaluations_of_one_name_are_told_apart_by_their_place(tmp_path):
    def accuracies(run):
        content = content_of(run)
        names = [table.title.removesuffix(", task by task") for table in content.tables[1:]]
        assert names == content.facts[0][1].split(", ")
        return {
            line.name: bar.value for line in content.charts[0].lines for _, bar in line.points.values()
        }, {row[1]: row[2].split()[0] for row in content.tables[0].rows}

    two = tmp_path / "two"
    write_evaluation(two / "evaluations" / "a", entry(num_correct=4))
    write_evaluation(two / "a", entry(num_correct=0))
    lines, rows = accuracies(two)
    assert lines == {"a, blocks of 4": 0.0, "evaluations/a, blocks of 4": 100.0}
    assert rows == {"a": "0.0", "evaluations/a": "100.0"}
    nested = write_evaluation(tmp_path / "own", entry(num_correct=0), config={"model": "runs/student"})
    write_evaluation(nested / "student", entry(num_correct=4))
    lines, rows = accuracies(nested)
    assert lines == {"student (.), blocks of 4": 0.0, "student, blocks of 4": 100.0}
    assert rows == {"student (.)": "0.0", "student": "100.0"}


def test_of_several_evaluations_it_is_said_whose_settings_and_versions_are_shown(tmp_path):
    for name in ("x", "y"):
        write_evaluation(tmp_path / name, entry(), config={"model": f"m{name}"})
    page = write_report(tmp_path).read_text()
    assert "Configuration of <bdi>y</bdi></h2>" in page and "Environment of <bdi>y</bdi></h2>" in page
    assert "mx" not in page and "my" in page
    (tmp_path / "config.yaml").write_text("seed: 5\n")
    page = write_report(tmp_path).read_text()
    assert ">Configuration</h2>" in page and "Environment of <bdi>y</bdi></h2>" in page
    alone = write_report(tmp_path / "x").read_text()
    assert ">Configuration</h2>" in alone and ">Environment</h2>" in alone


def test_seconds_of_a_training_are_not_said_to_be_all_of_a_resumed_one(tmp_path):
    """The trainer's clock starts again with each start; the log does not say whether there were several."""
    write_lines(tmp_path / "student.log.jsonl", *log_entries())
    assert ("seconds since the last start or resume", "12") in content_of(tmp_path).facts


def test_a_report_that_says_the_same_is_not_written_again(tmp_path):
    path = write_report(write_demo_like(tmp_path))
    before = path.stat().st_mtime_ns, path.read_bytes()
    write_report(tmp_path)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    assert path.read_text().startswith(BEGINNING)
    assert not list(tmp_path.glob(".*"))


def test_a_file_of_somebody_else_is_not_written_over(tmp_path):
    run = write_evaluation(tmp_path, entry())
    (run / "report.html").write_text("<p>mine</p>")
    with pytest.raises(InputError, match=r"report\.html"):
        write_report(run)
    assert (run / "report.html").read_text() == "<p>mine</p>"


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("results.json", "{", "not the results"),
        ("student.log.jsonl", "[1]\n", "damaged"),
        ("config.yaml", "a: [", "not YAML"),
    ],
)
def test_a_damaged_file_is_named_and_does_not_end_a_command_whose_results_are_there(
    tmp_path, caplog, file, text, problem
):
    run = write_evaluation(tmp_path, entry())
    (run / file).write_text(text)
    with pytest.raises(InputError, match=problem) as caught:
        write_report(run)
    assert file in str(caught.value)
    add_report(run)
    assert problem in caplog.text and not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("mine.log.jsonl", '{"step": "warm", "loss": "x"}\n{"step": 3, "loss": 1.0}\n'),
        ("mine.log.jsonl", '{"step": null, "loss": 1.0}\n'),
        ("mine.log.jsonl", '{"step": 1e999, "loss": 1.0}\n'),
        ("mine.log.jsonl", None),
        ("old/samples.jsonl", '{"a": 1}\n'),
        ("old/samples.jsonl", '{"a":\n'),
        ("old/results.json", json.dumps({"results": [entry(seconds=0.0)], "config": {}})),
        ("old/results.json", json.dumps({"results": [entry(ci95=None)], "config": {}})),
        ("old/results.json", json.dumps({"results": [entry(tokens_per_forward=0.0)], "config": {}})),
        ("summary.json", json.dumps({"models": {"teacher": {}, "student": {}}, "seconds": {}})),
        ("tables.json", json.dumps({"entries": [{}], "suite": 1, "versions": {}})),
    ],
)
def test_files_of_somebody_else_are_named_and_only_hinder_the_report(tmp_path, caplog, file, text):
    run = write_evaluation(tmp_path, entry())
    write_evaluation(run / "old", entry())
    if text is None:
        (run / file).symlink_to("nowhere")
    else:
        (run / file).write_text(text)
    with pytest.raises(InputError) as caught:
        write_report(run)
    assert file in str(caught.value)
    add_report(run)
    assert "InputError" in caplog.text and file in caplog.text


def test_no_fault_of_a_report_ends_the_command_whose_results_are_there(tmp_path, caplog, monkeypatch):
    def faulty(content):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("t3d.report.html.page.report_page", faulty)
    add_report(write_evaluation(tmp_path, entry()))
    assert caplog.messages == ["no report.html is written: ZeroDivisionError: first line"]


def test_values_in_a_log_that_are_no_numbers_are_left_out(tmp_path):
    run = write_evaluation(tmp_path, entry())
    odd = {"step": 2, "loss": "x", "train_runtime": None, "learning_rate": 10**400}
    write_lines(run / "student.log.jsonl", {"step": 1, "loss": 0.5}, odd)
    content = content_of(run)
    assert ("last loss", "0.5") in content.facts
    ((_, (chart,)),) = content.training
    assert [place for place, _ in chart.lines[0].points.values()] == [1.0]


def test_results_of_an_earlier_version_and_a_folder_without_any_are_refused(tmp_path):
    old = entry()
    del old["mean_length"]
    with pytest.raises(InputError, match="earlier version"):
        content_of(write_evaluation(tmp_path / "old", old))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no results"):
        content_of(tmp_path / "none")


def test_tables_of_a_reproduction_stand_beside_the_papers_and_cost_what_their_cells_took(tmp_path):
    def told(method, setting, value, paper, table=1):
        where = {"table": table, "teacher": "mini", "method": method, "setting": setting, "task": "average"}
        number = {"metric": "accuracy", "mean": value, "ci95": [value - 1, value + 1], "paper": paper}
        return {**where, **number, "config_hashes": [f"{method}{setting}"]}

    entries = [told("original", "B4-T1", 99.0, 80.0), told("original", "B4-T4", 40.0, None)]
    entries += [told("t3d", "B4-T1", 98.0, None), told("t3d", "B4-T4", 85.0, None)]
    tables = {"entries": entries, "suite": "mini", "quick": False, "versions": {"t3d": "0.1.0"}}
    (tmp_path / "tables.json").write_text(json.dumps(tables))
    (tmp_path / "cells").mkdir()
    for one in entries[:3]:
        forwards = 1.0 if one["setting"] == "B4-T1" else 3.5
        fast = entry(one["setting"], tokens_per_forward=forwards)  # 100 tokens a second, and 4 in 4 seconds
        slow = fast | {"task": "make", "mean_length": 1.0, "seconds": 4.0, "tokens_per_second": 1.0}
        name = f"mini.{one['method']}.seed0.{one['config_hashes'][0]}.json"
        (tmp_path / "cells" / name).write_text(json.dumps({"results": [fast, slow]}))
    content = content_of(tmp_path)
    assert content.tables[0].rows == [
        ["original", "99.0 [98.0, 100.0]", "40.0 [39.0, 41.0]"],
        ["in the paper", "80.0", ""],
        ["t3d", "98.0 [97.0, 99.0]", "85.0 [84.0, 86.0]"],
    ]
    forwards = {line.name: [place for place, _ in line.points.values()] for line in content.charts[0].lines}
    assert forwards == {"original": [1.0, 3.5], "t3d": [1.0]}  # the last cell lies elsewhere
    seconds = {line.name: [place for place, _ in line.points.values()] for line in content.charts[1].lines}
    of_one = pytest.approx(104 / 5)  # all visible tokens by all seconds
    assert seconds == {"original": [of_one, of_one], "t3d": [of_one]}


def test_a_chart_draws_values_in_order_with_whiskers_and_ticks_of_powers(tmp_path):
    points = {
        f"p{number}": (2.0**number, Bar(value=10.0 * number, low=10.0 * number - 4, high=10.0 * number + 4))
        for number in range(4)
    }
    line = Line(name="a", points=points, is_subject=True, is_labelled=True)
    drawn = svg(Chart(title="t", lines=[line], xlabel="x", has_powers=True))
    ticks = re.findall(r'class="tick" x="[\d.]+" y="[\d.]+" text-anchor="middle">([\d.]+)<', drawn)
    assert ticks == ["1", "2", "4", "8"]
    at = [tuple(map(float, pair)) for pair in re.findall(r"translate\(([\d.]+) ([\d.]+)\)\" d", drawn)]
    assert at == sorted(at) and [y for _, y in at] == sorted((y for _, y in at), reverse=True)
    assert len({round(b[0] - a[0], 0) for a, b in pairwise(at)}) == 1
    assert drawn.count("whisker") == 4 and drawn.count('class="label subject"') == 4
    same = Line(name="b", points={"p": (3.0, Bar(value=5.0, low=5.0, high=5.0))})
    assert "nan" not in svg(Chart(title="t", lines=[same], xlabel="x"))


def test_the_playground_takes_fractions_that_the_server_takes():
    page = playground_page(["mini"])
    for name in ("temperature", "speed"):
        assert re.search(rf'<input id="{name}" [^>]*step="any"', page), name

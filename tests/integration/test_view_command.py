"""``t3d view`` and ``t3d generate --record``: the page that is written, and refusals."""

import json
import re
import webbrowser
from pathlib import Path

import pytest
from command_helpers import run_failing
from viewer_helpers import data_of, graded, trajectory, write_lines, write_rollout

from t3d.cli.main import main


def view(*arguments: str | Path) -> dict:
    """What the page that the command wrote holds; ``--output`` is the last argument."""
    assert main(["view", *map(str, arguments)]) == 0
    return data_of(Path(arguments[-1]).read_text(encoding="utf-8"))


@pytest.fixture
def rollout(tmp_path) -> Path:
    return write_rollout(tmp_path / "rollout.parquet", trajectory("a"), trajectory("b"), trajectory("c"))


def test_a_page_is_written_under_its_name_and_told(rollout, tmp_path, capsys):
    page = tmp_path / "new" / "view.html"
    data = view(rollout, "--limit", "2", "--output", page)
    assert [record["id"] for record in data["sources"][0]["records"]] == ["a", "b"]
    assert (data["sources"][0]["total"], data["right"], data["title"]) == (3, None, str(rollout))
    assert [path.name for path in page.parent.iterdir()] == ["view.html"]
    told = capsys.readouterr().out.splitlines()
    assert "--model" in told[0] and told[1] == f"2 responses in {page}"
    assert view(rollout, "--output", page)["sources"][0]["total"] == 3  # an older page may be written over


def test_the_page_stands_with_what_it_shows_wherever_the_command_runs(rollout, tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_lines(tmp_path / "eval" / "samples.jsonl", graded("a", correct=True))
    for source, page in ((rollout, "rollout.parquet.html"), (tmp_path / "eval", "eval/view.html")):
        assert main(["view", str(source)]) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith(f"responses in {tmp_path / page}")
        assert data_of((tmp_path / page).read_text())["title"] == str(source)
        assert main(["view", str(source)]) == 0, "an older page may be written over"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_two_evaluations_stand_side_by_side_in_the_same_setting(tmp_path):
    teacher = [graded("a", correct=True, setting=name) for name in ("B4-T1", "B8-T4")]
    write_lines(tmp_path / "teacher" / "samples.jsonl", *teacher[::-1])
    write_lines(tmp_path / "student" / "samples.jsonl", *teacher, graded("b", correct=False))
    data = view(tmp_path / "teacher", "--compare", tmp_path / "student", "--output", tmp_path / "x.html")
    names = [source["name"] for source in data["sources"]]
    assert re.findall(r"(teacher|student): (\S+)", " ".join(names)) == [
        ("teacher", "B8-T4"),
        ("teacher", "B4-T1"),
        ("student", "B4-T1"),
        ("student", "B8-T4"),
    ]
    assert data["right"] == 3


def test_what_generate_recorded_is_played_with_probabilities_and_drafts(tmp_path, capsys):
    record = tmp_path / "record.jsonl"
    asked = ["--prompt", "Gus has 9 nuts, first drops 4. How many now?", "--temperature", "0"]
    flags = ["--block-size", "8", "--remasking", "self_speculative", "--max-new-tokens", "24"]
    assert main(["generate", *asked, *flags, "--record", str(record)]) == 0
    answer = capsys.readouterr().out.strip()
    data = view(record, "--output", tmp_path / "x.html")
    (shown,) = data["sources"][0]["records"]
    count = len(shown["row"])
    assert [len(shown[name]) for name in ("map", "logprobs", "origins")] == [count] * 3
    assert (shown["forwards"], shown["block"]) == (max(shown["map"]), 8)
    assert set(shown["origins"]) <= set("acbu") and "a" in shown["origins"]
    text = "".join(data["tokens"]["texts"][place] for place in shown["row"])
    assert text.startswith(answer) and "text" not in shown
    assert data["notes"] == []


def test_a_record_that_is_no_record_is_not_written_over(tmp_path, capsys):
    other = tmp_path / "prompts.jsonl"
    other.write_text('{"id": "a", "question": "?"}\n')
    before = other.read_bytes()
    error = run_failing(["generate", "--prompt", "x", "--record", str(other)], capsys)
    assert "nothing tells that this command wrote it" in error and other.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--limit", "0"], "limit=0"),
        (["--output", "page.txt"], "output='page.txt': not the name of a page"),
        (["--compare", "gone"], "compare='gone': no such file or folder"),
        (["--model", "gone/model/x"], "model="),
    ],
)
def test_wrong_flags_are_refused_and_nothing_is_written(rollout, tmp_path, capsys, monkeypatch, flags, named):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    error = run_failing(["view", str(rollout), *flags], capsys)
    assert named in error and "Fix:" in error
    assert sorted(tmp_path.iterdir()) == before


def test_files_of_others_and_inputs_are_not_written_over(rollout, tmp_path, capsys):
    other = tmp_path / "mine.html"
    other.write_text("<!doctype html>\n<p>mine")
    assert "nothing tells" in run_failing(["view", str(rollout), "--output", str(other)], capsys)
    page = tmp_path / "x.html"
    view(rollout, "--output", page)
    assert "is a file to read" in run_failing(["view", str(page), "--output", str(page)], capsys)
    assert other.read_text() == "<!doctype html>\n<p>mine"


def test_the_browser_opens_only_where_it_is_asked_for(rollout, tmp_path, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    page = tmp_path / "x.html"
    view(rollout, "--output", page)
    assert opened == []
    assert main(["view", str(rollout), "--output", str(page), "--open"]) == 0
    assert opened == [page.as_uri()]


def test_a_text_of_a_megabyte_and_a_hostile_name_reach_the_page_whole(tmp_path):
    text = "</script>" + "x" * 1_000_000 + "\ud800"
    file = tmp_path / "a<!--<script>.jsonl"
    file.write_text(json.dumps({"id": "</script>", "response": text}))
    data = view(file, "--output", tmp_path / "x.html")
    assert data["sources"][0]["records"] == [{"id": "</script>", "text": text}]
    assert data["title"] == str(file)

"""Stages are numbered, one whole line each, and the time that is left follows what the finished ones took."""

import io
import math
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.errors import InputError
from t3d.work import progress
from t3d.work.kept import Product
from t3d.work.progress import Progress, Stage, Stages, duration, running_stage, seconds_left

STAGES = [
    Stage(name="evaluate teacher", kind="evaluate", typical_seconds=50.0),
    Stage(name="distil round 1", kind="train", typical_seconds=100.0),
    Stage(name="distil round 2", kind="train", typical_seconds=100.0),
    Stage(name="evaluate student", kind="evaluate", typical_seconds=40.0),
]


class Terminal(io.StringIO):
    """A terminal as far as programs ask."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def product(folder, name) -> Product:
    return Product(path=folder / name, record=folder / f"{name}.json", plan={})


def make(item: Product) -> None:
    item.make(lambda: item.path.write_text("made"))


def run(stages: Stages, folder, clock, seconds) -> None:
    for stage, taken in zip(STAGES, seconds, strict=True):
        with stages.running(stage.name, product(folder, stage.name)):
            clock[0] += taken
            make(product(folder, stage.name))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (119, "2 min"), (3599, "1 h 0 min"), (4800, "1 h 20 min"), (math.nan, "unknown")],
)
def test_durations_are_short_texts(seconds, text):
    assert duration(seconds) == text


@given(st.floats(0.01, 100.0), st.integers(0, 4))
def test_on_a_machine_of_any_pace_the_estimate_is_what_the_rest_takes(pace, num_done):
    took = {stage.name: stage.typical_seconds * pace for stage in STAGES[:num_done]}
    rest = sum(stage.typical_seconds for stage in STAGES[num_done:])
    assert seconds_left(STAGES, took) == pytest.approx(rest * (pace if num_done else 1.0))


def test_a_stage_is_estimated_by_those_of_its_kind():
    """Here a machine evaluates twice and trains three times as slowly as typical."""
    took = {"evaluate teacher": 100.0}
    assert seconds_left(STAGES, took) == 2 * (100 + 100 + 40)
    took["distil round 1"] = 300.0
    assert seconds_left(STAGES, took) == 3 * 100 + 2 * 40


def test_a_stage_that_was_cut_counts_as_done_and_tells_no_pace():
    assert seconds_left(STAGES, {"evaluate teacher": 100.0, "distil round 1": math.nan}) == 2 * (100 + 40)


def test_each_stage_is_a_whole_line_with_its_number_its_time_and_what_is_left(tmp_path, clock):
    stream = io.StringIO()
    run(Stages(STAGES, typical_of="two cores", stream=stream), tmp_path, clock, [100, 300, 310, 80])
    assert stream.getvalue().splitlines() == [
        f"4 stages, typically 5 min on two cores: {', '.join(stage.name for stage in STAGES)}",
        "[1/4] evaluate teacher: 2 min; about 8 min left",
        "[2/4] distil round 1: 5 min; about 6 min left",
        "[3/4] distil round 2: 5 min; about 80 s left",
        "[4/4] evaluate student: 80 s",
    ]


def test_stages_that_were_made_before_are_done_and_one_that_was_cut_says_so(tmp_path, clock):
    first = product(tmp_path, "evaluate teacher")

    def work():
        clock[0] += 100.0
        first.path.write_text("made")

    def cut():
        raise KeyboardInterrupt

    first.make(work)
    with pytest.raises(KeyboardInterrupt):
        product(tmp_path, "distil round 1").make(cut)
    stream = io.StringIO()
    run(Stages(STAGES, typical_of="two cores", stream=stream), tmp_path, clock, [0, 20, 300, 80])
    assert stream.getvalue().splitlines()[1:] == [
        "[1/4] evaluate teacher: 2 min, made before; about 8 min left",
        "[2/4] distil round 1: 20 s since it was cut; about 5 min left",
        "[3/4] distil round 2: 5 min; about 80 s left",
        "[4/4] evaluate student: 80 s",
    ]


def shown(text: str) -> list[str]:
    """Lines that stand on a terminal at the end: what is erased, or written over from its start, is gone."""
    return [re.split(r"\r(?:\x1b\[K)?", line)[-1] for line in text.removesuffix("\n").split("\n")]


def test_a_terminal_names_what_runs_and_keeps_the_same_lines(tmp_path, clock):
    stream, plain = Terminal(), io.StringIO()
    stages = Stages(STAGES, typical_of="two cores", stream=stream)
    with stages.running("evaluate teacher", product(tmp_path, "x")):
        assert stream.getvalue().endswith("[1/4] evaluate teacher ...\r")
        assert running_stage() == "[1/4] evaluate teacher"
    assert running_stage() is None
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    stream = Terminal()
    run(Stages(STAGES, typical_of="two cores", stream=stream), tmp_path / "a", clock, [100, 300, 310, 80])
    run(Stages(STAGES, typical_of="two cores", stream=plain), tmp_path / "b", clock, [100, 300, 310, 80])
    assert shown(stream.getvalue()) == plain.getvalue().splitlines()


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_stage_that_fails_has_no_line_and_leaves_the_next_text_a_line_of_its_own(tmp_path, stream):
    out = stream()
    stages = Stages(STAGES, typical_of="two cores", stream=out)
    with pytest.raises(RuntimeError), stages.running("evaluate teacher", product(tmp_path, "x")):
        raise RuntimeError
    assert out.getvalue().endswith("\n") and ": 0 s" not in out.getvalue() and running_stage() is None


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_bar_of_a_stage_is_not_left_and_one_of_other_work_is(tmp_path, monkeypatch, stream):
    monkeypatch.setenv("TERM", "xterm")
    out = stream()
    monkeypatch.setattr(sys, "stderr", out)
    with Progress("rollout", 3) as bar:
        bar.advance(3)
    assert "3/3" in out.getvalue().rpartition("\x1b[2K")[2], "the last state stays"
    out.seek(0)
    out.truncate()
    stages = Stages(STAGES, typical_of="two cores", stream=io.StringIO())
    with stages.running("distil round 1", product(tmp_path, "x")), Progress("rollout", 3) as bar:
        bar.advance(3)
    assert ("3/3" in out.getvalue()) == out.isatty()
    assert not out.getvalue().rpartition("\x1b[2K")[2].strip(), "the last thing is that it is erased"


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_an_error_of_the_user_stands_alone(monkeypatch, stream):
    monkeypatch.setenv("TERM", "xterm")
    out = stream()
    monkeypatch.setattr(sys, "stderr", out)
    with pytest.raises(InputError), Progress("convert", 4):
        raise InputError("source", "x", "no model", "give one")
    assert not re.split(r"\x1b\[2K", out.getvalue())[-1].strip("\r\n"), "nothing is left"
    assert out.isatty() or out.getvalue() == ""


def test_without_a_terminal_a_stage_has_a_line_now_and_then(tmp_path, monkeypatch, clock):
    """A line in half a minute at most; what was kept from before tells no pace; a silent stage has none."""
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    for is_silent in (False, True):
        stages = Stages(STAGES, typical_of="two cores", stream=io.StringIO(), is_silent=is_silent)
        with stages.running("distil round 1", product(tmp_path, "x")), Progress("rollout", 100) as bar:
            bar.skip(40)
            for _ in range(60):
                clock[0] += 2.0
                bar.advance()
    assert err.getvalue().splitlines() == [
        "[2/4] distil round 1: 55/100, 30 s; about 2 min left",
        "[2/4] distil round 1: 70/100, 60 s; about 60 s left",
        "[2/4] distil round 1: 85/100, 2 min; about 30 s left",
    ]


def test_without_a_terminal_other_work_has_a_line_at_its_end(monkeypatch, clock):
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(KeyboardInterrupt), Progress("rollout", 4) as bar:
        clock[0] += 10.0
        bar.advance()
        raise KeyboardInterrupt
    assert err.getvalue() == "rollout: 1/4, 10 s; about 30 s left\n"


def test_a_bar_is_named_by_the_stage_that_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    stages = Stages(STAGES, typical_of="two cores", stream=io.StringIO())
    with stages.running("distil round 1", product(tmp_path, "x")), Progress("rollout", 1):
        pass
    assert "[2/4] distil round 1" in out.getvalue() and "rollout" not in out.getvalue()

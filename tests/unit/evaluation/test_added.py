"""Tasks and settings can be added to an evaluation; what is done is kept, and all else stays strict."""

import json

import pytest
import torch
from task_helpers import EvenTask

from t3d.decoding.params import DecodeParams
from t3d.decoding.settings import decoding_settings
from t3d.errors import InputError
from t3d.evaluation import added
from t3d.evaluation import evaluate as module
from t3d.evaluation.evaluate import EvalConfig, evaluate
from t3d.evaluation.samples import read_graded
from t3d.models.loading import load_model
from t3d.tasks.task import PosedTask
from t3d.work.kept import KeptLines

SHARED = DecodeParams(max_new_tokens=4, temperature=1.0)
MORE = decoding_settings(block_sizes=(4, 8), tokens_per_step=(4,), dynamic=(0.9,), shared=SHARED)
FEW = {"B4-T4": MORE["B4-T4"]}
FILES = ["results.json", "samples.jsonl"]


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def whole(loaded, tmp_path_factory):
    """Two tasks under all settings, evaluated at once."""
    folder = tmp_path_factory.mktemp("whole")
    run(loaded, folder, "ab", MORE)
    return folder


def posed(name):
    task = EvenTask(name)
    return PosedTask(task=task, problems=task.problems("", 2, 0))


def run(loaded, folder, tasks="a", settings=FEW, **config):
    return evaluate(loaded, [posed(name) for name in tasks], settings, folder, EvalConfig(**config))


def results(folder):
    return json.loads((folder / "results.json").read_text())["results"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def without_times(entries):
    """Entries without what a clock says."""
    times = ("seconds", "latency", "tokens_per_second", "batch1_latency")
    return [{name: value for name, value in entry.items() if name not in times} for entry in entries]


class Cut:
    """Lines that are kept, and a kill before chosen ones."""

    def __init__(self, monkeypatch):
        self.cells, self.kills, real = [], (), KeptLines.append

        def append(lines, row):
            if len(self.cells) in self.kills:
                self.kills = [number for number in self.kills if number != len(self.cells)]
                raise KeyboardInterrupt
            self.cells.append(lines.path.stem.removesuffix(".chunk-00000"))
            real(lines, row)

        monkeypatch.setattr(KeptLines, "append", append)


@pytest.fixture
def lines(monkeypatch):
    return Cut(monkeypatch)


def assert_is(folder, whole):
    assert names(folder) == FILES
    assert (folder / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    assert without_times(results(folder)) == without_times(results(whole))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_settings_and_tasks_are_added_to_a_finished_evaluation(loaded, checkpoint, tmp_path, lines, dtype):
    if dtype == torch.bfloat16:  # where rounding depends on what is decoded together
        loaded = load_model(checkpoint, device="cpu", dtype="bfloat16")
    run(loaded, tmp_path / "at-once", "ab", MORE)
    run(loaded, tmp_path / "added")
    before = results(tmp_path / "added")
    lines.cells.clear()
    run(loaded, tmp_path / "added", "a", FEW | {"B8-T4": MORE["B8-T4"]})
    assert lines.cells == ["a.B8-T4"] * 4, "two responses, two verdicts"
    run(loaded, tmp_path / "added", "ab", MORE)
    assert not {"a.B4-T4", "a.B8-T4"} & set(lines.cells[4:])
    assert_is(tmp_path / "added", tmp_path / "at-once")
    assert results(tmp_path / "added")[0] == before[0], "its seconds, too"
    assert run(loaded, tmp_path / "added", "ab", MORE) == results(tmp_path / "added")


def test_settings_and_tasks_are_added_to_a_half_done_evaluation(loaded, whole, tmp_path, lines):
    lines.kills = (2, 5)  # before the first verdict, in the first setting added
    for tasks, settings in (("a", FEW), ("a", MORE)):
        with pytest.raises(KeyboardInterrupt):
            run(loaded, tmp_path, tasks, settings)
        assert names(tmp_path) == ["unfinished"]
    run(loaded, tmp_path, "ab", MORE)
    assert len(lines.cells) == 2 * len(MORE) * 4, "each response and verdict once"
    assert_is(tmp_path, whole)


def test_a_kill_while_settings_are_added_costs_nothing(loaded, whole, tmp_path, lines):
    """The finished files stay as they are until the end, for whoever reads them."""
    run(loaded, tmp_path)
    before = contents(tmp_path)
    lines.kills = (5, 7, 12)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(loaded, tmp_path, "ab", MORE)
        assert contents(tmp_path) == before and len(read_graded(tmp_path).cells) == 1
        assert run(loaded, tmp_path) == results(tmp_path), (
            "the first command is answered, and takes nothing away"
        )
    run(loaded, tmp_path, "ab", MORE)
    assert len(lines.cells) == 2 * len(MORE) * 4
    assert_is(tmp_path, whole)


@pytest.mark.parametrize("killed_at", ["samples.jsonl", "results.json"])
def test_a_kill_between_the_two_files_costs_nothing(loaded, whole, tmp_path, lines, monkeypatch, killed_at):
    run(loaded, tmp_path)
    real = module.write_text

    def write_text(path, text):
        if path.name == killed_at:
            raise KeyboardInterrupt
        real(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_text", write_text)
        with pytest.raises(KeyboardInterrupt):
            run(loaded, tmp_path, "ab", MORE)
    done = len(lines.cells)
    run(loaded, tmp_path, "ab", MORE)
    assert len(lines.cells) == done
    assert_is(tmp_path, whole)


def test_a_kill_while_the_finished_files_are_copied_costs_nothing(loaded, whole, tmp_path, monkeypatch):
    run(loaded, tmp_path)
    real = added.shutil.copyfile

    def copy(source, target):
        if source.name == "results.json":
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(added.shutil, "copyfile", copy)
        with pytest.raises(KeyboardInterrupt):
            run(loaded, tmp_path, "ab", MORE)
    run(loaded, tmp_path, "ab", MORE)
    assert_is(tmp_path, whole)


@pytest.mark.parametrize("is_finished", [True, False])
def test_nothing_is_taken_away_and_nothing_else_changes(loaded, tmp_path, lines, is_finished):
    lines.kills = () if is_finished else (10,)
    if is_finished:
        run(loaded, tmp_path, "ab", MORE)
    else:
        with pytest.raises(KeyboardInterrupt):
            run(loaded, tmp_path, "ab", MORE)
    before, cells = contents(tmp_path), len(lines.cells)
    other = MORE | {"B4-T4": DecodeParams(max_new_tokens=4, temperature=1.0, seed=1)}
    added_setting = {"B4-T2": MORE["B4-T4"]}
    for change, difference in [
        ({"tasks": "a"}, r"tasks\.b was given, now not given"),
        ({"settings": FEW}, r"settings\.B4-dynamic was given, now not given"),
        ({"settings": FEW | added_setting}, r"settings\.B4-dynamic was given, now not given"),
        ({"settings": other | added_setting}, r"run: settings\.B4-T4\.seed was 0, now 1"),
        ({"tasks": "abc", "samples_per_prompt": 2}, r"run: samples_per_prompt was 1, now 2"),
    ]:
        with pytest.raises(InputError, match=difference) as caught:
            run(loaded, tmp_path, **({"tasks": "ab", "settings": MORE} | change))
        assert caught.value.field == "output" and "\n" not in str(caught.value)
        assert ("(tasks and settings may be added)" in caught.value.fix) == is_finished
    assert contents(tmp_path) == before and len(lines.cells) == cells


def test_a_copy_that_changed_is_named(loaded, tmp_path, lines):
    run(loaded, tmp_path)
    lines.kills = (6,)
    with pytest.raises(KeyboardInterrupt):
        run(loaded, tmp_path, "a", MORE)
    for name in FILES:
        (tmp_path / name).unlink()  # the copy is what is left
    copy = tmp_path / "unfinished" / "samples.jsonl"
    copy.write_text(copy.read_text().replace('"correct": ', '"correct":  '))
    with pytest.raises(InputError, match=r"unfinished/samples\.jsonl': not the file that results\.json sums"):
        run(loaded, tmp_path, "a", MORE)


@pytest.mark.parametrize("content", [None, "", "{", '{"id": "a/0", "correct": true}'])
def test_responses_that_are_not_those_of_old_results_are_named_before_anything_is_done(
    loaded, tmp_path, lines, content
):
    """Results of an earlier version have neither a checksum nor the SHA-256 of their lines."""
    run(loaded, tmp_path)
    path = tmp_path / "results.json"
    report = json.loads(path.read_text())
    del report["checksum"], report["lines_sha256"]
    path.write_text(json.dumps(report))
    (tmp_path / "samples.jsonl").unlink()
    if content is not None:
        (tmp_path / "samples.jsonl").write_text(content)
    done, before = len(lines.cells), contents(tmp_path)
    with pytest.raises(InputError, match=r"^output="):
        run(loaded, tmp_path, "a", MORE)
    assert (len(lines.cells), contents(tmp_path)) == (done, before)
    assert [path.name for path in (tmp_path / "unfinished").iterdir()] == ["plan.json"]

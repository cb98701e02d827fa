"""scripts/gpu_check.sh: parts are kept, continued and kept apart, and what was not run is never passed."""

import json
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PARTS_OF_TEST = """
import os, time
from functools import partial

def cases(machine):
    return [lambda: {"device": machine.device, "ok": True}, lambda: {"number": 2}]

def failing(machine):
    return [lambda: {"ok": True}, lambda: {"ok": False, "why": "numbers differ"}, lambda: {"ok": True}]

def raising(machine):
    return [lambda: {"ok": True}, lambda: 1 / 0]

def slow(machine):
    def case():
        time.sleep(0.2)
        return {"slept": True}
    return [case] * 50

def hanging(machine):
    return [lambda: {"ok": True}, lambda: time.sleep(60)]

def dying(machine):
    return [lambda: {"ok": True}, lambda: os._exit(3)]
"""
# From 3.12 on Python warns of a fork beside threads; a part's process uses none of its parent's.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def _modules_are_found(monkeypatch, tmp_path):
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "parts_of_test.py").write_text(PARTS_OF_TEST)
    (folder / "without_package.py").write_text("import no_such_package.inside\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield
    for name in ("parts_of_test", "without_package"):
        sys.modules.pop(name, None)


@pytest.fixture
def parts():
    import gpu_parts  # noqa: PLC0415

    return gpu_parts


@pytest.fixture
def check():
    import gpu_check  # noqa: PLC0415

    return gpu_check


@pytest.fixture
def make(parts):
    def part(function, **fields):
        module = "without_package" if function == "absent" else "parts_of_test"
        settings = {"name": function, "claim": f"of {function}", "seconds": 20.0} | fields
        return parts.Part(function=f"{module}.{function}", **settings)

    return part


@pytest.fixture
def machine(parts):
    return parts.Machine(device="cpu", is_tiny=True)


def test_a_part_passes_with_all_its_rows(parts, make, machine):
    kept = []
    outcome = parts.run_here(make("cases"), machine, 20.0, kept.append)
    assert (outcome.status, outcome.reason) == ("passed", "")
    assert list(outcome.rows) == kept == [{"device": "cpu", "ok": True}, {"number": 2}]


@pytest.mark.parametrize(
    ("function", "fields", "status", "reason"),
    [
        ("failing", {}, "failed", "numbers differ"),
        ("raising", {}, "failed", "ZeroDivisionError: division by zero"),
        ("not_there", {}, "failed", "AttributeError: module 'parts_of_test' has no attribute 'not_there'"),
        ("absent", {}, "not run", "needs no_such_package"),
        ("cases", {"needs": ("json", "no_such_package")}, "not run", "needs no_such_package"),
        ("cases", {"needs_cuda": True}, "not run", "needs CUDA"),
    ],
)
def test_what_does_not_pass_says_why_in_one_line(parts, make, machine, function, fields, status, reason):
    outcome = parts.run_here(make(function, **fields), machine, 20.0)
    assert (outcome.status, outcome.reason) == (status, reason)


def test_a_part_for_more_gpus_than_there_are_is_not_run(parts, make, machine, monkeypatch):
    """Where PyTorch is built for GPUs processes take no CPU in their place."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    outcome = parts.run_here(make("cases", num_devices=2), machine, 20.0)
    assert (outcome.status, outcome.reason) == ("not run", "needs 2 GPUs, of which there are 1")


def test_a_missing_module_of_our_own_is_a_failure(parts, machine):
    part = parts.Part(name="one", claim="", function="t3d.not_there", seconds=1.0)
    assert parts.run_here(part, machine, 1.0).status == "failed"


def test_no_case_is_begun_that_does_not_fit_into_the_budget(parts, make, machine):
    outcome = parts.run_here(make("slow"), machine, 0.7)
    assert outcome.status == "passed" and 1 <= len(outcome.rows) <= 3
    assert outcome.reason == f"{len(outcome.rows)} of 50 cases fitted into 0.7 s"


@pytest.mark.parametrize(
    ("function", "seconds", "reason"),
    [("hanging", 0.5, "killed after 0.5 s"), ("dying", 20.0, "its process died (3)")],
)
def test_a_part_that_hangs_or_dies_fails_and_its_rows_are_kept(
    parts, make, machine, tmp_path, function, seconds, reason
):
    outcome = parts.run_apart(make(function), machine, seconds, tmp_path / "log")
    assert (outcome.status, outcome.reason, outcome.rows) == ("failed", reason, ({"ok": True},))
    assert outcome.seconds < 10


def test_without_a_gpu_the_full_check_is_refused(check, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(check, "ProcessPoolExecutor", lambda number, **_: ThreadPoolExecutor(number))
    assert check.main(["--output", str(tmp_path / "output"), "--parts", "graphs"]) == 2
    assert "PyTorch finds no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "output").exists()


def test_where_a_fork_cannot_use_cuda_the_parts_import_all_anew(check, monkeypatch):
    answers = iter([RuntimeError("cannot be initialised again"), "NVIDIA"])

    def cuda_name():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(check, "cuda_name", cuda_name)
    monkeypatch.setattr(check, "ProcessPoolExecutor", lambda number, **_: ThreadPoolExecutor(number))
    assert check.find_device("cuda") == ("NVIDIA", "spawn")


def test_a_traceback_goes_to_the_log(parts, make, machine, tmp_path):
    outcome = parts.run_apart(make("raising"), machine, 20.0, tmp_path / "log")
    assert outcome.line == "failed (1 rows): ZeroDivisionError: division by zero"
    assert "1 / 0" in (tmp_path / "log").read_text()


def test_passed_parts_are_kept_and_all_others_run_again(check, make, machine, tmp_path, capsys, monkeypatch):
    chosen = [make("cases"), make("failing"), make("cases", name="on a GPU", needs_cuda=True)]
    monkeypatch.setattr(check, "PARTS", chosen)
    output, about = tmp_path / "output", {"device": "cpu", "commit": "abc"}
    for _ in range(2):
        assert not check.run_parts(chosen, machine, None, output, about)
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith("found before") for line in lines] == [False] * 4 + [True] + [False] * 3
    assert lines[-1].startswith("1 passed, 1 failed, 1 not run")
    record = json.loads((output / "gpu_check.json").read_text())
    assert {name: part["status"] for name, part in record["parts"].items()} == {
        "cases": "passed",
        "failing": "failed",
        "on a GPU": "not run",
    }


def test_the_file_is_whole_after_every_part(parts, check, make, machine, tmp_path, monkeypatch):
    """A kill between two parts loses neither the first one's rows nor the page."""
    monkeypatch.setattr(check, "PARTS", chosen := [make("cases"), make("failing")])
    seen, run = [], check.run_apart

    def watched(part, *rest):
        file = tmp_path / "output" / "gpu_check.json"
        seen.append(list(json.loads(file.read_text())["parts"]) if file.exists() else None)
        return run(part, *rest)

    monkeypatch.setattr(check, "run_apart", watched)
    check.run_parts(chosen, machine, None, tmp_path / "output", {"device": "cpu"})
    assert seen == [None, ["cases"]]


def test_a_check_of_which_nothing_ran_has_not_passed(check, make, machine, tmp_path, monkeypatch, capsys):
    chosen = [make("absent"), make("cases", name="on a GPU", needs_cuda=True)]
    monkeypatch.setattr(check, "PARTS", chosen)
    assert not check.run_parts(chosen, machine, None, tmp_path / "output", {"device": "cpu"})
    assert "0 passed, 0 failed, 2 not run" in capsys.readouterr().out


def test_missing_packages_are_named_with_how_to_bring_them(check, make, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check, "WITHOUT_DEPENDENCIES", ("no_such_trainer",))
    needs = ("json", "no_such_trainer", "no_such_package")
    monkeypatch.setattr(check, "PARTS", [make("cases"), make("failing", needs=needs)])
    arguments = ["--device", "cpu", "--tiny", "--output", str(tmp_path / "output")]
    assert check.main([*arguments, "--parts", "cases"]) == 0
    assert "missing packages" not in capsys.readouterr().out
    assert check.main([*arguments, "--parts", "failing"]) == 1
    told = capsys.readouterr().out
    assert "not run: needs no_such_trainer, no_such_package" in told
    assert "missing packages: no_such_trainer, no_such_package." in told
    assert "--target DIR no_such_package\n" in told and "--target DIR --no-deps no_such_trainer\n" in told
    assert "PYTHONPATH=DIR scripts/gpu_check.sh" in told


@pytest.mark.slow
def test_decoding_imports_no_package_for_files():
    code = "import sys; sys.modules['pyarrow'] = None; import gpu_decoding_checks, gpu_decoding_speed"
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "benchmarks")])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_page_that_a_kill_prevented_is_written_by_the_next_call(
    check, make, machine, tmp_path, monkeypatch
):
    monkeypatch.setattr(check, "PARTS", chosen := [make("cases")])
    for _ in range(2):
        assert check.run_parts(chosen, machine, None, tmp_path / "output", {"device": "cpu"})
        (tmp_path / "output" / "gpu_check.md").unlink()  # fails where it is not there


@pytest.mark.parametrize(
    ("seconds", "about"), [(7.0, {"device": "cpu"}), (None, {"device": "cpu", "source": "other"})]
)
def test_other_arguments_and_other_sources_do_not_mix(
    check, make, machine, tmp_path, monkeypatch, seconds, about
):
    monkeypatch.setattr(check, "PARTS", chosen := [make("cases")])
    output = tmp_path / "output"
    assert check.run_parts(chosen, machine, None, output, {"device": "cpu"})
    with pytest.raises(ValueError, match="holds the work of another run"):
        check.run_parts(chosen, machine, seconds, output, about)


def test_all_budgets_fit_into_eight_minutes_and_no_call_takes_more(check):
    usual = [part for part in check.PARTS if part.by_default]
    assert sum(check.budgets(usual, None).values()) <= check.MOST_SECONDS < 480
    with pytest.raises(ValueError, match="450 are allowed"):
        check.budgets(check.PARTS, 100.0)


def test_every_part_leads_to_a_function(check):
    assert all(callable(part.load()) for part in check.PARTS)
    assert len({part.name for part in check.PARTS}) == len(check.PARTS)


def test_the_page_has_every_part_and_all_fields_of_its_rows(check):
    rows = [
        {"dtype": "float32", "gap": 0.00012346, "ok": True},
        {"dtype": "bfloat16", "losses": [1.5, 2], "tokens/s": 12345.6},
    ]
    failed = {"status": "failed", "reason": "gap 1", "seconds": 3.21, "rows": rows}
    absent = {"status": "not run", "reason": "needs CUDA", "seconds": 0.0, "rows": []}
    record = {"about": {"device": "cpu", "torch": "2"}, "parts": {"engine": failed, "graphs": absent}}
    text = check.page(record, {"engine": "a claim", "graphs": "another"})
    assert "| engine | a claim | failed: gap 1 | 3.2 |" in text
    assert "| graphs | another | not run: needs CUDA | 0.0 |" in text
    assert (
        textwrap.dedent(
            """
        ## engine

        | dtype | gap | ok | losses | tokens/s |
        | --- | --- | --- | --- | --- |
        | float32 | 0.0001235 | yes |  |  |
        | bfloat16 |  |  | 1.5, 2 | 12346 |
        """
        )
        in text
    )
    assert "## graphs" not in text and "No GPU was used" in text
    assert "No GPU was used" not in check.page(record | {"about": {"device": "NVIDIA"}}, {})


def test_cheap_parts_run_on_a_cpu(check, tmp_path, capsys):
    arguments = ["--device", "cpu", "--tiny", "--output", str(tmp_path / "output")]
    assert check.main([*arguments, "--parts", "flex_mask", "placement", "graphs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["graphs", "flex_mask", "placement"]
    assert lines[0].endswith("not run: needs CUDA") and lines[3].startswith("2 passed, 0 failed, 1 not run")


def test_a_cpu_is_refused_for_the_full_size(check):
    with pytest.raises(SystemExit):
        check.main(["--device", "cpu"])


@pytest.mark.slow
def test_a_part_that_is_started_anew_finds_what_a_forked_one_does(parts, make, machine, tmp_path):
    outcome = parts.run_apart(make("cases"), machine, 100.0, tmp_path / "log", "spawn")
    assert (outcome.status, outcome.rows) == ("passed", ({"device": "cpu", "ok": True}, {"number": 2}))


def statuses(folder, *arguments):
    """Of every part, by one command that must end well."""
    command = [str(ROOT / "scripts" / "gpu_check.sh"), *arguments, "--tiny", "--output", str(folder)]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((folder / "gpu_check.json").read_text())["parts"]
    assert all(part["rows"] for part in parts.values() if part["status"] != "not run")
    return {name: part["status"] for name, part in parts.items()}


@pytest.mark.slow
def test_one_command_runs_every_part_on_a_cpu(check, tmp_path):
    found = statuses(tmp_path / "output", "--device", "cpu")
    usual = [part for part in check.PARTS if part.by_default]
    assert found == {part.name: "not run" if part.needs_cuda else "passed" for part in usual}


@pytest.mark.slow
@pytest.mark.timeout(900)  # five commands that import everything
@pytest.mark.skipif(torch.accelerator.current_accelerator() is not None, reason="processes take its GPUs")
@pytest.mark.parametrize("name", ["workers", "shared_model"])
def test_parts_of_several_processes_run_by_name(tmp_path, name):
    line = ["--device", "cpu", "--parts", name, "--seconds", "440"]
    assert statuses(tmp_path / "output", *line) == {name: "passed"}


@pytest.mark.gpu
def test_every_part_passes_on_a_gpu(check, tmp_path):
    usual = [part.name for part in check.PARTS if part.by_default]
    assert statuses(tmp_path / "output") == dict.fromkeys(usual, "passed")


@pytest.mark.gpu
def test_workers_that_share_a_gpu_pass(tmp_path):
    assert statuses(tmp_path / "output", "--parts", "workers") == {"workers": "passed"}

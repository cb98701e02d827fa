"""Processes that share a model end together when one raises where another goes on: none waits for ever."""

import subprocess
import sys

import followed_helpers
import psutil
import pytest
from followed_helpers import NEEDS_GLOO_ON_CPUS

pytestmark = [pytest.mark.slow, NEEDS_GLOO_ON_CPUS]


def listening(process):
    """Addresses at which it can be reached."""
    return [one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]


def started(checkpoint, *how):
    command = [sys.executable, followed_helpers.__file__, str(checkpoint), *how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("failing_rank", "reason"),
    [("0", "one has not ended its call"), ("1", "one has failed: RuntimeError at ['0', '1']")],
)
def test_one_that_raises_alone_ends_all_of_them_and_says_why(checkpoint, failing_rank, reason):
    with started(checkpoint, failing_rank) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == "loaded\n"
        others = psutil.Process(leader.pid).children(recursive=True)
        hosts = {host for process in (psutil.Process(leader.pid), *others) for host in listening(process)}
        out, err = leader.communicate(timeout=120)
    assert out == "" and leader.returncode == -9
    assert f"the processes that share a model have parted: {reason}" in err
    assert hosts == {"127.0.0.1"}
    assert psutil.wait_procs(others, timeout=30)[1] == []


@pytest.mark.parametrize(
    ("rank", "how", "out", "reason"),
    [
        ("1", "sees otherwise", "loaded\n", "processes that share a model have decoded something else"),
        ("1", "cannot load", "", "a process that shares the model cannot load it: RuntimeError: no weights"),
        ("0", "cannot load", "", "RuntimeError: no weights here"),
    ],
)
def test_what_is_found_between_calls_is_an_error_and_no_process_stays(checkpoint, rank, how, out, reason):
    with started(checkpoint, rank, how) as leader:
        told, err = leader.communicate(timeout=120)
    assert told == out and leader.returncode == 1
    assert reason in err.splitlines()[-1]
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if str(checkpoint) in (one.info["cmdline"] or ())
    ]

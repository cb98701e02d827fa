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


@pytest.mark.parametrize(
    ("failing_rank", "reason"),
    [("0", "one has not ended its call"), ("1", "one has failed: RuntimeError at ['0', '1']")],
)
def test_one_that_raises_alone_ends_all_of_them_and_says_why(checkpoint, failing_rank, reason):
    command = [sys.executable, followed_helpers.__file__, str(checkpoint), failing_rank]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == "loaded\n"
        others = psutil.Process(leader.pid).children(recursive=True)
        assert {host for process in (psutil.Process(leader.pid), *others) for host in listening(process)} == {
            "127.0.0.1"
        }
        out, err = leader.communicate(timeout=120)
    assert out == "" and leader.returncode == -9
    assert f"the processes that share a model have parted: {reason}" in err
    assert psutil.wait_procs(others, timeout=30)[1] == []

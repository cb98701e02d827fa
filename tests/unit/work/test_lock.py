"""A lock is held by one run at a time."""

import subprocess
import sys

import pytest

from t3d.work.lock import InUseError, locked


def test_a_lock_is_one_run_s_and_may_be_waited_for(tmp_path):
    path = tmp_path / "unit"
    with locked(path), pytest.raises(InUseError, match="another run is using it"), locked(path):
        pytest.fail("locked twice")
    script = "import sys, time; from pathlib import Path; from t3d.work.lock import locked\n"
    script += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(0.2)"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with locked(path, wait=True):
            assert other.wait() == 0
    assert list(tmp_path.iterdir()) == []

"""The sandbox where bubblewrap does not work: Landlock for files, seccomp for system calls, resource limits.

All three are put up by the interpreter for itself and cannot be taken down again. Weaker than bubblewrap: the
program sees which files exist outside, though it can read and write none; each file in its folder is limited,
their number is not; and an ordinary user's threads count together with the user's other processes.
"""

import ctypes
import os
import resource
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from t3d.sandbox.bubblewrap import DEVICES
from t3d.sandbox.paths import readable_paths

CREATE_RULESET = 444
GIVE_VERSION = 1
MIN_VERSION = 3
"""Of Landlock's interface (Linux 6.2, 2023): the first that also keeps files from being truncated."""
WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE, MAKE_REG, TRUNCATE = (1 << bit for bit in (1, 2, 3, 5, 8, 14))
# How many of its kinds of access, from bit 0, a version knows: of files, of TCP, of other processes.
KNOWN_BITS = {3: (15, 0, 0), 4: (15, 2, 0), 5: (16, 2, 0), 6: (16, 2, 2)}
MAX_USER_THREADS = 4096
CONTROL_GROUPS = "/sys/fs/cgroup"


@cache
def landlock_version() -> int:
    """Version of Landlock's interface in this kernel; 0 without it."""
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_long(0)
    return max(0, libc.syscall(ctypes.c_long(CREATE_RULESET), zero, zero, ctypes.c_long(GIVE_VERSION)))


def landlock_ruleset(folder: str | None) -> dict[str, Any] | None:
    """Arguments of ``make_ruleset`` in ``walls.py`` that leave ``folder``, if any; None on old kernels."""
    version = landlock_version()
    if version < MIN_VERSION:
        return None
    counts = KNOWN_BITS[min(version, max(KNOWN_BITS))]
    handled = b"".join(((1 << count) - 1).to_bytes(8, sys.byteorder) for count in counts)
    used = 8 * max(index for index, count in enumerate(counts, start=1) if count)
    rules = [(path, _reading(path)) for path in readable_paths()]
    rules += [(device, READ_FILE | WRITE_FILE) for device in DEVICES]
    if folder is not None:
        rules.append((folder, READ_FILE | READ_DIR | WRITE_FILE | MAKE_REG | REMOVE_FILE | TRUNCATE))
    return {"handled": handled[:used], "rules": tuple(rules)}


def _reading(path: str) -> int:
    return READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE


@cache
def max_user_threads() -> int:
    """How many threads a program's user may have, who also has other processes.

    At most half of those that this process's limit and control groups allow: then other programs start beside
    one that takes all that it can get.
    """
    limits = [2 * MAX_USER_THREADS, resource.getrlimit(resource.RLIMIT_NPROC)[0]]
    with suppress(OSError):
        group = Path(CONTROL_GROUPS, Path("/proc/self/cgroup").read_text().rpartition(":")[2].strip("/\n"))
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):  # none here, or ``max``
                limits.append(int((folder / "pids.max").read_text()))
    return min(limit for limit in limits if limit != resource.RLIM_INFINITY) // 2

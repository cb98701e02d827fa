"""The sandbox of choice: bubblewrap, with namespaces of its own for files, processes and the network.

An ordinary user needs a user namespace. Root does without one, since in it the kernel would not limit the
number of processes; the runner then gives up root for an unused user id, for which alone bubblewrap leaves
it two capabilities. A third lets it limit the number of files before it gives up all; bubblewrap itself
cannot do that, and where it is installed with root's rights it leaves none to an ordinary user.
"""

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import PurePath

from t3d.sandbox.paths import readable_paths

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
FOLDERS = ("/tmp", "/var/tmp", "/t3d")
"""Where the private folder may be, in memory: the first below which nothing else has to lie."""

MAX_FILES = 10_000
"""Each takes memory of the kernel's, an empty one too."""


def max_files() -> int | None:
    """How many files the private folder may hold; None where that cannot be limited."""
    bubblewrap = shutil.which("bwrap")
    is_limited = bubblewrap is not None and (
        os.geteuid() == 0 or not os.stat(bubblewrap).st_mode & stat.S_ISUID
    )
    return MAX_FILES if is_limited else None


def bubblewrap_command(
    inner: Sequence[str], *, folder_bytes: int, dies_with_thread: bool = True
) -> list[str] | None:
    """``inner`` in a sandbox that ends with the thread that starts it; None if bubblewrap is not installed.

    Needs bubblewrap 0.7 (2022) or newer, which can limit the size of a folder in memory.
    """
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        return None
    command = [bubblewrap, "--new-session", "--cap-drop", "ALL"]
    if dies_with_thread:
        command.append("--die-with-parent")
    namespaces = ["ipc", "pid", "net", "uts", "cgroup-try"]
    if os.geteuid() == 0:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        namespaces.append("user")
    if max_files() is not None:
        command += ["--cap-add", "CAP_SYS_ADMIN"]
    command += [f"--unshare-{name}" for name in namespaces]
    folder = next(name for name in FOLDERS if not any(p.startswith(f"{name}/") for p in readable_paths()))
    command += ["--size", str(folder_bytes), "--perms", "0777", "--tmpfs", folder]
    # Made before what they hold: bubblewrap by itself would make them for their owner alone.
    parents = {str(parent) for path in readable_paths() for parent in PurePath(path).parents}
    for parent in sorted(parents - {"/"}):
        command += ["--dir", parent]
    for path in readable_paths():
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        else:
            command += ["--ro-bind", path, path]
    for device in DEVICES:
        command += ["--dev-bind", device, device]
    return [*command, "--remount-ro", "/", "--chdir", folder, "--", *inner]

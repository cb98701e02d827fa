"""What a tested program may read: the interpreter, its libraries and the installed packages, nothing else."""

import os
import sys
import sysconfig
from functools import cache

SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/nix/store")
LOADER_CACHE = "/etc/ld.so.cache"
"""Names the folders of shared libraries."""


@cache
def interpreter() -> str:
    """This interpreter itself: a virtual environment's only points to it."""
    return os.path.realpath(sys.executable)


@cache
def package_folders() -> tuple[str, ...]:
    """Folders of this environment's installed packages."""
    names = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return tuple(sorted(name for name in names if os.path.isdir(name)))


@cache
def readable_paths() -> tuple[str, ...]:
    """Files and folders that a tested program may read, no one inside another."""
    library_folders = [os.path.join(sys.base_exec_prefix, name) for name in ("lib", "lib64")]
    candidates = [*SYSTEM_FOLDERS, LOADER_CACHE, *library_folders, interpreter(), *package_folders()]
    found: list[str] = []
    for path in sorted(set(candidates)):
        if os.path.exists(path) and not any(path.startswith(f"{above}/") for above in found):
            found.append(path)
    return tuple(found)

"""Memory that a step frees is there for the next."""

import platform
import subprocess
import sys

import pytest

from t3d.training import freed_memory

COUNT = """
import resource, sys, torch
from t3d.training.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):  # the first two to grow
    before = faults()
    for _ in range(8):
        torch.ones(3 * 2**24)
    found = faults() - before
print(found)
"""
"""Eight pieces of 192 MiB, each freed before the next: 49,152 pages of 4 KiB each."""


def page_faults(how):
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's memory is what this is about")
def test_the_next_piece_takes_the_pages_of_the_last(monkeypatch):
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    kept = page_faults("kept")
    given_back = page_faults("given back")
    assert kept < 0.1 * given_back


def test_a_setting_of_the_users_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert not freed_memory.keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch):
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: object())
    assert not freed_memory.keep_freed_memory()

"""What the C library does with memory that is freed between two operations."""

import ctypes
import os

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_AS_MUCH_AS_THERE_IS = 2**31 - 1
"""Bytes; the function takes an int, and above two gigabytes the end of the heap is given back."""


def keep_freed_memory() -> bool:
    """Let glibc keep what this process frees, for what it allocates next; False where that is not possible.

    By default it gives large pieces back to the system, which clears each page again when it is next
    touched: of a training step on a CPU, which allocates and frees the same sizes over and over, that
    took up to a fifth (docs/LOG.md). The process keeps its peak until it ends. A user's own setting in the
    environment (``MALLOC_..._``, ``GLIBC_TUNABLES``) and other C libraries are left alone.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _AS_MUCH_AS_THERE_IS))

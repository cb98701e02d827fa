"""Versions of what a result depends on."""

import functools
import platform
from importlib.metadata import version

PACKAGES = ("t3d", "torch", "transformers", "accelerate", "tokenizers", "pyarrow")


def versions() -> dict[str, str]:
    """Python's and the packages' versions."""
    return dict(_installed())


@functools.cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Looked up once: metadata are files, and every unit of a table names its versions."""
    return ("python", platform.python_version()), *((name, version(name)) for name in PACKAGES)

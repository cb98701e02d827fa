"""Versions of what a result depends on."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("t3d", "torch", "transformers", "accelerate", "tokenizers", "pyarrow")


def versions() -> dict[str, str]:
    """Python's and the packages' versions."""
    return dict(_installed())


@functools.cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Looked up once: metadata are files, and every unit of a table names its versions."""
    return ("python", platform.python_version()), *((name, _version(name)) for name in PACKAGES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # t3d itself, where a clone is run by PYTHONPATH
        return "not installed"

"""Versions of what a result depends on."""

import platform
from importlib.metadata import version

PACKAGES = ("t3d", "torch", "transformers", "accelerate", "tokenizers", "pyarrow")


def versions() -> dict[str, str]:
    """Python's and the packages' versions."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}

"""The environment of all tests; their fixtures are in model_fixtures.py."""

import gc
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # No test needs the network
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # The commands that tests start share the cores with other tests


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures, but not where tests are only handed to other processes: seconds of imports."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("model_fixtures")


def pytest_collection_finish() -> None:
    """Collect no garbage among what was imported: it lives to the end, and looking through it is slow."""
    gc.collect()
    gc.freeze()

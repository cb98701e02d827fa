"""Versions are those that are installed, and a package that is not says so."""

from importlib.metadata import version

import pytest

from t3d.work import versions as module


@pytest.fixture(autouse=True)
def _asked_anew():
    module._installed.cache_clear()
    yield
    module._installed.cache_clear()


def test_a_clone_that_is_not_installed_has_versions_of_the_rest(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("no-such-package", "torch"))
    assert list(module.versions().items())[1:] == [
        ("no-such-package", "not installed"),
        ("torch", version("torch")),
    ]

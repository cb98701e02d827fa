"""Fixtures of the tests of whole commands."""

from collections.abc import Iterator
from typing import Any

import pytest
from browser_helpers import Open, page_opener, started_browser
from command_helpers import write_prompts

from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out
from t3d.models.loading import load_model
from t3d.problems.problem import Problem


@pytest.fixture
def prompts(tmp_path):
    """A prompt file of six problems."""
    return write_prompts(tmp_path)


@pytest.fixture(scope="session")
def trajectories(checkpoint):
    """Eight rollouts of the tiny model in float64."""
    loaded = load_model(checkpoint, device="cpu", dtype="float64")
    questions = ["how many", "how many apples", "so the answer", "now?", "is left", "a b c", "apples", "the"]
    problems = [Problem(id=str(index), question=question) for index, question in enumerate(questions)]
    return roll_out(loaded, problems, DecodeParams(max_new_tokens=12, temperature=1.0))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    yield from started_browser()


@pytest.fixture
def open_page(browser) -> Iterator[Open]:
    """Opens files in it; whatever a page logs, throws or asks for fails the test."""
    yield from page_opener(browser)


@pytest.fixture
def open_served(browser) -> Iterator[Open]:
    """The same for pages of a server on this machine."""
    yield from page_opener(browser, ("http://127.0.0.1:", "data:"))

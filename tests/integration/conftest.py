"""Fixtures of the tests of whole commands."""

import json

import pytest


@pytest.fixture
def prompts(tmp_path):
    """A prompt file of six problems."""
    path = tmp_path / "prompts.jsonl"
    rows = [{"id": str(index), "question": f"how many apples {index}", "answer": "1"} for index in range(6)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path

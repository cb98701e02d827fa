"""What seeds share, of the built-in tasks and of files."""

import json

import pytest

from t3d.reproduce.suite_data import MiniData, SdarData, draws_training_prompts, shared_share


@pytest.fixture
def folder(tmp_path):
    """Two training prompts and a benchmark of three problems."""
    lines = [{"id": str(index), "question": f"{index}?", "task": "math"} for index in range(2)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (tmp_path / "gsm8k").mkdir()
    rows = [{"question": f"What is {index}?", "answer": f"#### {index}"} for index in range(3)]
    (tmp_path / "gsm8k" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path


@pytest.mark.many_inputs
def test_seeds_share_all_of_a_split_that_has_no_more_problems():
    """``make`` has 512 test problems, ``chain`` many."""
    assert shared_share(MiniData(), "make", 512, (0, 1, 2)) == 1.0
    assert shared_share(MiniData(), "chain", 512, (0, 1, 2)) == 0.0
    # Pairs of seeds have 10, 10 and 2 of 512 in common.
    assert shared_share(MiniData(), "code", 512, (0, 1, 2)) == pytest.approx(22 / 3 / 512)


def test_seeds_share_a_benchmark(folder):
    assert shared_share(SdarData(folder), "gsm8k", None, (0, 1)) == 1.0
    assert shared_share(SdarData(folder), "gsm8k", 2, (0, 1, 2)) == 1.0


def test_a_single_seed_shares_nothing_and_reads_nothing(tmp_path):
    assert shared_share(SdarData(tmp_path), "gsm8k", None, (0,)) == 0.0


def test_training_prompts_of_a_file_are_the_same_for_every_seed(folder):
    assert draws_training_prompts(MiniData())
    assert not draws_training_prompts(SdarData(folder))

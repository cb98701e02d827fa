"""Sentences of the report."""

import dataclasses
import json

import pytest

from t3d.reproduce.report import seeds_note
from t3d.reproduce.suites import MINI, load_suite


@pytest.mark.many_inputs
def test_the_report_says_which_problems_the_seeds_of_mini_share():
    assert seeds_note(MINI, 512, 3) == (
        "A seed draws training prompts, test problems of chain and code, sampling noise and training noise; "
        "all seeds share the test problems of make."
    )
    chain = dataclasses.replace(MINI, tasks=("chain",))
    assert seeds_note(chain, 512, 1) == (
        "A seed draws training prompts, test problems of chain, sampling noise and training noise."
    )


def test_the_report_says_that_the_seeds_of_real_data_share_all_problems(tmp_path):
    prompt = {"id": "0", "question": "0?", "task": "math"}
    (tmp_path / "train.jsonl").write_text(json.dumps(prompt) + "\n")
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text(json.dumps({"question": "1?", "answer": "#### 1"}) + "\n")
    suite = dataclasses.replace(load_suite("sdar", str(tmp_path)), tasks=("gsm8k",))
    assert seeds_note(suite, None, 3) == (
        "A seed draws sampling noise and training noise; "
        "all seeds share the training prompts and the test problems of gsm8k."
    )

"""The bundled teacher does what its card and the README say, on 512 held-out prompts."""

import hashlib

import pytest

from t3d.demo import SETTINGS
from t3d.evaluation.evaluate import evaluate
from t3d.mini.tasks import mini_task
from t3d.models.loading import BUNDLED_TEACHER, load_model


def test_card_names_the_hash_of_the_bundled_weights_which_are_small():
    weights = (BUNDLED_TEACHER / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in (BUNDLED_TEACHER / "README.md").read_text()
    assert len(weights) <= 6_000_000


@pytest.mark.slow
def test_teacher_is_right_at_full_steps_and_collapses_at_few():
    loaded, task = load_model("mini", device="cpu"), mini_task("chain")
    problems = task.problems("test", 512, seed=0)
    names = [name for name in SETTINGS if name not in ("B8-T8", "B4-dynamic")]
    accuracy = {name: 100 * evaluate(loaded, task, problems, SETTINGS[name]).accuracy for name in names}
    assert accuracy["B4-T1"] >= 97
    assert accuracy["B8-T1"] >= 93
    assert (accuracy["B4-T2"] + accuracy["B8-T2"]) / 2 >= 60
    assert (accuracy["B4-T4"] + accuracy["B8-T4"]) / 2 <= accuracy["B4-T1"] - 25

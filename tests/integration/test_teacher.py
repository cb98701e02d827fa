"""The bundled teachers do what their cards and the README say, on 512 held-out prompts per task."""

import hashlib
import json
from pathlib import Path
from statistics import mean

import pytest

from t3d.evaluation.evaluate import evaluate
from t3d.model_choice import BUNDLED_MODELS
from t3d.models.loading import load_model
from t3d.models.token_ids import tokenizer_hash
from t3d.reproduce.settings import SETTINGS
from t3d.tasks.mini.suite import TASKS
from t3d.tasks.mini.tokenizer import mini_tokenizer
from t3d.tasks.task import PosedTask

ORACLE_TABLE = Path(__file__).parents[2] / "docs" / "results" / "oracle.json"


@pytest.mark.parametrize("folder", BUNDLED_MODELS.values(), ids=list(BUNDLED_MODELS))
def test_card_names_the_hash_of_the_bundled_weights_which_are_small(folder):
    weights = (folder / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in (folder / "README.md").read_text()
    assert len(weights) <= 6_000_000


def test_the_second_teacher_is_clearly_smaller_and_both_have_the_suite_s_tokenizer():
    models = {name: load_model(name, device="cpu") for name in BUNDLED_MODELS}
    sizes = {name: loaded.model.num_parameters() for name, loaded in models.items()}
    assert sizes["mini-small"] <= 0.5 * sizes["mini"]
    assert {loaded.tokenizer_hash for loaded in models.values()} == {tokenizer_hash(mini_tokenizer())}


@pytest.fixture(scope="module")
def accuracy() -> dict[str, dict[str, float]]:
    """Percent by task and setting of the main teacher."""
    loaded = load_model("mini", device="cpu")
    posed = [PosedTask(task=task, problems=task.problems("test", 512, seed=0)) for task in TASKS.values()]
    found: dict[str, dict[str, float]] = {name: {} for name in TASKS}
    for entry in evaluate(loaded, posed, SETTINGS):
        found[entry["task"]][entry["setting"]] = entry["accuracy"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_teacher_is_right_at_full_steps_and_collapses_at_few(accuracy):
    def over_tasks(*settings: str) -> float:
        return mean(accuracy[task][setting] for task in TASKS for setting in settings)

    assert accuracy["chain"]["B4-T1"] >= 97
    assert accuracy["make"]["B4-T1"] >= 97
    assert accuracy["code"]["B4-T1"] >= 95
    assert over_tasks("B8-T1") >= 93
    assert over_tasks("B4-T2", "B8-T2") >= 60
    assert over_tasks("B4-T4", "B8-T4") <= over_tasks("B4-T1") - 25


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_teacher_stays_near_the_oracle_on_make_and_code(accuracy):
    """The oracle's accuracies on the same problems, which take minutes, come from the committed table."""
    rows = json.loads(ORACLE_TABLE.read_text())["rows"]
    oracle = {(row["task"], row["setting"]): 100 * row["num_correct"]["oracle"] / row["n"] for row in rows}
    for task in ("make", "code"):
        for setting in SETTINGS:
            assert accuracy[task][setting] >= oracle[task, setting] - 10, (task, setting)

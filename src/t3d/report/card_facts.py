"""What is known of a student, for its card.

Everything is read from files that were made: the student's configs and ``training.json``, the settings of its
run and of its rollouts, and evaluations of exactly these weights.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.utils import validate_repo_id

from t3d.errors import InputError
from t3d.evaluation.finished import RESULTS, check_results
from t3d.model_choice import checkpoint_of
from t3d.models.checkpoint import hash_of, open_checkpoint
from t3d.models.loading import load_own_settings
from t3d.training.run import STUDENT_PLAN
from t3d.work.files import read_json

CARD = "README.md"
_OF_A_ROW = ("accuracy", "ci95", "tokens_per_step", "tokens_per_forward", "stopped")
_ROLLOUT = ("task", "prompts", "split", "limit", "block_size", "steps_per_block", "remasking", "temperature")
_ROLLOUT += ("max_new_tokens", "num_samples", "rollout_filter", "seed")


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card says; None where nothing tells."""

    name: str
    weights_hash: str
    """SHA-256 of the student's safetensors files."""
    settings: Mapping[str, Any]
    """How the student decodes where nothing else is said."""
    base: str | None
    """Folder, hub id or name of the model that was trained."""
    is_base_on_hub: bool
    """Whether the base is a hub id, and no folder that looks like one."""
    licence: str | None
    """The base's, in the hub's spelling."""
    data: Mapping[str, Any] | None
    """Settings of the rollouts, or what the user says in ``described``."""
    training: Mapping[str, Any] | None
    """The plan of its training."""
    evaluations: Sequence[Mapping[str, Any]]
    """Records of ``t3d eval`` of these weights."""


def read_facts(
    source: str | Path,
    evaluations: Sequence[str] = (),
    *,
    base: str | None = None,
    licence: str | None = None,
    data: str | None = None,
) -> tuple[Path, CardFacts]:
    """The student's folder, and what is known of it.

    ``source`` is the output of ``t3d train`` or the student itself. Without ``evaluations`` those in the
    run's folder are taken that are of the student's weights. ``base``, ``licence`` and ``data`` are what the
    user says; else the run's settings, the base's own card and the rollouts' settings tell. Raises InputError
    where there is no student, for a base that cannot be, for an evaluation of these weights that is damaged,
    and for a named one that is none of these weights.
    """
    run = Path(source)
    student = run / "student" if (run / "student" / "config.json").is_file() else run
    run = run if student != run else run.parent
    weights = hash_of(open_checkpoint(str(student)).check_weights())
    run_settings = _yaml(run / "config.yaml") if (run / "student").resolve() == student.resolve() else {}
    plan = _plan(student)
    if base is not None:
        is_on_hub = _is_on_hub(base)
    else:
        told = run_settings.get("model")
        base = told if isinstance(told, str) and told else None
        is_on_hub = base is not None and _is_hub_id(base) and _has_commit(plan)
    is_run = student != Path(source) or (run / "config.yaml").is_file()
    return student, CardFacts(
        name=f"{run.resolve().name}/{student.name}" if student.name == "student" else student.resolve().name,
        weights_hash=weights,
        settings=load_own_settings(student),
        base=base,
        is_base_on_hub=is_on_hub,
        licence=licence or (None if base is None else licence_of(base, is_on_hub=is_on_hub)),
        data={"described": data} if data else _rollout_settings(run_settings.get("trajectories")),
        training=plan,
        evaluations=_evaluations_of(weights, run if is_run else None, evaluations),
    )


def licence_of(base: str, *, is_on_hub: bool) -> str | None:
    """What the front matter of a base's own card says: of a hub id that was downloaded, or of a folder."""
    if is_on_hub:
        cached = try_to_load_from_cache(base, CARD)
        card = Path(cached) if isinstance(cached, str) else None
    else:
        card = Path(checkpoint_of(base)) / CARD
    if card is None or not card.is_file():
        return None
    _, fence, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    front = _parsed(rest.partition("\n---")[0]) if fence else {}
    return front["license"] if isinstance(front.get("license"), str) else None


def _is_on_hub(base: str) -> bool:
    """Of a base that the user names. Raises InputError for what is neither there nor a hub id."""
    if base and Path(checkpoint_of(base)).is_dir():
        return False
    if not _is_hub_id(base):
        fix = "give its folder, or its hub id ORGANISATION/NAME"
        raise InputError("base", base, "no folder of this machine, and no hub id", fix)
    return True


def _is_hub_id(base: str) -> bool:
    try:
        validate_repo_id(base)
    except ValueError:
        return False
    return base.count("/") == 1


def _has_commit(plan: Mapping[str, Any] | None) -> bool:
    """Whether a training's base was read from the hub: its weights are a commit's then, else a SHA-256."""
    match plan:
        case {"model": {"weights": str() as weights}}:
            return re.fullmatch("[0-9a-f]{40}", weights) is not None
    return False


def _plan(student: Path) -> dict[str, Any] | None:
    """How a student was trained; None where nothing tells."""
    match read_json(student / STUDENT_PLAN):
        case {"plan": dict() as plan}:
            return plan
    return None


def _evaluations_of(weights: str, run: Path | None, named: Sequence[str]) -> list[Mapping[str, Any]]:
    """Those that are named, all of which must be of these weights; else those of a run's folder that are."""
    if named:
        return [_evaluation_of(weights, Path(folder)) for folder in named]
    files = [] if run is None else sorted(run.glob(f"*/{RESULTS}"))
    return [_evaluation_of(weights, file.parent) for file in files if _weights(read_json(file)) == weights]


def _evaluation_of(weights: str, folder: Path) -> Mapping[str, Any]:
    record = read_json(folder / RESULTS)
    if not isinstance(record, dict):
        raise InputError("evaluations", str(folder), f"has no {RESULTS}", "give an output of t3d eval")
    check_results(record, folder / RESULTS, "evaluations")
    if not all(_has_all(row) for row in record["results"]):
        problem = "was made before results had all that a card says"
        raise InputError("evaluations", str(folder), problem, "evaluate again")
    if _weights(record) != weights:
        raise InputError("evaluations", str(folder), "is of other weights", "evaluate this student")
    return record


def _weights(record: Any) -> Any:
    match record:
        case {"model": {"weights": weights}}:
            return weights
    return None


def _has_all(row: Mapping[str, Any]) -> bool:
    match row.get("ci95"):
        case [int() | float(), int() | float()]:
            return all(field in row for field in _OF_A_ROW)
    return False


def _rollout_settings(trajectories: Any) -> dict[str, Any] | None:
    """Those that ``t3d rollout`` left beside its file."""
    if not isinstance(trajectories, str):
        return None
    told = _yaml(Path(f"{trajectories}.yaml"))
    return {name: told[name] for name in _ROLLOUT if told.get(name) is not None} or None


def _yaml(path: Path) -> dict[str, Any]:
    return _parsed(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except (
        yaml.YAMLError,
        ValueError,
    ):  # the second: a date that is none; somebody else's card or file, of which nothing is taken then
        return {}
    return found if isinstance(found, dict) else {}

"""A recipe: one YAML file with a section of flags for each command of a whole run."""

from dataclasses import dataclass
from typing import Any

from t3d.cli.arguments import parsed
from t3d.cli.config_file import flags_of_section, flat_fields, stages_of
from t3d.cli.data_prompts import DataPrompts
from t3d.cli.evaluate import Eval
from t3d.cli.rollout import Rollout
from t3d.cli.train import Train
from t3d.errors import InputError

STAGES: dict[str, Any] = {"data prompts": DataPrompts, "rollout": Rollout, "train": Train, "eval": Eval}
"""Commands that a recipe may have a section for, besides plan, in the order in which they are run."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The commands of a recipe with their flags."""

    rollout: Rollout
    train: Train
    prompts: DataPrompts | None = None
    evaluation: Eval | None = None


def read_recipe(path: str) -> Recipe:
    """All sections as commands, of which none has run.

    Raises InputError for a file that is no recipe, a section of no stage, one that is missing, and for any
    key or value that its command refuses.
    """
    known = (*STAGES, "plan")
    sections = stages_of(path)
    if not sections:
        fix = f"write a section for each of {', '.join(STAGES)}, with its flags below"
        raise InputError("recipe", path, "has no sections, so it is no recipe", fix)
    for name in sections:
        if name not in known:
            raise InputError("recipe", name, f"no stage of a recipe, in {path}", f"use {', '.join(known)}")
    for name in ("rollout", "train"):
        if name not in sections:
            raise InputError(
                "recipe", path, f"has no section {name}", f"write '{name}:' with its flags below"
            )
    commands = {
        name: parsed(kind, f"t3d {name}", flags_of_section(path, sections, kind), flat_fields(kind))
        for name, kind in STAGES.items()
        if name in sections
    }
    return Recipe(
        rollout=commands["rollout"],
        train=commands["train"],
        prompts=commands.get("data prompts"),
        evaluation=commands.get("eval"),
    )

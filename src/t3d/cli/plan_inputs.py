"""From the flags of a recipe's commands to what ``t3d plan`` computes with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t3d.cli.plan import Plan, decode_params
from t3d.cli.recipe import Recipe
from t3d.errors import InputError, require_file
from t3d.field_types import fit, read_value
from t3d.model_choice import checkpoint_of
from t3d.models.checkpoint import open_checkpoint
from t3d.models.linear_layers import TARGET_MODULES
from t3d.models.placement import DTYPES
from t3d.models.reading import read_config
from t3d.planning.assumptions import ASSUMED, assumptions
from t3d.planning.known import PUBLISHED, published_shape
from t3d.planning.memory import Decoding, Step
from t3d.planning.planned import Planned, Work, plan
from t3d.planning.shape import Shape, shape_of
from t3d.training.config import T3DConfig

PROPOSED_RANK = 16
"""Of the adapter that is proposed where nothing else fits."""


def planned(asked: Plan, recipe: Recipe, num_gpus: int, gigabytes: float) -> Planned:
    """The plan of a recipe. Raises InputError for flags that do not go together."""
    shape, how_known = model_shape(recipe.train.model)
    config = recipe.train.trainer_config()
    measured = {} if asked.measured is None else read_measured(asked.measured)
    assumed = assumptions(asked.given_numbers(), measured, asked.measured or "")
    values = {name: assumption.value for name, assumption in assumed.items()}
    decode = decode_params(recipe)
    work = Work(
        model=recipe.train.model,
        how_known=how_known,
        step=_step(asked, recipe, config, shape, num_gpus, round(values["longest_prompt"])),
        decoding=Decoding(
            shape=shape,
            batch_size=recipe.rollout.batch_size,
            prompt_tokens=round(values["longest_prompt"]),
            max_new_tokens=decode.max_new_tokens,
            block_size=decode.block_size,
            bytes_per_weight=_bytes_of(recipe.rollout.dtype),
        ),
        steps_per_block=decode.steps_per_block,
        num_prompts=asked.prompts_of(recipe),
        num_trajectories=recipe.train.num_optimizer_steps * recipe.train.batch_size,
        gigabytes=gigabytes,
        assumed=assumed,
        proposed_rank=PROPOSED_RANK,
        proposed_adapter=shape.adapter_parameters(PROPOSED_RANK, _modules(shape, TARGET_MODULES)),
    )
    return plan(work)


def model_shape(model: str) -> tuple[Shape, str]:
    """The shape of a model, and where it is from; its config alone is read.

    Raises InputError for a checkpoint whose config cannot be read.
    """
    if model in PUBLISHED and not Path(model).exists():
        return published_shape(model), "as published, not read from the checkpoint"
    config = read_config(open_checkpoint(checkpoint_of(model)))
    return shape_of(config), "its config.json"


def read_measured(path: str) -> dict[str, float]:
    """Measured values by the name of the assumption. Raises InputError for any other key or value."""
    require_file("measured", path, "give a YAML or JSON file of measured values")
    found = read_value(Path(path).read_text(encoding="utf-8"))
    if not isinstance(found, Mapping):
        raise InputError("measured", path, "not a mapping", f"write one 'key: value' of {', '.join(ASSUMED)}")
    values: dict[str, float] = {}
    for name, value in found.items():
        if name not in ASSUMED:
            raise InputError("measured", name, f"unknown key in {path}", f"use one of {', '.join(ASSUMED)}")
        try:
            values[name] = fit(value, float)
        except ValueError as error:
            raise InputError("measured", value, f"{name} in {path} is no number", "give a number") from error
        if values[name] <= 0:
            raise InputError("measured", value, f"{name} in {path} is not above 0", "give a number above 0")
    return values


def _step(
    asked: Plan, recipe: Recipe, config: T3DConfig, shape: Shape, num_gpus: int, longest_prompt: int
) -> Step:
    train, block_size = recipe.train, config.block_size
    micro_batches = train.gradient_accumulation_steps * num_gpus
    if train.batch_size % micro_batches:
        problem = f"not a multiple of gradient_accumulation_steps={train.gradient_accumulation_steps}"
        problem += f" times {num_gpus} GPUs"
        raise InputError("batch_size", train.batch_size, problem, f"use a multiple of {micro_batches}")
    rank, reference = config.lora_rank, None
    if config.objective == "t3d":
        reference = config.reference_placement
    modules = _modules(shape, config.lora_target_modules) if rank else ()
    # The first block holds the end of the prompt, the last one is filled up.
    whole = -(-(longest_prompt + decode_params(recipe).max_new_tokens) // block_size) * block_size
    prompt = longest_prompt // block_size * block_size
    return Step(
        shape=shape,
        num_trajectories=train.batch_size // micro_batches,
        prompt_tokens=prompt,
        response_tokens=whole - prompt,
        block_size=block_size,
        accumulation=train.gradient_accumulation_steps,
        autocast=train.dtype == "bfloat16",
        checkpointing=bool(config.activation_checkpointing),
        adapter_parameters=shape.adapter_parameters(rank, modules),
        adapter_rank=rank,
        reference=reference,
        parallel=asked.parallel or "ddp",
        num_devices=num_gpus,
    )


def _modules(shape: Shape, names: tuple[str, ...]) -> tuple[str, ...]:
    """Of the default modules those that the model has: a mixture's experts are no layers of their own."""
    if names != TARGET_MODULES:
        return names
    return tuple(name for name in names if name in dict(shape.adapter_widths))


def _bytes_of(dtype: str) -> int:
    known: Any = DTYPES.get(dtype)
    return 2 if known is None else known.itemsize  # auto: the published checkpoints have 16 bits

"""A drafter as a folder: a gated adapter in PEFT's files, and which base it drafts for.

``adapter_config.json`` and ``adapter_model.safetensors`` are PEFT's: its own loader takes them, and lets the
adapter act on every token. ``drafter.json`` names the base by the hash of its weights; a folder of a drafter
holds no other weights, and is no checkpoint.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from t3d.bundled_drafters import BUNDLED_DRAFTERS, FOLDERS, drafter_folder
from t3d.errors import InputError
from t3d.models.checkpoint import check_links
from t3d.models.gated import GatedAdapter, add_gated_adapter
from t3d.models.gated_student import gate_student
from t3d.models.loading import LoadedModel, load_model, told_identity
from t3d.work.files import atomic_folder
from t3d.work.plan import file_sha256
from t3d.work.weights import first_not_finite

CONFIG_FILE, WEIGHTS_FILE, BASE_FILE = "adapter_config.json", "adapter_model.safetensors", "drafter.json"
_PREFIX = "base_model.model."
"""Of PEFT's names for weights, before the base's own."""
_MASK_EMBEDDING = ".token_adapter.trainable_tokens_delta"
"""PEFT's name, after the embedding's, for rows that take the place of the base's."""
_HASH_SHOWN = 12
_PLAIN: dict[str, Any] = {"peft_type": "LORA", "bias": "none", "use_dora": False, "use_rslora": False}
_PLAIN |= {"fan_in_fan_out": False, "lora_bias": False, "rank_pattern": {}, "alpha_pattern": {}}
_PLAIN |= dict.fromkeys(("modules_to_save", "layers_to_transform", "exclude_modules", "target_parameters"))
"""What PEFT's configuration of a drafter must say, or leave out; others change the weights in other ways."""


def save_drafter(
    adapter: GatedAdapter,
    loaded: LoadedModel,
    folder: str | Path,
    finish: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write an adapter on ``loaded``; ``finish`` may add files to what becomes the folder when complete.

    Raises InputError for weights that are not finite, and for a base that no files tell from others.
    """
    if not loaded.weights_hash:
        problem = "was not loaded from a checkpoint, so that nothing tells it from others"
        raise InputError("model", loaded.source, problem, "save it to a folder and load that")
    broken = first_not_finite(adapter.named_parameters())
    if broken is not None:
        problem = f"weight {broken} is not a finite number"
        raise InputError("drafter", str(folder), problem, "train it again with a lower learning_rate")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": loaded.source,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "bias": "none",
        "target_modules": list(adapter.target_modules),
        "trainable_token_indices": None if adapter.mask_token_id is None else [adapter.mask_token_id],
    }
    base = {
        "base": {
            "source": loaded.source,
            "weights": loaded.weights_hash,
            "predicts": loaded.predicts,
        }
    }
    weights = {name: weight.detach().cpu().contiguous() for name, weight in _weights(adapter).items()}
    with atomic_folder(folder) as partial:
        save_file(weights, partial / WEIGHTS_FILE, {"format": "pt"})
        for name, text in {CONFIG_FILE: _json(config), BASE_FILE: _json(base)}.items():
            (partial / name).write_text(text, encoding="utf-8")
        finish(partial)


def with_drafter(loaded: LoadedModel, folder: str | Path) -> LoadedModel:
    """The model with a drafter attached, bundled or in a local folder, or a student of it: what decodes it
    drafts so.

    Raises InputError as :func:`load_drafter` does, and for a student that is none of this base.
    """
    folder = drafter_folder(folder)
    if (folder / "config.json").is_file():
        return _with_student(loaded, folder)
    drafter = _load(loaded, folder)
    return dataclasses.replace(loaded, drafter=drafter, drafter_hash=file_sha256(folder / WEIGHTS_FILE))


def told_hash(folder: str | Path) -> str:
    """Of a drafter, or of a student that drafts, what ``LoadedModel.drafter_hash`` will be."""
    folder = drafter_folder(folder)
    is_student = (folder / "config.json").is_file()
    return told_identity(folder)["weights"] if is_student else file_sha256(folder / WEIGHTS_FILE)


def _with_student(loaded: LoadedModel, folder: Path) -> LoadedModel:
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    student = load_model(folder, device=str(loaded.model.device), dtype=dtype)
    for name in ("tokenizer_hash", "mask_token_id", "predicts"):
        if getattr(student, name) != getattr(loaded, name):
            problem = f"its {name} is {getattr(student, name)}, that of its base {getattr(loaded, name)}"
            raise _refusal(folder, problem, "give a student of this base")
    broken = first_not_finite(student.model.named_parameters())
    if broken is not None:
        problem = f"weight {broken} is not a finite number"
        raise _refusal(folder, problem, "train that student again with a lower learning_rate")
    drafter = gate_student(loaded.model, student.model)
    return dataclasses.replace(loaded, drafter=drafter, drafter_hash=student.weights_hash)


def load_drafter(loaded: LoadedModel, folder: str | Path) -> GatedAdapter:
    """A drafter, bundled or in a local folder, attached to its base, in its precision and on its device.

    Raises InputError if there is none, for another base than the one it was trained for, for an adapter of
    another kind, for weights that do not fit, and for a bundled one that is damaged.
    """
    return _load(loaded, drafter_folder(folder))


def _load(loaded: LoadedModel, source: Path) -> GatedAdapter:
    config, base = _read(source, CONFIG_FILE), _read(source, BASE_FILE)
    check_links(source)
    _check_base(source, base, loaded)
    other = [name for name, plain in _PLAIN.items() if config.get(name, plain) not in (plain, None)]
    if other:
        problem = f"{CONFIG_FILE} has {other[0]}={config[other[0]]!r}: no plain LoRA adapter"
        raise _refusal(source, problem, "give a folder that t3d train --preset drafter wrote")
    try:
        (mask_token_id,) = config.get("trainable_token_indices") or (None,)
        options: dict[str, Any] = {
            "alpha": float(config["lora_alpha"]),
            "dropout": float(config.get("lora_dropout", 0.0)),
            "target_modules": tuple(config["target_modules"]),
            "mask_token_id": None if mask_token_id is None else int(mask_token_id),
        }
        rank = int(config["r"])
        found = load_file(source / WEIGHTS_FILE)
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        problem = f"its files cannot be read ({type(error).__name__}: {error})"
        raise _refusal(source, problem, "copy or train that drafter again") from error
    if mask_token_id not in (None, loaded.mask_token_id):
        problem = f"has an embedding for token {mask_token_id}, no mask of this base ({loaded.mask_token_id})"
        raise _refusal(source, problem, "give the drafter of this base")
    adapter = add_gated_adapter(loaded.model, rank, **options)
    try:
        _fill(adapter, found, source)
    except InputError:
        adapter.detach()
        raise
    return adapter.eval().requires_grad_(False)


@torch.no_grad()
def _fill(adapter: GatedAdapter, found: Mapping[str, Tensor], source: Path) -> None:
    own = _weights(adapter)
    unfit = {(name, tuple(weight.shape)) for name, weight in own.items()}
    unfit ^= {(name, tuple(weight.shape)) for name, weight in found.items()}
    if unfit:
        names = ", ".join(sorted({name for name, _ in unfit})[:4])
        problem = f"its weights do not fit the base: {names}"
        raise _refusal(source, problem, "copy or train that drafter again")
    for name, weight in own.items():
        weight.copy_(found[name])


def _weights(adapter: GatedAdapter) -> dict[str, Tensor]:
    """Its parameters by PEFT's names."""
    named = {}
    for name, weight in adapter.layers.named_parameters():
        layer, _, part = name.rpartition(".")
        named[f"{_PREFIX}{layer.replace('/', '.')}.{part}.weight"] = weight
    if adapter.mask_embedding is not None:
        base: Any = adapter.base
        (embedding,) = (
            name for name, module in base.named_modules() if module is base.get_input_embeddings()
        )
        named[f"{_PREFIX}{embedding}{_MASK_EMBEDDING}"] = adapter.mask_embedding[None]
    return named


def _check_base(source: Path, base: Mapping[str, Any], loaded: LoadedModel) -> None:
    match base:
        case {"base": {"weights": str() as expected, **others}} if expected:
            named = others.get("source") or "no name"
        case _:
            raise _refusal(source, f"{BASE_FILE} names no base", "copy or train that drafter again")
    predicts = others.get("predicts", loaded.predicts)
    if predicts != loaded.predicts:  # a conversion has the weights of its source
        problem = (
            f"drafts for a model with predicts={predicts!r}, that of {loaded.source} is {loaded.predicts!r}"
        )
        raise _refusal(source, problem, f"give the base that it was trained on ({named}), or train a drafter")
    if expected == loaded.weights_hash:
        return
    found = loaded.weights_hash[:_HASH_SHOWN] or "none known"
    problem = f"drafts for the weights {expected[:_HASH_SHOWN]}, but those of {loaded.source} are {found}"
    fix = f"give the base that it was trained on ({named}), or train a drafter for this one"
    raise _refusal(source, problem, fix)


def _read(source: Path, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads((source / name).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError) as error:
        below = source / "drafter"
        fix = f"give {below}" if (below / name).is_file() else FOLDERS
        raise _refusal(source, f"it has no {name}", fix) from error
    except (ValueError, TypeError) as error:
        raise _refusal(source, f"its {name} is no JSON object ({error})", "copy that file again") from error


def _refusal(source: Path, problem: str, fix: str) -> InputError:
    """Of a bundled drafter, by its name."""
    names = (name for name, folder in BUNDLED_DRAFTERS.items() if folder == source)
    return InputError("drafter", next(names, str(source)), problem, fix)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"

"""An autoregressive checkpoint to adopt: opened, or refused by name where that cannot be right."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from t3d.errors import InputError
from t3d.model_choice import checkpoint_of
from t3d.models.adopted import ARCHITECTURES, MODEL_TYPES, Architecture
from t3d.models.checkpoint import USUAL, Checkpoint, HubAccess, hash_of, open_checkpoint, shapes_of
from t3d.models.config_fields import check_sizes
from t3d.models.reading import load_weights, read_config, read_tokenizer
from t3d.models.token_ids import union_of_stops
from t3d.work.plan import file_sha256

_ADOPTABLE = f"give a checkpoint of one of these architectures: {', '.join(ARCHITECTURES)}"
_OTHER_LOGITS = {
    "attn_logit_softcapping": "it caps the attention's scores",
    "final_logit_softcapping": "it caps the logits",
    "logits_scaling": "it scales the logits",
    "logit_scale": "it scales the logits",
    "attention_multiplier": "it scales the attention's scores",
    "residual_multiplier": "it scales the residual stream",
    "embedding_multiplier": "it scales the embedding",
}
"""Fields that change a network beyond the layers of the table, in Gemma 2, Granite, Cohere and others."""
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Of weights, by their names in safetensors files."""
OLD_BUFFER = "rotary_emb.inv_freq"
"""End of names in old files: worked out from the config since."""
FOREIGN_FIELDS = ("model_type", "architectures", "auto_map", "quantization_config", "transformers_version")
"""What the config of the new class says itself, or must not say."""
_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
_GGUF_FIELDS = (".rope.scaling.type", ".rope.scaling.factor", ".attention.sliding_window")
_GGUF_FIELDS += (".logit_scale", ".attn_logit_softcapping", ".final_logit_softcapping")
"""What a GGUF file may say of its network and transformers does not read."""


@dataclass(frozen=True, kw_only=True)
class AutoregressiveModel:
    """What a conversion starts from."""

    source: str
    architecture: Architecture
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    generation: Mapping[str, Any]
    """Of ``generation_config.json``; empty without one."""
    weights_hash: str
    build: Callable[[PreTrainedConfig], Any]
    """A model of the architecture's class here, with this config and the source's weights and dtype."""
    original: Callable[[], Mapping[str, Tensor]]
    """The source's tensors by their names in its files, read when they are asked for."""

    def stop_token_ids(self) -> tuple[int, ...]:
        """Its generation config's, else its config's, and the tokenizer's. Raises InputError without any."""
        declared = self.generation.get("eos_token_id")
        declared = self.config.eos_token_id if declared is None else declared
        return union_of_stops(self.source, declared, self.tokenizer)


def open_autoregressive(
    source: str, gguf_file: str | None = None, access: HubAccess = USUAL
) -> AutoregressiveModel:
    """A local folder or hub id, or a GGUF file in one.

    Raises InputError for what is not in the table of architectures (:mod:`t3d.models.adopted`), changes its
    network beyond it, is quantized in another way than GGUF, needs code of its own, or is incomplete.
    """
    if gguf_file is not None:
        return _open_gguf(source, gguf_file)
    source = checkpoint_of(source)
    _hint_at_gguf(Path(source))
    opened = open_checkpoint(source, access)
    architecture, checkpoint = _adoptable(opened), _on_this_machine(opened)
    config = read_config(checkpoint)
    tokenizer = _fast(source, _tokenizer(checkpoint))
    files = checkpoint.check_weights()
    if not files:
        fix = "give a folder with model.safetensors, or its parts and model.safetensors.index.json"
        raise InputError("model", source, "has no weights as safetensors", fix)
    check_sizes(source, config, shapes_of(files))
    dtype = _dtype_of(files)

    def build(own: PreTrainedConfig) -> Any:
        options = {"config": own, "dtype": dtype, "use_safetensors": True}
        return load_weights(architecture.model, checkpoint.source, **options, **checkpoint.options)

    return AutoregressiveModel(
        source=source,
        architecture=architecture,
        config=config,
        tokenizer=tokenizer,
        generation=checkpoint.json_file("generation_config.json") or {},
        weights_hash=hash_of(files),
        build=build,
        original=lambda: FileTensors(files),
    )


class FileTensors(Mapping[str, Tensor]):
    """Tensors in safetensors files by name, each read when it is asked for."""

    def __init__(self, files: list[Path]) -> None:
        self._file: dict[str, Path] = {}
        for file in files:
            with safe_open(file, framework="pt") as weights:
                self._file |= dict.fromkeys(weights.keys(), file)

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._file[name], framework="pt") as weights:
            return weights.get_tensor(name)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __len__(self) -> int:
        return len(self._file)


def _adoptable(checkpoint: Checkpoint) -> Architecture:
    """Its row of the table, by its config alone."""
    source, fields = checkpoint.source, checkpoint.fields
    kind = fields.get("model_type")
    if kind in MODEL_TYPES:
        fix = f"use it as it is: t3d rollout --model {source}"
        raise InputError("model", source, f"is a block-diffusion model already (model_type {kind!r})", fix)
    if fields.get("is_encoder_decoder"):
        problem = f"is an encoder-decoder (model_type {kind!r}), but blocks follow one stream of tokens"
        raise InputError("model", source, problem, _ADOPTABLE)
    for name, problem in _OTHER_LOGITS.items():
        if fields.get(name) not in (None, 1):
            said = (
                f"in config.json of model {source!r} (model_type {kind!r}): {problem}, which is not done here"
            )
            raise InputError(name, fields[name], said, _ADOPTABLE)
    if kind not in ARCHITECTURES:
        problem = f"in config.json of model {source!r}: an architecture that is not adopted here"
        raise InputError("model_type", kind, problem, _ADOPTABLE)
    if fields.get("quantization_config") is not None:
        method = dict(fields["quantization_config"]).get("quant_method")
        fix = "give the checkpoint that it was made from, or a GGUF file of it (--gguf-file)"
        raise InputError("model", source, f"its weights are quantized ({method})", fix)
    return ARCHITECTURES[str(kind)]


def _on_this_machine(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint as a folder: of a hub id, its snapshot at that commit."""
    if checkpoint.is_folder:
        return checkpoint
    how: dict[str, Any] = {"revision": checkpoint.commit, "token": checkpoint.token}
    folder = snapshot_download(checkpoint.source, allow_patterns=list(_FILES), **how)
    return open_checkpoint(folder)


def _tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """As its tokenizer.json defines it: the class that transformers has for an architecture (Qwen2's) may
    build another from the same vocabulary."""
    if checkpoint.json_file("tokenizer.json") is None:
        return read_tokenizer(checkpoint)
    try:
        return PreTrainedTokenizerFast.from_pretrained(checkpoint.source, **checkpoint.options)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        problem = f"its tokenizer cannot be loaded ({' '.join(str(error).split())[:200]})"
        fix = "copy its tokenizer files again"
        raise InputError("model", checkpoint.source, problem, fix) from error


def _fast(source: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    if not tokenizer.is_fast:
        problem = f"its tokenizer ({type(tokenizer).__name__}) has no tokenizer.json"
        raise InputError("model", source, problem, "save it as a fast tokenizer")
    return tokenizer


def _dtype_of(files: list[Path]) -> str:
    """The dtype of its weights; of several the one that holds the values of all."""
    found: set[str] = set()
    for file in files:
        with safe_open(file, framework="pt") as weights:
            names = [name for name in weights.keys() if not name.endswith(OLD_BUFFER)]  # noqa: SIM118
            found |= {weights.get_slice(name).get_dtype() for name in names}
    found &= _DTYPES.keys()
    if len(found) > 1:
        return "float64" if "F64" in found else "float32"
    return _DTYPES[found.pop()] if found else "float32"


def _hint_at_gguf(folder: Path) -> None:
    """Raise InputError for what is only there as GGUF, with the flag that reads it."""
    if folder.is_file() and folder.suffix == ".gguf":
        fix = f"give its folder and its name: t3d convert {folder.parent} --gguf-file {folder.name}"
        raise InputError("model", str(folder), "is a GGUF file", fix)
    if folder.is_dir() and not (folder / "config.json").is_file():
        for file in sorted(folder.glob("*.gguf")):
            raise InputError("model", str(folder), "has no config.json", f"give --gguf-file {file.name}")


def _open_gguf(source: str, name: str) -> AutoregressiveModel:
    path = _gguf_path(source, name)
    options: dict[str, Any] = {"gguf_file": path.name, "trust_remote_code": False}
    try:
        config: Any = AutoConfig.from_pretrained(path.parent, **options)
        tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        problem = f"transformers cannot read it ({' '.join(str(error).split())[:200]})"
        raise InputError(
            "gguf_file", name, problem, "give another file, or the checkpoint it was made from"
        ) from error
    if config.model_type not in ARCHITECTURES:
        problem = f"its architecture, {config.model_type!r}, is not adopted here"
        raise InputError("gguf_file", name, problem, _ADOPTABLE)
    _check_gguf(path)
    architecture = ARCHITECTURES[config.model_type]
    config._attn_implementation = "sdpa"

    @cache
    def read() -> Mapping[str, Tensor]:
        options: dict[str, Any] = {"gguf_file": path.name, "dtype": "float32"}
        return load_weights(architecture.source, str(path.parent), **options).state_dict()

    def build(own: PreTrainedConfig) -> Any:
        model: Any = architecture.model(own)  # transformers refuses to save the one that it read
        model.load_state_dict(read(), assign=True)  # the same memory
        model.tie_weights()
        return model

    return AutoregressiveModel(
        source=source,
        architecture=architecture,
        config=config,
        tokenizer=_fast(source, tokenizer),
        generation={},
        weights_hash=file_sha256(path),
        build=build,
        original=read,
    )


def _gguf_path(source: str, name: str) -> Path:
    """The file on this machine. Raises InputError without it, and without the package that reads it."""
    if importlib.util.find_spec("gguf") is None:
        raise InputError(
            "gguf_file", name, "its reader, the package gguf, is absent", "pip install t3d[gguf]"
        )
    folder = Path(source)
    path = folder / name
    if not folder.is_dir():
        try:
            path = Path(hf_hub_download(source, name))
        except (OSError, ValueError) as error:
            problem = f"not found in {source!r} ({str(error).splitlines()[0]})"
            raise InputError("gguf_file", name, problem, "give a folder or hub id that has it") from error
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in folder.glob("*.gguf"))) or "there is none"
        raise InputError("gguf_file", name, f"no such file in {source}", f"give one that is there ({there})")
    return path


def _check_gguf(path: Path) -> None:
    """Raise InputError for a network of which transformers would not read all."""
    reader = importlib.import_module("gguf").GGUFReader(path)
    found = [name for name in reader.fields if name.endswith(_GGUF_FIELDS)]
    untold = [name for name in found if reader.fields[name].contents() not in ("none", 0, 1)]
    untold += [tensor.name for tensor in reader.tensors if tensor.name.startswith("rope_freqs")]
    if untold:
        problem = f"has {untold[0]}, which transformers does not read, so the model would be another one"
        raise InputError("gguf_file", path.name, problem, "give the checkpoint that it was made from")

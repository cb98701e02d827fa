"""Load a block-diffusion model with its tokenizer."""

import dataclasses
import hashlib
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from t3d.errors import InputError
from t3d.models.checkpoint import Checkpoint, hash_of, open_checkpoint
from t3d.models.parallel import tensor_parallelism
from t3d.models.placement import resolve_device, resolve_dtype
from t3d.models.sdar import SDARConfig, SDARForCausalLM, SDARMoeConfig, SDARMoeForCausalLM
from t3d.work.plan import fingerprint

_MINI = Path(__file__).parents[1] / "mini"
BUNDLED_MODELS = {"mini": _MINI / "teacher", "mini-small": _MINI / "teacher_small"}


@dataclass(frozen=True, kw_only=True)
class LoadedTokenizer:
    """A checkpoint's tokenizer and token ids, without its weights."""

    tokenizer: PreTrainedTokenizerBase
    mask_token_id: int
    stop_token_ids: tuple[int, ...]
    vocab_size: int
    """Rows of the network's embedding, which may be more than the tokenizer names."""

    @property
    def tokenizer_hash(self) -> str:
        """SHA-256 of the tokenizer's whole definition."""
        return tokenizer_hash(self.tokenizer)


@dataclass(frozen=True, kw_only=True)
class LoadedModel(LoadedTokenizer):
    """A model ready to decode or to train, and what identifies it."""

    model: SDARForCausalLM | SDARMoeForCausalLM
    source: str
    """The folder or hub id it came from, or a bundled model's name."""
    weights_hash: str
    """SHA-256 of the local safetensors files that were loaded, or the hub's commit."""

    def identity(self) -> dict[str, Any]:
        """What results depend on, JSON-ready; for weights as they were loaded, not trained since."""
        return {
            "weights": self.weights_hash,
            "config": fingerprint(self.model.config.to_diff_dict()),
            "tokenizer": self.tokenizer_hash,
            "chat_template": fingerprint(self.tokenizer.chat_template),
            "mask_token_id": self.mask_token_id,
            "stop_token_ids": list(self.stop_token_ids),
            "dtype": str(self.model.dtype),
            "device": self.model.device.type,
        }


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of a fast tokenizer's whole definition."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def load_model(
    source: str | Path, *, device: str = "auto", dtype: str = "float32", tp_plan: str | None = None
) -> LoadedModel:
    """Load an SDAR checkpoint from a local folder or a hub id; ``mini`` and ``mini-small`` are bundled.

    Never runs code from a checkpoint, and reads weights from safetensors files in its own folder only
    (:mod:`t3d.models.checkpoint`).

    ``tp_plan="auto"`` is tensor parallelism, for decoding: the processes that ``torchrun`` started share
    the model, each with its part of the weights and attention heads on the device of its ``LOCAL_RANK``
    (on the CPU where PyTorch is built for nothing else). transformers opens the process group unless
    there is one. All processes must make the same calls; each gets whole logits and all completions.

    Raises InputError if there is nothing to load, if it is not an SDAR model, if it needs code of its own
    or weights from elsewhere, if its weights do not fit the network, for a tokenizer or a mask token that
    :func:`load_tokenizer` refuses, or if these processes cannot share the model.
    """
    name, source = str(source), checkpoint_of(source)
    checkpoint = open_checkpoint(source)
    config = _read_config(checkpoint)
    if config.model_type not in (SDARConfig.model_type, SDARMoeConfig.model_type):
        raise InputError(
            "model",
            source,
            f"its architecture is {config.model_type!r}, not a block-diffusion model",
            "give an SDAR checkpoint (config.json with model_type 'sdar' or 'sdar_moe')",
        )
    files = checkpoint.check_weights()
    target, parallel = (
        tensor_parallelism(tp_plan, device, config) if tp_plan is not None else (resolve_device(device), None)
    )
    weights_dtype = resolve_dtype(dtype, config, target)
    named = _load_tokenizer(checkpoint, config)
    try:
        options: dict[str, Any] = {"dtype": weights_dtype, "distributed_config": parallel, "config": config}
        options["use_safetensors"] = True  # weights_hash covers no others
        options |= checkpoint.options
        loaded: Any = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True, **options)
        model, report = loaded
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        problem = f"cannot be loaded ({str(error).splitlines()[0]})"
        fix = "give a complete checkpoint folder, its weights as safetensors"
        raise InputError("model", source, problem, fix) from error
    unfit = sorted(report["missing_keys"]) + sorted(report["unexpected_keys"])
    if unfit:
        problem = f"its weights do not fit the network: {', '.join(unfit[:4])}"
        raise InputError("model", source, problem, "give a complete SDAR checkpoint")
    return LoadedModel(
        **vars(named),
        model=(model.to(target) if parallel is None else model).eval(),  # shared: each part is in place
        source=name,
        weights_hash=checkpoint.commit or hash_of(files),
    )


def adopt_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> LoadedModel:
    """A transformers model that is in memory already, with its tokenizer.

    Raises InputError for another architecture, without a tokenizer, for one that :func:`load_tokenizer`
    refuses, or if neither of the two names a mask token or a stop token.
    """
    source = model.config.name_or_path or type(model).__name__
    if not isinstance(model, SDARForCausalLM | SDARMoeForCausalLM):
        problem = f"it is a {type(model).__name__}, not a block-diffusion model"
        fix = "give an SDARForCausalLM or SDARMoeForCausalLM of t3d (load_model makes one of a folder)"
        raise InputError("model", source, problem, fix)
    if tokenizer is None:
        raise InputError("tokenizer", None, "a model in memory has none of its own", "give its tokenizer")
    declared = getattr(model.generation_config, "eos_token_id", None)
    declared = model.config.eos_token_id if declared is None else declared
    stops = _union_of_stops(source, declared, tokenizer)
    named = _with_ids(source, model.config, tokenizer, stops)
    return LoadedModel(**vars(named), model=model.eval(), source=source, weights_hash="")


def with_tokenizer(loaded: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    """The same model with another tokenizer; mask and stop tokens stay.

    Raises InputError for one with more ids than the model has rows, or with another mask token.
    """
    _check_vocabulary(loaded.source, tokenizer, loaded.vocab_size)
    if tokenizer.mask_token_id not in (None, loaded.mask_token_id):
        problem = f"its mask token is {tokenizer.mask_token_id}, that of the model {loaded.mask_token_id}"
        raise InputError("tokenizer", tokenizer.name_or_path, problem, "give the model's own tokenizer")
    return dataclasses.replace(loaded, tokenizer=tokenizer)


def load_tokenizer(source: str | Path) -> LoadedTokenizer:
    """The tokenizer of a local checkpoint folder or a hub id; ``mini`` and ``mini-small`` are bundled.

    Never runs code from a checkpoint. Raises InputError if there is none to load, if it needs code of its
    own or has more ids than the model has rows, if neither tokenizer nor config names a mask token, or if
    they name different ones, one outside of the vocabulary, or a stop token.
    """
    checkpoint = open_checkpoint(checkpoint_of(source))
    return _load_tokenizer(checkpoint, _read_config(checkpoint))


def _load_tokenizer(checkpoint: Checkpoint, config: PreTrainedConfig) -> LoadedTokenizer:
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.source, **checkpoint.options)
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"its tokenizer cannot be loaded ({str(error).splitlines()[0]})"
        raise InputError(
            "model", checkpoint.source, problem, "give a folder with a fast tokenizer"
        ) from error
    stops = _stop_token_ids(checkpoint, config, tokenizer)
    return _with_ids(checkpoint.source, config, tokenizer, stops)


def checkpoint_of(source: str | Path) -> str:
    """The folder of a bundled model, or the folder or hub id itself."""
    return str(BUNDLED_MODELS.get(str(source), source))


def _read_config(checkpoint: Checkpoint) -> PreTrainedConfig:
    try:
        return checkpoint.config()
    except (OSError, ValueError) as error:
        problem = f"its config cannot be read ({str(error).splitlines()[0]})"
        fix = "give a checkpoint folder, or a hub id such as org/name"
        raise InputError("model", checkpoint.source, problem, fix) from error


def _with_ids(
    source: str, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, stops: tuple[int, ...]
) -> LoadedTokenizer:
    """A tokenizer with the ids that it and the config name. Raises InputError if they contradict."""
    size = config.vocab_size
    _check_vocabulary(source, tokenizer, size)
    own, configured = tokenizer.mask_token_id, getattr(config, "mask_token_id", None)
    if own is None and configured is None:
        fix = "set mask_token in tokenizer_config.json or mask_token_id in config.json"
        raise InputError("model", source, "neither tokenizer nor config names a mask token", fix)
    mask: Any = configured if own is None else own
    is_id = isinstance(mask, int) and not isinstance(mask, bool) and 0 <= mask < size
    for holds, value, problem in (
        (
            configured in (None, mask),
            configured,
            f"the tokenizer's mask token {tokenizer.mask_token!r} is {own}",
        ),
        (is_id, mask, f"no token id: the model has rows for 0 to {size - 1}"),
        (mask not in stops, mask, "a stop token too, so that no response could ever be finished"),
    ):
        if not holds:
            fix = "correct mask_token_id in its config.json, or mask_token in its tokenizer_config.json"
            raise InputError("mask_token_id", value, f"of model {source!r}: {problem}", fix)
    return LoadedTokenizer(tokenizer=tokenizer, mask_token_id=mask, stop_token_ids=stops, vocab_size=size)


def _check_vocabulary(source: str, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Every id of the tokenizer has a row. Fewer names than rows are usual."""
    token, highest = max(tokenizer.get_vocab().items(), key=itemgetter(1))
    if highest >= size:
        problem = (
            f"its token {token!r} has id {highest}, but model {source!r} has rows for 0 to {size - 1} only"
        )
        fix = "give the tokenizer that the model was trained with, or resize the model's embedding"
        raise InputError("tokenizer", tokenizer.name_or_path, problem, fix)


def _stop_token_ids(
    checkpoint: Checkpoint, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """The generation config's end-of-sequence ids, else the config's and the tokenizer's."""
    try:
        declared = GenerationConfig.from_pretrained(checkpoint.source, **checkpoint.options).eos_token_id
    except OSError:
        declared = config.eos_token_id
    return _union_of_stops(checkpoint.source, declared, tokenizer)


def _union_of_stops(
    source: str, declared: int | list[int] | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    ids = declared if isinstance(declared, list) else [declared]
    named: set[Any] = {*ids, tokenizer.eos_token_id} - {None}
    if not named:
        raise InputError(
            "model", source, "no end-of-sequence token", "set eos_token_id in generation_config.json"
        )
    return tuple(sorted(named))

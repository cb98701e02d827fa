"""Load a block-diffusion model with its tokenizer."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from t3d.errors import InputError
from t3d.model_choice import checkpoint_of
from t3d.models.adopted import ARCHITECTURES, MODEL_TYPES, BlockDiffusionModel
from t3d.models.checkpoint import Checkpoint, HubAccess, hash_of, open_checkpoint, shapes_of
from t3d.models.config_fields import check_sizes
from t3d.models.gated import Gated
from t3d.models.own_settings import KEY, drafts_by_itself, own_settings, tell
from t3d.models.parallel import tensor_parallelism
from t3d.models.placement import resolve_device, resolve_dtype
from t3d.models.reading import (
    declare_head,
    load_weights,
    read_config,
    read_generation_config,
    read_tokenizer,
)
from t3d.models.token_ids import LoadedTokenizer, check_vocabulary, union_of_stops, with_ids
from t3d.models.unconverted import is_unconverted, open_unconverted
from t3d.predicts import OF_NEXT, Predicts, predicts_of
from t3d.work.plan import fingerprint


@dataclass(frozen=True, kw_only=True)
class LoadedModel(LoadedTokenizer):
    """A model ready to decode or to train, and what identifies it."""

    model: BlockDiffusionModel
    source: str
    """The folder or hub id it came from, or a bundled model's name."""
    weights_hash: str
    """SHA-256 of the local safetensors files that were loaded, or the hub's commit."""

    checkpoint_dtype: torch.dtype
    """Precision of the weights in their files; the model may have been loaded in another."""
    drafter: Gated | None = None
    """What drafts for it (:func:`t3d.models.drafter.with_drafter`), attached to the model."""
    drafter_hash: str = ""
    """SHA-256 of its weights."""
    token: str | None = dataclasses.field(default=None, repr=False)
    """What the hub was asked with."""

    @property
    def predicts(self) -> Predicts:
        """Whose token its logits are: an autoregressive model, loaded as it is, predicts the next one."""
        return predicts_of(self.model.config)

    @property
    def own_settings(self) -> dict[str, Any]:
        """How it decodes where nothing else is said (:mod:`t3d.models.own_settings`)."""
        own = own_settings(self.model.config, self.model.generation_config)
        return own if self.drafter is None else drafts_by_itself(own)

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
            **({"drafter": self.drafter_hash} if self.drafter is not None else {}),
            # Sums of parts round otherwise, as another device does.
            **({"tensor_parallel": self.model._tp_size} if (self.model._tp_size or 1) > 1 else {}),
        }


def load_model(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "float32",
    tp_plan: str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> LoadedModel:
    """Load a block-diffusion checkpoint, SDAR's or a converted one, from a local folder or a hub id; ``mini``
    and ``mini-small`` are bundled. An autoregressive one is loaded as it is (:mod:`t3d.models.unconverted`),
    from a folder of a single GGUF file too: it can be decoded left to right, and have a drafter.

    Never runs code from a checkpoint, and reads weights from safetensors files in its own folder only
    (:mod:`t3d.models.checkpoint`).

    ``revision`` is the branch, tag or commit of a hub id, and ``token`` what the hub is asked with; None:
    ``HF_TOKEN``, or that of ``hf auth login``. ``dtype`` is float32, for training too; "auto" is the
    checkpoint's own.

    ``tp_plan="auto"`` is tensor parallelism, for decoding: the processes that ``torchrun`` started share
    the model, each with its part of the weights and attention heads on the device of its ``LOCAL_RANK``
    (on the CPU where PyTorch is built for nothing else). transformers opens the process group unless
    there is one. All processes must make the same calls; each gets whole logits and all completions.

    Raises InputError if there is nothing to load, if it is no block-diffusion model, if it needs code of its
    own or weights from elsewhere, for a revision of a folder, if its config says what cannot be or what its
    weights are not, for a tokenizer or a mask token that :func:`load_tokenizer` refuses, or if these
    processes cannot share it.
    """
    name, source = str(source), checkpoint_of(source)
    access = HubAccess(revision=revision, token=token)
    if is_unconverted(source, access):
        return _load_unconverted(source, access, device, dtype, tp_plan)
    checkpoint = open_checkpoint(source, access)
    config = read_config(checkpoint)
    if config.model_type not in MODEL_TYPES:
        raise _other_architecture(source, config.model_type)
    files = checkpoint.check_weights()
    if checkpoint.fields.get("quantization_config") is None:  # which packs the weights into other shapes
        check_sizes(source, config, shapes_of(files))
    target, parallel = (
        tensor_parallelism(tp_plan, device, config) if tp_plan is not None else (resolve_device(device), None)
    )
    weights_dtype, own_dtype = resolve_dtype(dtype, config, target), config.dtype
    named = _load_tokenizer(checkpoint, config)
    options: dict[str, Any] = {"dtype": weights_dtype, "distributed_config": parallel, "config": config}
    options["use_safetensors"] = True  # weights_hash covers no others
    model = load_weights(AutoModelForCausalLM, source, **options, **checkpoint.options)
    generation_config = read_generation_config(checkpoint)
    if generation_config is not None and KEY in vars(generation_config):
        tell(model.generation_config, vars(generation_config)[KEY])
    return LoadedModel(
        **vars(named),
        model=(model.to(target) if parallel is None else model).eval(),  # shared: each part is in place
        source=name,
        weights_hash=checkpoint.commit or hash_of(files),
        token=token,
        checkpoint_dtype=own_dtype if isinstance(own_dtype, torch.dtype) else torch.float32,
    )


def _other_architecture(source: str, model_type: str) -> InputError:
    fix = "give an SDAR checkpoint (config.json with model_type 'sdar' or 'sdar_moe'), "
    fix += f"or an autoregressive one ({', '.join(ARCHITECTURES)})"
    problem = f"its architecture is {model_type!r}, not a block-diffusion model"
    return InputError("model", source, problem, fix)


def _load_unconverted(
    source: str, access: HubAccess, device: str, dtype: str | torch.dtype, tp_plan: str | None
) -> LoadedModel:
    if tp_plan is not None:
        problem = "not for autoregressive checkpoints as they are"
        raise InputError("tp_plan", tp_plan, problem, "leave it out, or convert the model: t3d convert")
    opened, target = open_unconverted(source, access), resolve_device(device)
    network = opened.read()
    declare_head(network)
    own_dtype = opened.config.dtype = network.dtype
    network = network.to(target, resolve_dtype(dtype, opened.config, target))
    return LoadedModel(
        **vars(opened.named),
        model=network.eval(),
        source=source,
        weights_hash=opened.weights_hash,
        checkpoint_dtype=own_dtype,
    )


def adopt_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> LoadedModel:
    """A transformers model that is in memory already, with its tokenizer.

    Raises InputError for another architecture, without a tokenizer, for one that :func:`load_tokenizer`
    refuses, or if neither of the two names a mask token or a stop token.
    """
    source = model.config.name_or_path or type(model).__name__
    if not isinstance(model, BlockDiffusionModel):
        problem = f"it is a {type(model).__name__}, not a block-diffusion model"
        fix = "give a model of t3d, such as an SDARForCausalLM (load_model makes one of a folder)"
        raise InputError("model", source, problem, fix)
    if tokenizer is None:
        raise InputError("tokenizer", None, "a model in memory has none of its own", "give its tokenizer")
    declare_head(model)
    declared = getattr(model.generation_config, "eos_token_id", None)
    declared = model.config.eos_token_id if declared is None else declared
    stops = union_of_stops(source, declared, tokenizer)
    named = with_ids(source, model.config, tokenizer, stops)
    return LoadedModel(
        **vars(named), model=model.eval(), source=source, weights_hash="", checkpoint_dtype=model.dtype
    )


def with_tokenizer(loaded: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    """The same model with another tokenizer; mask and stop tokens stay.

    Raises InputError for one with more ids than the model has rows, or with another mask token.
    """
    check_vocabulary(loaded.source, tokenizer, loaded.vocab_size)
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
    source = checkpoint_of(source)
    if is_unconverted(source):
        return open_unconverted(source).named
    checkpoint = open_checkpoint(source)
    return _load_tokenizer(checkpoint, read_config(checkpoint))


def _load_tokenizer(checkpoint: Checkpoint, config: PreTrainedConfig) -> LoadedTokenizer:
    tokenizer = read_tokenizer(checkpoint)
    stops = _stop_token_ids(checkpoint, config, tokenizer)
    return with_ids(checkpoint.source, config, tokenizer, stops)


def told_identity(source: str | Path) -> dict[str, str]:
    """Of :meth:`LoadedModel.identity` what the files tell, without the weights being loaded.

    Raises InputError as :func:`load_model` does for what is no checkpoint.
    """
    return {
        "weights": _weights_hash(checkpoint_of(source)),
        "tokenizer": load_tokenizer(source).tokenizer_hash,
    }


def _weights_hash(source: str) -> str:
    if is_unconverted(source):
        return open_unconverted(source).weights_hash
    checkpoint = open_checkpoint(source)
    return checkpoint.commit or hash_of(checkpoint.check_weights())


def load_own_settings(source: str | Path) -> dict[str, Any]:
    """How a checkpoint decodes where nothing else is said, read without its weights.

    Raises InputError if there is no checkpoint, or its settings contradict each other.
    """
    source = checkpoint_of(source)
    if is_unconverted(source):
        return dict(OF_NEXT)
    checkpoint = open_checkpoint(source)
    return own_settings(read_config(checkpoint), read_generation_config(checkpoint))


def _stop_token_ids(
    checkpoint: Checkpoint, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """The generation config's end-of-sequence ids, else the config's and the tokenizer's."""
    generation_config = read_generation_config(checkpoint)
    declared = config.eos_token_id if generation_config is None else generation_config.eos_token_id
    return union_of_stops(checkpoint.source, declared, tokenizer)

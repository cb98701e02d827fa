"""Adopt an autoregressive checkpoint as a block-diffusion model: same weights, a mask token, a block size.

Nothing is trained and no number changes. A row for a new token is the mean of the rows that are there; where
the vocabulary has spare rows, or an unused special token, the weights are the source's in every byte. There
is no shift of the logits: the logit at a position is to predict the token at it, as SDAR's does, which the
model learns in training (``t3d train --preset sft``).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from t3d.errors import InputError, naming, require_positive
from t3d.models.autoregressive import (
    FOREIGN_FIELDS,
    OLD_BUFFER,
    AutoregressiveModel,
    FileTensors,
    open_autoregressive,
)
from t3d.models.checkpoint import hash_of
from t3d.models.loading import load_tokenizer
from t3d.models.older_names import add_older_config_names, use_older_tokenizer_names
from t3d.models.token_choice import TokenChoice, assign, choose_mask, choose_pad, used_ids
from t3d.models.token_ids import tokenizer_hash
from t3d.work.files import atomic_folder, read_json
from t3d.work.lock import locked
from t3d.work.plan import fingerprint, full_plan, is_whole, sealed, take_finished

RECORD = "conversion.json"
"""File of a converted model that says from what it was made, and what was chosen."""
ROW_MULTIPLE = 64
"""Rows of an embedding that grows are a multiple of it, for matrix units."""
STAGES = 4
"""Of :func:`convert`: read, chosen and built, written, compared."""
_MATRICES = ("model.embed_tokens.weight", "lm_head.weight")
"""The tensors with a row per token."""


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What to adopt, and as what."""

    block_size: int = 4
    """Tokens per diffusion block: the model's own, and its default wherever it is loaded."""
    mask_token: str | None = None
    """Token to take as the mask, or to add. Default: an unused special token, else a new one."""
    gguf_file: str | None = None
    """Name of a GGUF file in the source, whose weights are dequantized."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was made, and what was chosen for it."""

    architecture: str
    """Class of the model."""
    model_type: str
    dtype: str
    block_size: int
    mask_token: str
    mask_token_id: int
    mask_reason: str
    pad_token: str
    pad_token_id: int
    pad_reason: str
    stop_token_ids: tuple[int, ...]
    rows_before: int
    rows: int
    """Of the embedding."""
    num_tensors: int
    has_chat_template: bool


@naming(model="source")
def convert(
    source: str, output: str | Path, config: ConvertConfig, *, on_stage: Callable[[], object] = lambda: None
) -> Conversion:
    """Write a checkpoint that :func:`~t3d.models.loading.load_model` loads; it appears only when complete.

    The same call again takes what it finished before. Raises InputError for a source that
    :func:`~t3d.models.autoregressive.open_autoregressive` refuses, for a mask token that cannot be one, and
    for an output that is there and was not made by the same call.
    """
    require_positive(config, "block_size")
    output = Path(output)
    model = open_autoregressive(source, config.gguf_file)
    _check_block_size(config.block_size, model.config)
    plan = _plan(model, config)
    on_stage()
    with locked(output):
        if output.exists():
            return _finished(output, plan)
        return _write(model, output, config, plan, on_stage)


def _write(
    source: AutoregressiveModel,
    output: Path,
    config: ConvertConfig,
    plan: Mapping[str, Any],
    on_stage: Callable[[], object],
) -> Conversion:
    chosen, tokens = _choose_tokens(source, config.mask_token)
    network = _build(source, config.block_size, tokens)
    on_stage()
    with atomic_folder(output) as partial:
        network.save_pretrained(partial)
        add_older_config_names(partial)
        _save_tokenizer(source.tokenizer, partial)
        _write_generation_config(source, partial, tokens)
        on_stage()
        files = _weight_files(partial)
        saved = FileTensors(files)
        rows_before = source.config.vocab_size
        _check_weights(source, saved, rows_before, tied=network.config.tie_word_embeddings)
        _check_tokenizer(source, partial)
        conversion = Conversion(
            architecture=type(network).__name__,
            model_type=network.config.model_type,
            dtype=str(network.dtype).removeprefix("torch."),
            block_size=config.block_size,
            **tokens,
            mask_reason=chosen["mask"].reason,
            pad_reason=chosen["pad"].reason,
            rows_before=rows_before,
            rows=network.config.vocab_size,
            num_tensors=len(saved),
            has_chat_template=bool(source.tokenizer.chat_template),
        )
        made = {"conversion": asdict(conversion), "weights_sha256": hash_of(files)}
        record = sealed({"plan": full_plan(plan), **made})
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        on_stage()
    return conversion


def _plan(model: AutoregressiveModel, config: ConvertConfig) -> dict[str, Any]:
    """What the output depends on."""
    return {
        **asdict(config),
        "weights": model.weights_hash,
        "config": fingerprint(model.config.to_diff_dict()),
        "tokenizer": tokenizer_hash(model.tokenizer),
        "chat_template": fingerprint(model.tokenizer.chat_template),
        "generation_config": fingerprint(dict(model.generation)),
    }


def _finished(output: Path, plan: Mapping[str, Any]) -> Conversion:
    """What the same call made before. Raises InputError if another made it, if something else is there, or
    for weights that are not those that were written."""
    match read_json(output / RECORD):
        case {
            "plan": dict() as before,
            "conversion": dict() as made,
            "weights_sha256": written,
        } as record if is_whole(record):
            take_finished(output, before, plan)
            if hash_of(_weight_files(output)) != written:
                problem = "its weights are not those that were written"
                raise InputError("output", str(output), problem, "delete it to make it again")
            return Conversion(**(made | {"stop_token_ids": tuple(made["stop_token_ids"])}))
    take_finished(output, None, plan)
    raise AssertionError("unreachable: an output without a record is refused")


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _check_block_size(block_size: int, config: PreTrainedConfig) -> None:
    positions = config.max_position_embeddings
    if block_size > positions:
        problem = f"more tokens than max_position_embeddings={positions} of the model"
        raise InputError("block_size", block_size, problem, "use for example 4 or 8")


def _choose_tokens(
    source: AutoregressiveModel, wanted: str | None
) -> tuple[dict[str, TokenChoice], dict[str, Any]]:
    """(mask and pad with the reasons, fields of a :class:`Conversion`); the tokenizer then has them."""
    tokenizer, stops = source.tokenizer, source.stop_token_ids()
    used = {*stops, *used_ids(tokenizer, source.config.to_dict(), source.generation)}
    mask = choose_mask(tokenizer, wanted, used)
    pad = choose_pad(tokenizer, stops, mask.token, used)
    ids = {
        role: assign(tokenizer, f"{role}_token", chosen.token)
        for role, chosen in (("mask", mask), ("pad", pad))
    }
    tokens = {
        "mask_token": mask.token,
        "mask_token_id": ids["mask"],
        "pad_token": pad.token,
        "pad_token_id": ids["pad"],
        "stop_token_ids": stops,
    }
    return {"mask": mask, "pad": pad}, tokens


def _build(source: AutoregressiveModel, block_size: int, tokens: Mapping[str, Any]) -> Any:
    """The network, with rows for all tokens."""
    fields = {name: value for name, value in source.config.to_dict().items() if name not in FOREIGN_FIELDS}
    fields |= {"block_size": block_size, "mask_token_id": tokens["mask_token_id"]}
    fields |= {"pad_token_id": None}  # its row may not be there yet
    network = source.build(source.architecture.config(**fields))
    grow_rows(network, 1 + max(source.tokenizer.get_vocab().values()))
    network.config.pad_token_id = tokens["pad_token_id"]
    network.generation_config = GenerationConfig()  # written from the source's own file
    return network


def grow_rows(network: Any, num_tokens: int) -> None:
    """Give embedding and head a row for each token, if they lack any: a multiple of 64 rows, the new ones the
    mean of the old. Tied matrices stay tied."""
    before = network.config.vocab_size
    if num_tokens <= before:
        return
    network.resize_token_embeddings(num_tokens, pad_to_multiple_of=ROW_MULTIPLE, mean_resizing=False)
    for layer in (network.get_input_embeddings(), network.get_output_embeddings()):
        with torch.no_grad():
            layer.weight[before:] = layer.weight[:before].double().mean(0).to(layer.weight.dtype)


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Under the class that reads tokenizer.json as it is: another might build its own from the vocabulary."""
    tokenizer.save_pretrained(folder)
    use_older_tokenizer_names(folder)
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields = {name: value for name, value in fields.items() if name != "auto_map"}
    fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_generation_config(source: AutoregressiveModel, folder: Path, tokens: Mapping[str, Any]) -> None:
    """The source's, with the new pad; transformers would refuse to save what some of them say."""
    told = source.generation or {"bos_token_id": source.config.bos_token_id}
    fields = {**told, "pad_token_id": tokens["pad_token_id"]}
    if fields.get("eos_token_id") is None:
        fields["eos_token_id"] = list(tokens["stop_token_ids"])
    text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
    (folder / "generation_config.json").write_text(text, encoding="utf-8")


def _check_weights(
    source: AutoregressiveModel, saved: Mapping[str, Tensor], rows: int, *, tied: bool
) -> None:
    """Raise InputError unless every tensor holds the source's values: all of them, and no others.

    Of the matrices with a row per token, the source's rows.
    """
    original = source.original()
    names = {f"model.{name}" if f"model.{name}" in saved else name: name for name in original}
    missing = saved.keys() - names.keys()
    lost = names.keys() - saved.keys() - ({"lm_head.weight"} if tied else set())
    lost = {name for name in lost if not name.endswith(OLD_BUFFER)}
    differing = [
        name for name in saved if name in names and not _holds(saved, original, name, names[name], rows)
    ]
    unlike = sorted(missing) + sorted(lost) + differing
    if unlike:
        problem = f"its tensor {unlike[0]} could not be kept as it is"
        raise InputError("model", source.source, problem, "save it with transformers' save_pretrained first")


def _holds(
    saved: Mapping[str, Tensor], original: Mapping[str, Tensor], name: str, was: str, rows: int
) -> bool:
    now, before = saved[name], original[was]
    if name in _MATRICES:
        now, before = now[:rows], before[:rows]
    return now.shape == before.shape and torch.equal(now, before.to(now.dtype))


def _check_tokenizer(source: AutoregressiveModel, folder: Path) -> None:
    """Raise InputError unless the saved tokenizer is read as the one that was saved."""
    read = load_tokenizer(folder)
    if read.tokenizer_hash != tokenizer_hash(source.tokenizer):
        problem = f"its tokenizer ({type(source.tokenizer).__name__}) is another one when it is read again"
        raise InputError(
            "model", source.source, problem, "save it as a fast tokenizer (tokenizer.json) first"
        )

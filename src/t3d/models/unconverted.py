"""An autoregressive checkpoint decoded as it is: nothing is written, and no number changes.

It is loaded into its architecture's class here (:mod:`t3d.models.adopted`), whose config then says
``predicts="next"``, blocks of one token, and which token stands where a drafter drafts. That one is never
excluded from what the model may say, and only a drafter with an embedding of its own makes sense of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from t3d.errors import InputError
from t3d.model_choice import gguf_of
from t3d.models.adopted import ARCHITECTURES
from t3d.models.autoregressive import FOREIGN_FIELDS, AutoregressiveModel, open_autoregressive
from t3d.models.checkpoint import USUAL, HubAccess, check_revision, open_checkpoint
from t3d.models.token_choice import choose_mask, used_ids
from t3d.models.token_ids import LoadedTokenizer, with_ids


@dataclass(frozen=True, kw_only=True)
class Unconverted:
    """What is known of such a checkpoint before its weights are read."""

    named: LoadedTokenizer
    config: PreTrainedConfig
    """Of the class here."""
    weights_hash: str
    read: Callable[[], Any]
    """Its network, in the precision of its files."""


def is_unconverted(source: str, access: HubAccess = USUAL) -> bool:
    """Whether this is an autoregressive checkpoint of a known architecture, or a folder of one GGUF file."""
    check_revision(source, access)
    if gguf_of(source) is not None:
        return True
    return open_checkpoint(source, access).fields.get("model_type") in ARCHITECTURES


def open_unconverted(source: str, access: HubAccess = USUAL) -> Unconverted:
    """Raises InputError for what :func:`~t3d.models.autoregressive.open_autoregressive` refuses, and where no
    token can stand where a drafter drafts."""
    opened = open_autoregressive(source, gguf_of(source), access)
    stops = opened.stop_token_ids()
    fields = {name: value for name, value in opened.config.to_dict().items() if name not in FOREIGN_FIELDS}
    fields |= {"block_size": 1, "mask_token_id": _placeholder(opened, stops), "predicts": "next"}
    config = opened.architecture.config(**fields)
    return Unconverted(
        named=with_ids(source, config, opened.tokenizer, stops),
        config=config,
        weights_hash=opened.weights_hash,
        read=partial(_read, opened, config),
    )


def _read(opened: AutoregressiveModel, config: PreTrainedConfig) -> Any:
    network = opened.build(config)
    network.generation_config = GenerationConfig(
        eos_token_id=opened.generation.get("eos_token_id", config.eos_token_id)
    )
    return network


def _placeholder(opened: AutoregressiveModel, stops: tuple[int, ...]) -> int:
    """An id that texts do not have: the tokenizer's mask token, an unused special token, else a row of the
    embedding without a name; where all are taken, the unknown token, the first of a text or the pad."""
    tokenizer, rows = opened.tokenizer, opened.config.vocab_size
    if tokenizer.mask_token_id is not None:  # in another role too: it is never kept from being said
        return tokenizer.mask_token_id
    used = {*stops, *used_ids(tokenizer, opened.config.to_dict(), opened.generation)}
    vocabulary = tokenizer.get_vocab()
    chosen = choose_mask(tokenizer, None, used).token
    if chosen in vocabulary:
        return vocabulary[chosen]
    spare = 1 + max(vocabulary.values())
    if spare < rows:
        return spare
    rare = (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    found = next((token for token in rare if token is not None and token not in stops), None)
    if found is not None:
        return found
    problem = "no special token is unused, and its embedding has no row to spare, for what is to be drafted"
    raise InputError("model", opened.source, problem, "convert it, which adds one: t3d convert")

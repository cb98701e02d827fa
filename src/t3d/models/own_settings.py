"""Settings that travel with a checkpoint: how it decodes where nothing else is said.

``config.json`` has ``block_size``, as SDAR's checkpoints do. A student's ``generation_config.json`` has an
object ``block_diffusion`` as well, whose keys are fields of :class:`~t3d.decoding.params.DecodeParams`; one
object, since ``temperature`` at the top is Qwen3's, of autoregressive decoding. transformers reads and saves
both as they are. docs/evaluation.md lists the keys.
"""

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from t3d.errors import InputError
from t3d.predicts import OF_NEXT, predicts_of

KEY = "block_diffusion"


def own_settings(config: PreTrainedConfig, generation_config: GenerationConfig | None) -> dict[str, Any]:
    """Fields of DecodeParams that the two configs of a checkpoint name; empty if they name none.

    Raises InputError for ``block_diffusion`` that is no object, or that has another block size than
    ``config.json``; what else it has is checked where it is used.
    """
    told = {} if generation_config is None else vars(generation_config).get(KEY, {})
    if not isinstance(told, Mapping):
        fix = 'write for example {"block_size": 8, "steps_per_block": 2}'
        raise InputError(KEY, told, "no object, in the checkpoint's generation_config.json", fix)
    if predicts_of(config) == "next":
        return {**OF_NEXT, **told}
    size = vars(config).get("block_size")
    if size is None:
        return dict(told)
    if told.get("block_size", size) != size:
        problem = f"in {KEY} of the checkpoint's generation_config.json, but {size} in its config.json"
        raise InputError("block_size", told["block_size"], problem, "write the same into both files")
    return {"block_size": size, **told}


def drafts_by_itself(own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model that has a drafter: what names no strategy, or goes token by token, drafts."""
    drafts = own.get("remasking", "left_to_right") == "left_to_right"
    return {**own, **({"remasking": "self_speculative"} if drafts else {})}


def set_own_settings(model: PreTrainedModel, settings: Mapping[str, Any]) -> None:
    """Write the settings, ``block_size`` among them, into the configs of a model."""
    config: Any = model.config
    config.block_size = settings["block_size"]
    tell(model.generation_config, settings)


def tell(generation_config: Any, told: Any) -> None:
    """Put these settings into a generation config so that transformers keeps them: of one that counts as made
    from the model's config it drops, on loading, what it does not know."""
    setattr(generation_config, KEY, dict(told) if isinstance(told, Mapping) else told)
    generation_config._from_model_config = False

"""Settings of training that others leave without effect: whoever gives one is told, not obeyed in silence.

A configuration does not know which of its values somebody gave. So a field without effect may have its
default, or what the preset says that the configuration is made from: the one that it differs least from. That
is the same on the command line and in Python.
"""

import dataclasses
from typing import Any

from t3d.errors import InputError
from t3d.training.config import T3DConfig
from t3d.training.presets import PRESETS

_OF_REFERENCE = ("ddo_alpha", "ddo_beta", "log_ratio", "fake_source", "refresh_every", "reference_choice")
_OF_REFERENCE += ("reference_placement",)
_OF_PATH = ("path_weighting", "path_scope", "path_positions", "path_reduction", "path_tokens_per_level")
_OF_LORA = ("lora_alpha", "lora_dropout", "lora_target_modules", "lora_mask_embedding")
_OF_DRAFTER = ("draft_targets", "draft_rides", "first_error_weight", "draft_open_prob")
_OF_DRAFTER += ("lora_mask_embedding",)
_OF_SOFT_TARGETS = ("soft_target_source", "soft_target_context", "soft_target_direction")
_OF_SOFT_TARGETS += ("soft_target_top_k", "soft_target_below")
_NOT_OF_DRAFTER = ("state_scope", "mask_ratios", "mask_prob_range", "path_positions")


def check_training_fields(config: T3DConfig) -> None:
    """Raise InputError for a field that somebody must have given, and that this configuration ignores."""
    reasons, defaults = ignored_training_fields(config), _defaults(config)
    given = [
        {name for name in reasons if getattr(config, name) not in (defaults[name], preset[name])}
        for preset in _nearest_presets(config, defaults)
    ]
    for name in sorted(min(given, key=len)):
        value = getattr(config, name)
        raise InputError(name, value, f"ignored: {reasons[name]}", "leave it out, or change the other")


def _defaults(config: T3DConfig) -> dict[str, Any]:
    placement = "adapter" if config.lora_rank else "device"  # what T3DConfig fills in
    return {item.name: item.default for item in dataclasses.fields(T3DConfig)} | {
        "reference_placement": placement
    }


def _nearest_presets(config: T3DConfig, defaults: dict[str, Any]) -> list[dict[str, Any]]:
    """The presets, whole, from which it differs in the fewest of the fields that presets set."""
    names = {name for preset in PRESETS.values() for name in preset}
    distances = [
        sum(getattr(config, name) != preset.get(name, defaults[name]) for name in names)
        for preset in PRESETS.values()
    ]
    presets = zip(PRESETS.values(), distances, strict=True)
    return [defaults | preset for preset, distance in presets if distance == min(distances)]


def ignored_training_fields(config: T3DConfig) -> dict[str, str]:
    """Fields without effect, and why."""
    reasons: dict[str, str] = {}
    objective = f"objective={config.objective!r}"
    if config.objective != "t3d":
        reasons |= dict.fromkeys(_OF_REFERENCE, f"{objective} has no reference")
    if config.objective != "cross_entropy":
        weighed = f"{objective} is weighed in its own way"
        reasons |= dict.fromkeys(("loss_weighting", "loss_normaliser"), weighed)
    if config.soft_target_weight == 0:
        reasons |= dict.fromkeys(_OF_SOFT_TARGETS, "soft_target_weight=0 leaves soft targets out")
    if config.objective != "certainty_forcing":
        entropy = f"{objective} has no entropy term"
        reasons |= dict.fromkeys(("entropy_weight", "entropy_temperature"), entropy)
    if config.path_weight == 0:
        reasons |= dict.fromkeys(_OF_PATH, "path_weight=0 leaves the path term out")
    elif config.path_weighting != "nested_prefix":
        reasons["path_tokens_per_level"] = f"path_weighting={config.path_weighting!r} has no levels"
    if config.random_token_prob == 0:
        reasons["random_token_rule"] = "random_token_prob=0 replaces no mask"
    if config.objective != "prefix_acceptance":
        reasons |= dict.fromkeys(_OF_DRAFTER, f"{objective} trains no drafter")
    reasons |= _ignored_of_states(config)
    if not config.lora_rank:
        reasons |= dict.fromkeys(_OF_LORA, "lora_rank=0 trains all weights")
    return reasons


def _ignored_of_states(config: T3DConfig) -> dict[str, str]:
    reasons: dict[str, str] = {}
    if config.state_source != "trajectory":
        reasons["state_order"] = f"state_source={config.state_source!r} has none to choose"
        if config.state_source != "on_policy":
            reasons["mask_ratio_power"] = f"state_source={config.state_source!r} draws no ratios"
    if config.state_source == "draft":
        masks = "state_source='draft' masks the end of a block"
        reasons |= dict.fromkeys(_NOT_OF_DRAFTER, masks)
    elif config.state_source in ("trajectory", "on_policy"):
        reasons["mask_prob_range"] = f"state_source={config.state_source!r} has no masking probabilities"
    return reasons

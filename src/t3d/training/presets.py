"""Named settings: the default ``t3d``, the ``paper`` as printed, the ``released`` code, and baselines.

A preset is a set of T3DConfig fields; anything it does not name keeps T3DConfig's default.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

import yaml

from t3d.errors import InputError
from t3d.training.config import T3DConfig

_EIGHTHS = tuple(count / 8 for count in range(8, 0, -1))

PRESETS: dict[str, dict[str, Any]] = {
    "t3d": {},
    "paper": {
        "ddo_alpha": 1.0,  # Eq. 7 has no alpha
        "ddo_beta": 1.0,  # Eq. 7 has no beta
        "log_ratio": "sum",  # "log p(x0 | x_t)" of the sequence, Eq. 7
        "fake_source": "sample",  # "x0 ~ p_ref(. | x_t)", Eq. 7
        "path_reduction": "sum",  # "sum over i", Eq. 8
        "mask_ratios": _EIGHTHS,  # x_t ~ p_phi(x_t): every number of masked tokens of a block of 8
        "mask_ratio_power": 0.0,  # equally often
    },
    "released": {
        "path_weighting": "nested_prefix",
        "path_positions": "all",
        "path_reduction": "sum",  # nested_prefix weights already sum to one per response
        "grid_origin": "response",
        "state_order": "released",
        "state_scope": "response",
        "random_token_rule": "exact_count",
        "noise_refresh": "once",
    },
    "naive_td": {"objective": "cross_entropy", "random_token_prob": 0.0},  # Eq. 5
}


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """T3DConfig fields from texts of the form ``name=value``, the value in YAML.

    Raises InputError for a text of another form or an unknown name.
    """
    known = [item.name for item in dataclasses.fields(T3DConfig)]
    fields: dict[str, Any] = {}
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals or name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {close[0]!r}" if close else "write name=value with a field of T3DConfig"
            raise InputError("override", override, "not a setting of T3DConfig", fix)
        fields[name] = yaml.safe_load(value)
    return fields


def preset_fields(name: str) -> dict[str, Any]:
    """T3DConfig fields of a preset. Raises InputError for an unknown name."""
    if name not in PRESETS:
        raise InputError("preset", name, "not known", f"use one of {', '.join(PRESETS)}")
    return dict(PRESETS[name])

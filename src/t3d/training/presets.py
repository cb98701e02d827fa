"""Named settings: the default ``t3d``, the ``paper`` as printed, the ``released`` code, and baselines.

A preset is a set of T3DConfig fields; anything it does not name keeps T3DConfig's default. The baselines
differ from ``t3d`` in what defines the method, and in nothing else: same grid, steps, learning rate.
"""

import dataclasses
import difflib
import json
from collections.abc import Sequence
from functools import cache
from typing import Any, get_type_hints

import yaml

from t3d.errors import InputError
from t3d.field_types import fit, read_value, type_text

_EIGHTHS = tuple(count / 8 for count in range(8, 0, -1))
_PLAIN = {"path_weight": 0.0, "random_token_prob": 0.0}
_NAIVE_TD = {"objective": "cross_entropy"}  # Eq. 5
_RANDOM_MASKS = {  # SDAR's own loss: one masking probability p per response, 1 / p, per response token
    "objective": "cross_entropy",
    "state_source": "random_mask",
    "state_scope": "response",
    "mask_prob_range": (1e-3, 1.0),
    "loss_weighting": "inverse_mask_prob",
    "loss_normaliser": "response_tokens",
    **_PLAIN,
}

_PAPER = {
    "ddo_alpha": 1.0,  # Eq. 7 has no alpha
    "ddo_beta": 1.0,  # Eq. 7 has no beta
    "path_reduction": "sum",  # "sum over i", Eq. 8
    "mask_ratios": _EIGHTHS,  # x_t ~ p_phi(x_t): every number of masked tokens of a block of 8
    "mask_ratio_power": 0.0,  # equally often
}

_T3D_PLUS = {  # T3D by cross-entropy, with the teacher's word where it finds a token of the rollout unlikely
    **_NAIVE_TD,
    "random_token_prob": 0.05,
    "soft_target_weight": 1.0,
    "soft_target_below": 0.1,
}

PRESETS: dict[str, dict[str, Any]] = {
    "t3d": {},
    # For rounds of the student's own rollouts (preset_rounds.py): without answers, or on right ones.
    "t3d-plus": _T3D_PLUS,
    "t3d-plus-verified": {"random_token_prob": 0.05},  # the demo's (docs/LOG.md, 2026-11-25)
    "paper": {
        **_PAPER,
        "log_ratio": "state_sum",  # one sigma per x_t, Eq. 6-7
        "fake_source": "expectation",  # "E_{x0 ~ p_ref(. | x_t)}" stands inside sigma, Eq. 7
        "reference_choice": "auto",  # "theta*", the best student of the round, C.2
    },
    "paper-sampled": {  # the bound of Eq. 23: one sample in the place of the expectation
        **_PAPER,
        "log_ratio": "sum",
        "fake_source": "sample",
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
    # Tables 5-7: Naive TD (Eq. 5) or DDO (Eq. 7), with or without path term and random tokens.
    "naive_td": {**_NAIVE_TD, **_PLAIN},
    "naive_td_path": {**_NAIVE_TD, "random_token_prob": 0.0},
    "naive_td_random": {**_NAIVE_TD, "path_weight": 0.0},
    "naive_td_path_random": {**_NAIVE_TD},
    "ddo": {**_PLAIN},
    "ddo_path": {"random_token_prob": 0.0},
    "ddo_random": {"path_weight": 0.0},  # with the path term as well it is t3d
    # On real solutions (t3d data solutions), not on rollouts.
    "sft": {**_RANDOM_MASKS, "terminal_filler_loss": True},  # SDAR's pads are labels
    "sft_dllm_rl": {
        **_RANDOM_MASKS,
        "state_scope": "token",
        "mask_prob_range": (0.1, 0.9),
        "loss_weighting": "uniform",
    },
    # On rollouts: Eq. 16, the model's own pretraining loss on its teacher's responses.
    "redi": {**_RANDOM_MASKS},
    "redi_random_start": {
        **_RANDOM_MASKS,
        "random_token_prob": 0.3,
        "random_token_rule": "start_state",
    },
    "dparallel": {
        "objective": "certainty_forcing",
        "state_source": "random_mask",
        "mask_prob_range": (0.5, 0.5),
        "complementary_states": True,
        **_PLAIN,
    },
    # An adapter on drafts, for self-speculative decoding: the base stays as it is, and so does its output.
    "drafter": {
        "objective": "prefix_acceptance",
        "state_source": "draft",
        "first_error_weight": 1.0,
        "lora_rank": 16,
        "learning_rate": 1e-3,  # of an adapter; 1e-5 is for all weights
        "metric_for_best_model": "accepted_per_draft",
        **_PLAIN,
    },
}
SOLUTION_PRESETS = ("sft", "sft_dllm_rl")
"""Presets that train on real solutions; all others do on rollouts."""


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """T3DConfig fields from texts of the form ``name=value``, the value in YAML.

    Raises InputError for a text of another form, an unknown name, or a value of another type than the
    field's.
    """
    fields: dict[str, Any] = {}
    for override in overrides:
        known, (name, equals, value) = _field_types(), override.partition("=")
        if not equals and name in known:
            raise InputError("override", override, "has no value", f"write {name}=VALUE")
        if not equals or name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean {close[0]!r}" if close else "write name=value with a field of T3DConfig"
            raise InputError("override", override, "not a setting of T3DConfig", fix)
        kind = known[name]
        try:
            fields[name] = fit(read_value(value), kind)
        except (ValueError, yaml.YAMLError) as error:
            fix = f"write {name}= with {type_text(kind)}"
            raise InputError("override", override, f"{name} takes {type_text(kind)}", fix) from error
    return fields


def override_text(name: str, value: Any) -> str:
    """A field as :func:`parse_overrides` reads it."""
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"


@cache
def _field_types() -> dict[str, Any]:
    from t3d.training.config import T3DConfig  # noqa: PLC0415 - transformers, not for names of presets

    types = get_type_hints(T3DConfig)
    return {item.name: types[item.name] for item in dataclasses.fields(T3DConfig)}


def preset_fields(name: str) -> dict[str, Any]:
    """T3DConfig fields of a preset. Raises InputError for an unknown name."""
    if name not in PRESETS:
        raise InputError("preset", name, "not known", f"use one of {', '.join(PRESETS)}")
    return dict(PRESETS[name])

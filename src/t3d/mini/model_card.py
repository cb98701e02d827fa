"""The card of a pretrained teacher: what it was trained on, how long, and its hash."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import safe_open

from t3d.versions import versions

_CARD = """---
license: apache-2.0
library_name: t3d
tags: [block-diffusion, sdar, mini]
---
# t3d mini teacher

A block-diffusion language model in SDAR's format for the built-in tasks of `t3d`:

- `chain`: short arithmetic stories, solved step by step in freely chosen words;
- `make`: digits that add up to a number under a ban and a demand, with running remainders;
- `code`: a three-line Python function from a short specification.

It exists to show, on a CPU, how few-step decoding fails and how distillation repairs it; it knows
nothing else.

| | |
|---|---|
| Parameters | {num_parameters:,} ({num_bytes:,} bytes) |
| Network | {num_layers} layers, hidden {hidden_size}, {num_heads} heads of {head_dim} |
| Data | {shares}; split `train` (held-out specifications never drawn), one random solution per problem |
| Examples | {num_examples:,} ({num_optimizer_steps:,} optimizer steps of {batch_size}) |
| Objective | masked diffusion (ELBO, weight 1/p), uniform level per block, block sizes 4 and 8 by batch |
| Precision | {precision} |
| Last logged loss | {loss} nats per token |
| Training time | {minutes:.0f} minutes{resumed} |
| SHA-256 of model.safetensors | `{digest}` |
| Made by | `t3d mini pretrain --output DIR` with the settings in pretrain.json |
| Versions | {versions} |
"""


def write_model_card(
    folder: Path,
    config: Any,
    log_history: Sequence[Mapping[str, float]],
    seconds: float,
    *,
    shares: Mapping[str, float],
    resumed: bool,
) -> None:
    """Write ``README.md``, ``pretrain.json`` (settings) and ``pretrain_log.jsonl`` beside the weights."""
    weights = folder / "model.safetensors"
    with safe_open(weights, "pt") as file:
        num_parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    losses = [float(entry["loss"]) for entry in log_history if "loss" in entry]
    card = _CARD.format(
        num_parameters=num_parameters,
        num_bytes=weights.stat().st_size,
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_heads,
        head_dim=config.hidden_size // config.num_heads,
        shares=", ".join(f"{name} {share:.0%}" for name, share in shares.items()),
        precision="bfloat16 autocast, float32 weights" if config.bf16 else "float32",
        num_examples=config.num_optimizer_steps * config.batch_size,
        num_optimizer_steps=config.num_optimizer_steps,
        batch_size=config.batch_size,
        loss=f"{losses[-1]:.3f}" if losses else "not logged",
        minutes=seconds / 60,
        resumed=" since the last resume" if resumed else "",
        digest=hashlib.sha256(weights.read_bytes()).hexdigest(),
        versions=", ".join(f"{name} {number}" for name, number in versions().items()),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    settings = {name: value for name, value in asdict(config).items() if name != "output"}
    (folder / "pretrain.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    lines = [json.dumps(dict(entry)) for entry in log_history]
    (folder / "pretrain_log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

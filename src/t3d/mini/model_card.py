"""The card of a pretrained teacher: what it was trained on, how long, and its hash."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from t3d.work.versions import versions

STAGES_FILE, LOG_FILE = "pretrain.json", "pretrain_log.jsonl"
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
| Network | {num_layers} layers, hidden {hidden_size}, {num_heads} heads ({num_key_value_heads} of keys) |
| Data | the tasks' generators, split `train` (held-out specifications never drawn), one solution each |
| Objective | masked diffusion (ELBO, weight 1/p), uniform level per block, block sizes 4 and 8 by batch |
| Last logged loss | {loss} nats per token |
{stages}| SHA-256 of model.safetensors | `{digest}` |
| Made by | `t3d mini pretrain`, settings in {stages_file}, log in {log_file} |
| Versions | {versions} |
"""
_STAGE = (
    "| Stage {number} | {num_examples:,} examples ({num_optimizer_steps:,} optimizer steps of "
    "{batch_size}): "
    "{shares}; peak learning rate {learning_rate}, seed {seed}, {precision}; "
    "{minutes:.0f} minutes{resumed} |\n"
)


def read_stages(folder: str | Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The stages of a teacher's training, the last one last, and their common log; empty if not recorded."""
    stages, log = Path(folder) / STAGES_FILE, Path(folder) / LOG_FILE
    if not stages.is_file() or not log.is_file():
        return [], []
    lines = log.read_text(encoding="utf-8").splitlines()
    return json.loads(stages.read_text(encoding="utf-8"))["stages"], [json.loads(line) for line in lines]


def write_model_card(
    folder: Path, stages: Sequence[Mapping[str, Any]], log: Sequence[Mapping[str, Any]]
) -> None:
    """Write ``README.md``, ``pretrain.json`` (the stages) and ``pretrain_log.jsonl`` beside the weights.

    A stage has ``plan`` (settings, task shares, ...), ``seconds`` and ``resumed``.
    """
    weights = folder / "model.safetensors"
    with safe_open(weights, "pt") as file:
        num_parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    losses = [float(entry["loss"]) for entry in log if "loss" in entry]
    card = _CARD.format(
        **stages[-1]["plan"],
        num_parameters=num_parameters,
        num_bytes=weights.stat().st_size,
        loss=f"{losses[-1]:.3f}" if losses else "not logged",
        stages="".join(_stage_row(number, stage) for number, stage in enumerate(stages, start=1)),
        digest=hashlib.sha256(weights.read_bytes()).hexdigest(),
        stages_file=STAGES_FILE,
        log_file=LOG_FILE,
        versions=", ".join(f"{name} {number}" for name, number in versions().items()),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / STAGES_FILE).write_text(json.dumps({"stages": stages}, indent=2) + "\n", encoding="utf-8")
    lines = [json.dumps(dict(entry)) for entry in log]
    (folder / LOG_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _stage_row(number: int, stage: Mapping[str, Any]) -> str:
    plan = stage["plan"]
    return _STAGE.format(
        **{name: value for name, value in plan.items() if name != "task_shares"},
        number=number,
        num_examples=plan["num_optimizer_steps"] * plan["batch_size"],
        shares=", ".join(f"{name} {share:.0%}" for name, share in plan["task_shares"].items()),
        precision="bfloat16 autocast" if plan["bf16"] else "float32",
        minutes=stage["seconds"] / 60,
        resumed=" since the last resume" if stage["resumed"] else "",
    )

"""A plan in lines: memory by part, largest batches, hours, and every assumption by name."""

from dataclasses import asdict
from typing import Any

from t3d.planning.assumptions import BESIDES, GIB
from t3d.planning.memory import loading_bytes
from t3d.planning.planned import Planned

_PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer (AdamW)",
    "reference": "reference",
    "exchange": "exchange between GPUs",
    "casts": "bfloat16 copies of weights",
    "activations": "activations",
    "workspace": "head tiles and workspace",
    "cache": "keys and values (KV cache)",
    "logits": "logits",
    "prefill": "prefill",
}


def plan_lines(plan: Planned) -> list[str]:
    """What ``t3d plan`` prints."""
    work, step = plan.work, plan.work.step
    trained = f"an adapter of rank {step.adapter_rank}" if step.adapter_rank else "all weights"
    spread = f"{step.num_devices} GPUs, {step.parallel}" if step.num_devices > 1 else "one GPU"
    kept = "with" if step.checkpointing else "without"
    other = "without" if step.checkpointing else "with"
    many = "trajectory" if step.num_trajectories == 1 else "trajectories"
    return [
        f"{work.model}: {step.shape.num_parameters / 1e9:.3f} billion parameters ({work.how_known})",
        "",
        f"Training, GiB per GPU: {trained}, {spread}, {kept} gradient checkpointing, "
        f"{step.num_trajectories} {many} per micro-batch",
        *_table(asdict(plan.training)),
        f"  {other} gradient checkpointing it would be {plan.other_checkpointing.total / GIB:.1f}",
        *_loading(plan),
        f"  room on a GPU of {work.gigabytes:g} GB: {plan.room / GIB:.1f}; largest micro-batch that fits: "
        f"{_count(plan.largest_micro_batch)}",
        "",
        f"Rollout, GiB per GPU: {work.decoding.batch_size} requests together",
        *_table(asdict(plan.rollout)),
        f"  largest batch that fits: {_count(plan.largest_rollout_batch)}",
        "",
        f"Hours on these GPUs: rollout of {work.num_prompts} prompts {plan.rollout_hours:.2f}, "
        f"training on {work.num_trajectories} trajectories {plan.training_hours:.1f}",
        "",
        "Assumptions, none of them measured here unless it says so:",
        *(
            f"  {name} = {one.value:g} {one.unit}: {one.text} ({one.source})"
            for name, one in work.assumed.items()
        ),
        *(f"  {text}" for text in BESIDES),
    ]


def refusal(plan: Planned) -> tuple[str, str] | None:
    """(problem, fix) where training or the rollout does not fit, else None."""
    if plan.training.total > plan.room:
        problem = (
            f"training takes {plan.training.total / GIB:.1f} GiB of the {plan.room / GIB:.1f} on each GPU"
        )
        ways = [f"{text}: {size / GIB:.1f} GiB" for text, size in plan.ways_out]
        return problem, "; or ".join(ways) or "use more GPUs, GPUs with more memory, or a smaller model"
    if plan.rollout.total > plan.room:
        problem = (
            f"the rollout takes {plan.rollout.total / GIB:.1f} GiB of the {plan.room / GIB:.1f} on each GPU"
        )
        if plan.largest_rollout_batch:
            return problem, f"use a batch_size of at most {plan.largest_rollout_batch} in section rollout"
        return problem, "use dtype bfloat16 in section rollout, GPUs with more memory, or a smaller model"
    return None


def _loading(plan: Planned) -> list[str]:
    whole = loading_bytes(plan.work.step)
    text = f"  before FSDP2 cuts them up, weights and reference are whole on every GPU: {whole / GIB:.1f}"
    return [text] if whole else []


def _table(parts: dict[str, Any]) -> list[str]:
    rows = [(_PARTS[name], size) for name, size in parts.items() if size]
    width = max(len(text) for text, _ in rows)
    rows.append(("together", sum(size for _, size in rows)))
    return [f"  {text:<{width}}  {size / GIB:8.2f}" for text, size in rows]


def _count(number: int) -> str:
    return str(number) if number else "none"

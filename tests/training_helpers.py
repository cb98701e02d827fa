"""Short runs of the trainer on a tiny checkpoint."""

from pathlib import Path

import torch
from model_fixtures import load_copy

from t3d.models.gated import add_gated_adapter
from t3d.training.config import T3DConfig
from t3d.training.trainer import T3DTrainer

OF_EVERY_WAY = (
    "t3d",
    "paper",
    "paper-sampled",
    "released",
    "naive_td_path_random",
    "sft",
    "dparallel",
    "drafter",
)
"""One preset for each way in which a preset sums and divides a loss, and draws the states behind it."""


def config(folder: Path, **overrides) -> T3DConfig:
    fields = {
        "output_dir": str(folder),
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
    }
    has_reference = overrides.get("objective", "t3d") == "t3d"
    return T3DConfig(**(fields | ({"refresh_every": 2} if has_reference else {}) | overrides))


def trainer(checkpoint, trajectories, folder, **overrides) -> T3DTrainer:
    loaded = load_copy(checkpoint)
    args, model = config(folder, **overrides), loaded.model
    if args.objective == "prefix_acceptance":
        torch.manual_seed(args.seed)  # as a run does
        model = add_gated_adapter(model.requires_grad_(False), args.lora_rank)
    is_told = args.soft_target_weight and args.soft_target_source == "teacher"
    told = load_copy(checkpoint) if is_told else None
    return T3DTrainer(model, args, trajectories, processing_class=loaded.tokenizer, soft_target_model=told)


def weights(trained: T3DTrainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trained.model.parameters()])


def logged(trained: T3DTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trained.state.log_history if name in entry]

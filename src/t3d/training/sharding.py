"""Weights that processes share: where accelerate shards them, and a whole copy of them at the end."""

import dataclasses
import os
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType
from torch import Tensor, nn

from t3d.errors import InputError
from t3d.work.weights import is_sharded, local_part

if torch.distributed.is_available():
    from torch.distributed.fsdp import FSDPModule


def let_cpus_shard(state: PartialState) -> None:
    """Where FSDP is asked for, let accelerate shard on CPUs too; to be called before an Accelerator is made.

    accelerate 1.15 looks whether FSDP is asked for on accelerators only (``AcceleratorState.__init__``), and
    trains processes on CPUs by DDP without a word. Nothing in FSDP2 needs an accelerator: gloo has all that
    it exchanges. Raises InputError for a PyTorch that is built for one: there FSDP2 takes that for its mesh.
    """
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not asked or state.distributed_type != DistributedType.MULTI_CPU:
        return
    if torch.accelerator.current_accelerator() is not None:
        problem = "FSDP2 shards on CPUs only where PyTorch is built for nothing else"
        raise InputError("device", "cpu", problem, "use ddp, or the CPU build of PyTorch")
    state.distributed_type = DistributedType.MULTI_GPU  # AcceleratorState makes FSDP of it


def keep_float32(accelerator: Accelerator) -> None:
    """Let FSDP2 sum gradients in float32, and leave a forward's log-probabilities as they are.

    By accelerate's policy for bfloat16 both are rounded to it.
    """
    plugin: Any = accelerator.state.fsdp_plugin if accelerator.is_fsdp2 else None
    if plugin is not None and plugin.mixed_precision_policy is not None:
        policy = plugin.mixed_precision_policy
        plugin.mixed_precision_policy = dataclasses.replace(
            policy, reduce_dtype=torch.float32, output_dtype=None
        )


def rounds_weights(accelerator: Accelerator) -> bool:
    """Whether the student's weights are bfloat16: DeepSpeed keeps float32 ones for the optimizer alone.

    Elsewhere what is multiplied is rounded, by an autocast that accelerate leaves out here.
    """
    return accelerator.deepspeed_plugin is not None and accelerator.mixed_precision == "bf16"


def round_weights(model: nn.Module) -> None:
    """Make a model's weights bfloat16, and leave its buffers, as DeepSpeed does."""
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()


def is_sharded_model(model: nn.Module) -> bool:
    """Whether processes hold a part of its weights each."""
    return any(is_sharded(weight) for weight in model.parameters())


def make_room(model: nn.Module) -> None:
    """Gather a sharded model's weights once, before decoding does it in inference mode.

    FSDP2 keeps the tensors it gathers into, and training cannot write into those that are made there.
    """
    for module in model.modules():
        if torch.distributed.is_available() and isinstance(module, FSDPModule):
            module.unshard()
            module.reshard()


def share_of(model: nn.Module) -> float:
    """The part of a sharded model's numbers that this process holds."""
    weights = list(model.parameters())
    return sum(local_part(weight).numel() for weight in weights) / sum(weight.numel() for weight in weights)


@torch.no_grad()
def whole_weights(model: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """The state dict of a sharded model in CPU memory, gathered one weight after the other.

    To be called on every process; without ``keep`` it is empty. Tied weights stay tied.
    """
    whole: dict[int, Any] = {}
    weights = {}
    for name, weight in model.state_dict(keep_vars=True).items():
        if id(weight) not in whole:
            gathered: Any = weight.full_tensor() if is_sharded(weight) else weight
            whole[id(weight)] = gathered.detach().cpu() if keep else None
        if keep:
            weights[name] = whole[id(weight)]
    return weights

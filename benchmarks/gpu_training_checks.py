"""What training does on a GPU against what it has to be: parts of gpu_check.py.

Weights and data are random.
"""

import os
import socket
from collections.abc import Sequence
from functools import partial
from tempfile import gettempdir
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType
from decoding_shapes import SHAPES, build_model
from gpu_parts import Case, Machine, Row
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask
from training_lengths import random_trajectory

from t3d.attention.flex import TILE, packed_block_mask
from t3d.attention.masks import training_mask
from t3d.attention.packed_forward import PackedAttention, arrange, packed_forward
from t3d.models.sdar import SDARForCausalLM
from t3d.training.config import T3DConfig
from t3d.training.reference import Reference, build_reference
from t3d.training.states import TrajectoryCollator, TrajectoryDataset

LENGTHS = [(60, 92), (9, 43), (33, 7), (5, 131), (90, 62)]
"""Prompts and responses: several documents per tile, and documents over several tiles."""
LIMITS = {"float32": 2e-3, "bfloat16": 5e-2}
"""Of the norm of a difference, over the norm of what is right."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NUM_STEPS, REFRESH_AFTER = 4, 2


def model_for(machine: Machine, dtype: str) -> SDARForCausalLM:
    """A random model on the device."""
    shape = "tiny" if machine.is_tiny else "small"
    return build_model(shape, machine.device, DTYPES[dtype]).train()


def packed_batch(machine: Machine, max_length: int | None) -> dict[str, Any]:
    """``[clean | noisy]`` documents in rows of whole tiles, on the device."""
    vocab_size = SHAPES["tiny" if machine.is_tiny else "small"]["vocab_size"]
    config = T3DConfig(
        output_dir=gettempdir(),  # nothing is written
        use_cpu=not machine.on_cuda,
        max_length=max_length,
    )
    trajectories = [random_trajectory(row, *pair, vocab_size) for row, pair in enumerate(LENGTHS)]
    data = TrajectoryDataset(trajectories, config, 0)
    collate = TrajectoryCollator(
        config=config, pad_token_id=0, mask_token_id=vocab_size - 1, vocab_size=vocab_size
    )
    batch = collate([data[row] for row in range(len(LENGTHS))])
    return {
        name: value.to(machine.device) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


def flex_mask_cases(machine: Machine) -> list[Case]:
    """FlexAttention's rule and tiles against the dense mask, pair by pair."""

    def case(max_length: int) -> Row:
        batch = in_whole_tiles(packed_batch(machine, max_length))
        keys = batch["document_ids"], batch["block_ids"], batch["is_noisy"]
        dense, mask = training_mask(*keys), packed_block_mask(*keys)
        rows, length = batch["document_ids"].shape
        by_rule = create_mask(mask.mask_mod, rows, 1, length, length, machine.device)[:, 0]
        by_tile = mask.to_dense()[:, 0].bool().repeat_interleave(TILE, 1).repeat_interleave(TILE, 2)
        holds = torch.equal(by_rule, dense) and not (dense & ~by_tile).any().item()
        row: Row = {"rows": rows, "tokens of a row": length, "pairs seen": int(dense.sum()), "ok": holds}
        return row | ({} if holds else {"why": f"the masks of {rows} rows of {length} tokens differ"})

    return [partial(case, max_length) for max_length in (384, 1024)]


def in_whole_tiles(batch: dict[str, Any]) -> dict[str, Any]:
    """What a mask is made of, rows padded to whole tiles: on a CPU the collator does not."""
    further = -batch["document_ids"].shape[1] % TILE
    padding = {"document_ids": -1, "block_ids": 0, "is_noisy": False}
    return {
        name: torch.nn.functional.pad(batch[name], (0, further), value=value)
        for name, value in padding.items()
    }


def flex_cases(machine: Machine) -> list[Case]:
    """Logits and gradients under FlexAttention against those under the dense mask."""

    def case(dtype: str) -> Row:
        model, batch = model_for(machine, dtype), packed_batch(machine, 512)
        dense_logits, dense_gradient = forward_and_backward(model, batch, "dense")
        logits, gradient = forward_and_backward(model, batch, "flex")
        row: Row = {
            "dtype": dtype,
            "tokens": batch["input_ids"].numel(),
            "logits": relative_difference(logits, dense_logits),
            "gradient": relative_difference(gradient, dense_gradient),
            "limit": LIMITS[dtype],
        }
        holds = max(row["logits"], row["gradient"]) <= LIMITS[dtype]
        why = f"{dtype}: logits differ by {row['logits']:.2g}, the gradient by {row['gradient']:.2g}"
        return row | {"ok": holds} | ({} if holds else {"why": why})

    return [partial(case, dtype) for dtype in DTYPES]


def forward_and_backward(
    model: SDARForCausalLM, batch: dict[str, Any], attention: PackedAttention
) -> tuple[Tensor, Tensor]:
    """Logits at the loss positions, and the gradient of their cross-entropy, in one vector."""
    model.zero_grad()
    arranged = arrange(batch, attention)
    logits_MV = packed_forward(model, batch, arranged, logit_positions=batch["loss_positions"]).logits
    torch.nn.functional.cross_entropy(logits_MV.float(), batch["labels"]).backward()
    return logits_MV.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Norm of the difference over the norm of the second."""
    return ((ours.float() - theirs.float()).norm() / theirs.float().norm()).item()


def placement_cases(machine: Machine) -> list[Case]:
    """References of one student, streamed from CPU memory and on its device: equal to the last bit."""

    def case(dtype: str) -> Row:
        student = model_for(machine, dtype)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
        references = [build_reference(student, placement) for placement in ("device", "cpu")]
        run = Trained(student, references, optimizer, machine)
        gap = max((beside - streamed).abs().max().item() for beside, streamed in run.seen)
        moved = (run.seen[-1][0] - run.seen[0][0]).abs().max().item()
        row: Row = {"dtype": dtype, "losses": run.losses, "largest difference": gap, "moved by": moved}
        holds = gap == 0 < moved
        return row | {"ok": holds} | ({} if holds else {"why": f"{dtype}: the two differ by {gap:.3g}"})

    return [partial(case, dtype) for dtype in DTYPES]


class Trained:
    """A few optimizer steps of a DDO-like loss against the first reference, all refreshed in between."""

    def __init__(
        self, student: Any, references: Sequence[Reference], optimizer: Any, machine: Machine
    ) -> None:
        self.losses: list[float] = []
        self.seen: list[list[Tensor]] = []
        """Log-probabilities of each reference, at every step."""
        vocab_size = SHAPES["tiny" if machine.is_tiny else "small"]["vocab_size"]
        ids = torch.arange(1, 49, device=machine.device).reshape(2, 24) * 7 % vocab_size
        for step in range(NUM_STEPS):
            optimizer.zero_grad()
            own = log_probs(student, ids)
            seen = []
            for reference in references:
                with reference.active() as model:
                    seen.append(log_probs(model, ids))
            loss = -torch.nn.functional.logsigmoid(0.1 * (own - seen[0]).sum(1)).mean() - own.mean()
            loss.backward()
            optimizer.step()
            self.losses.append(loss.item())
            self.seen.append([other.detach().cpu() for other in seen])
            if step + 1 == REFRESH_AFTER:
                for reference in references:
                    reference.refresh(student)


def log_probs(model: Any, ids_RQ: Tensor) -> Tensor:
    """Of each next token, every position seeing all; float32."""
    mask = torch.ones(2, 1, ids_RQ.shape[1], ids_RQ.shape[1], dtype=torch.bool, device=ids_RQ.device)
    logits = model(input_ids=ids_RQ, attention_mask=mask, use_cache=False).logits.float()
    return logits.log_softmax(-1).gather(-1, ids_RQ.roll(-1, 1)[..., None])[..., 0]


def fsdp_cases(machine: Machine) -> list[Case]:
    """FSDP2 in a world of one, student and reference, against neither being sharded."""
    accelerator = world_of_one(machine)

    def trained(dtype: str, *, is_sharded: bool) -> Trained:
        student: Any = model_for(machine, dtype)
        optimizer: Any = torch.optim.SGD(student.parameters(), lr=0.5)
        reference = build_reference(student, "device")
        if is_sharded:
            student, optimizer = accelerator.prepare(student, optimizer)
            reference.prepare(accelerator)
        return Trained(student, [reference], optimizer, machine)

    def case(dtype: str) -> Row:
        plain, sharded = (trained(dtype, is_sharded=is_sharded) for is_sharded in (False, True))
        pairs = zip(plain.losses, sharded.losses, strict=True)
        gap = max(abs(one - other) / abs(one) for one, other in pairs)
        holds = gap <= LIMITS[dtype]
        row: Row = {"dtype": dtype, "plain losses": plain.losses, "sharded losses": sharded.losses}
        row |= {"largest difference": gap, "limit": LIMITS[dtype], "ok": holds}
        return row if holds else row | {"why": f"{dtype}: losses differ by {gap:.3g} of their size"}

    return [partial(case, dtype) for dtype in DTYPES]


def world_of_one(machine: Machine) -> Accelerator:
    """What torchrun and accelerate set up for one process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # else accelerate takes all cores
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    accelerator = Accelerator(cpu=not machine.on_cuda)
    # accelerate offers FSDP2 on accelerators only, but nothing in it needs one.
    accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    return accelerator

"""The reference model of DDO: a frozen earlier student, and where it is kept."""

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from accelerate.utils import DistributedType
from accelerate.utils.fsdp_utils import fsdp2_canonicalize_names, fsdp2_prepare_model
from accelerate.utils.offload import PrefixedDataset
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from t3d.errors import InputError
from t3d.models.divergence import OtherHead
from t3d.training.choices import Placement, ReferenceChoice
from t3d.training.lora import base_of, is_adapted, student_adapter
from t3d.training.sharding import round_weights, rounds_weights
from t3d.work.weights import is_sharded, local_part

if torch.distributed.is_available():
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import distribute_tensor

REFERENCE_FILE = "reference.safetensors"
REFERENCE_ADAPTER = "reference"
"""Name of the adapter that :class:`AdapterCopy` adds to the student."""


class Reference(ABC):
    """A frozen earlier student: at first the student as it is given, then what it was at each refresh."""

    score: float | None = None
    """Of the student it is a copy of, where that was measured; saved with the weights."""
    _is_writer = True

    def prepare(self, accelerator: Accelerator) -> None:
        """Called once the student is prepared: shard the reference as the student is sharded.

        Raises InputError where the reference cannot be.
        """
        self._is_writer = accelerator.is_main_process
        kind, deepspeed = accelerator.distributed_type, accelerator.deepspeed_plugin
        is_zero3 = deepspeed is not None and deepspeed.zero_stage == 3
        if is_zero3 or (kind == DistributedType.FSDP and not accelerator.is_fsdp2):
            name = "DeepSpeed ZeRO-3" if is_zero3 else "FSDP1"
            fix = "use FSDP2 (fsdp_version: 2 in accelerate's config), or DeepSpeed ZeRO-2"
            raise InputError("distributed", name, "the reference cannot be sharded like the student", fix)

    @abstractmethod
    def active(self) -> AbstractContextManager[nn.Module]:
        """The model to call, in evaluation mode and without gradients.

        On leaving it the student is as it was: training mode, trainable weights, active adapter.
        """

    def head(self, hidden_MD: Tensor | None) -> OtherHead:
        """Its distributions at the positions of these hidden states: its head stays on their device."""
        assert hidden_MD is not None
        with self.active() as model:
            weight: Any = base_of(model).get_output_embeddings().weight
        return OtherHead(hidden_MD, weight.full_tensor() if is_sharded(weight) else weight)

    @abstractmethod
    def _weights(self) -> dict[str, Any]:
        """The reference's own weights by name: what is refreshed and saved."""

    def _student_weights(self, student: nn.Module) -> Iterable[Tensor]:
        """The student's weights that :meth:`_weights` are copies of, in the same order."""
        return student.parameters()

    @torch.no_grad()
    def refresh(self, student: nn.Module) -> None:
        """Copy the student's current weights; sharded ones shard to shard, on every process."""
        _reshard(student)
        for own, other in zip(self._weights().values(), self._student_weights(student), strict=True):
            local_part(own).copy_(local_part(other))

    def save(self, folder: str | Path) -> None:
        """Write the weights into an unfinished checkpoint's folder.

        To be called on every process if they are sharded: it gathers them, and the first process writes.
        """
        weights = {}
        for name, weight in self._weights().items():
            whole = weight.full_tensor() if is_sharded(weight) else weight
            if self._is_writer:
                weights[name] = whole.detach().cpu().contiguous()
        if self._is_writer:
            save_file(weights, Path(folder) / REFERENCE_FILE, {"score": json.dumps(self.score)})

    @torch.no_grad()
    def load(self, folder: str | Path) -> None:
        """Read the weights from a checkpoint folder. Raises InputError if they are absent or do not fit."""
        fix = "resume from a complete checkpoint of the same model and reference placement"
        path, weights = Path(folder) / REFERENCE_FILE, self._weights()
        if not path.is_file():
            raise InputError("resume_from_checkpoint", str(folder), f"it has no {REFERENCE_FILE}", fix)
        with safe_open(path, framework="pt") as file:
            saved = {(name, tuple(file.get_slice(name).get_shape())) for name in list(file.keys())}
            unfit = saved ^ {(name, tuple(weight.shape)) for name, weight in weights.items()}
            if unfit:
                names = ", ".join(sorted({name for name, _ in unfit})[:4])
                problem = f"its {REFERENCE_FILE} does not fit the reference: {names}"
                raise InputError("resume_from_checkpoint", str(folder), problem, fix)
            for name, weight in weights.items():
                local_part(weight).copy_(_shard_like(weight, file.get_tensor(name)))
            self.score = json.loads((file.metadata() or {}).get("score", "null"))


class FrozenCopy(Reference):
    """A second model on the student's device; under FSDP2 it is sharded like the student."""

    def __init__(self, student: nn.Module) -> None:
        self._model = copy.deepcopy(student).eval().requires_grad_(False)

    def prepare(self, accelerator: Accelerator) -> None:
        """Shard the copy as accelerate shards the student, and round it where DeepSpeed rounds that."""
        super().prepare(accelerator)
        if accelerator.is_fsdp2:
            self._model = fsdp2_prepare_model(accelerator, self._model)
        if rounds_weights(accelerator):
            round_weights(self._model)

    @contextmanager
    def active(self) -> Generator[nn.Module, None, None]:
        """The copy; the shards that its forward gathered are freed at the end."""
        with torch.no_grad():
            yield self._model
        _reshard(self._model)

    def _weights(self) -> dict[str, Tensor]:
        return dict(self._model.named_parameters())


class OffloadedCopy(FrozenCopy):
    """A second model in CPU memory, whose layers visit the student's device one after the other.

    The head stays there, and an embedding tied to it: the hooks that bring a layer's weights run when it
    is called, and a loss may read the head's weights without that.
    """

    def __init__(self, student: Any) -> None:
        head = {id(weight) for weight in student.get_output_embeddings().parameters()}
        copies: dict[int, Any] = {}
        for weight in student.parameters():
            device, pin = (weight.device, False) if id(weight) in head else ("cpu", torch.cuda.is_available())
            own = torch.empty_like(weight, device=device, pin_memory=pin).copy_(weight.detach())
            copies[id(weight)] = nn.Parameter(own, requires_grad=False)
        kept = {id(copies[weight]) for weight in head}
        self._model: nn.Module = copy.deepcopy(student, copies).eval()  # takes these copies of the weights
        self._own: dict[str, Any] = dict(self._model.named_parameters())
        for name, module in self._model.named_modules():
            ids = {id(weight) for weight in module.parameters(recurse=False)}
            if ids and ids.isdisjoint(kept):
                weights = PrefixedDataset(self._own, f"{name}.")
                hook = AlignDevicesHook(student.device, offload=True, weights_map=weights)
                add_hook_to_module(module, hook)

    def prepare(self, accelerator: Accelerator) -> None:
        """Refuse FSDP2, which can keep shards in CPU memory itself, and a student that DeepSpeed rounds."""
        if accelerator.is_fsdp2 or rounds_weights(accelerator):
            name = "FSDP" if accelerator.is_fsdp2 else "DeepSpeed in bfloat16"
            fix = "use 'device', under FSDP sharded like the student, in CPU memory with its cpu_offload"
            raise InputError("placement", "cpu", f"does not go with {name}", fix)
        super().prepare(accelerator)

    def _weights(self) -> dict[str, Tensor]:
        return self._own


class AdapterCopy(Reference):
    """A second, frozen adapter on the student's own base, which is not copied.

    Raises InputError unless the student trains one adapter and nothing besides.
    """

    def __init__(self, student: nn.Module) -> None:
        self._student: Any = student
        self._adapter = student_adapter(student)
        if self._adapter == REFERENCE_ADAPTER:
            raise InputError("adapter", REFERENCE_ADAPTER, "is the reference's name", "use another name")
        trainable = {name for name, weight in student.named_parameters() if weight.requires_grad}
        others = sorted(name for name in trainable if self._adapter not in name.split("."))
        if others:
            problem = f"weights besides the adapter are trained: {', '.join(others[:4])}"
            raise InputError("placement", "adapter", problem, "freeze them, or train without an adapter")
        if REFERENCE_ADAPTER not in self._student.peft_config:
            config = copy.deepcopy(self._student.peft_config[self._adapter])
            self._student.add_adapter(REFERENCE_ADAPTER, config)
        for name, weight in student.named_parameters():
            weight.requires_grad_(name in trainable)
        self.refresh(student)

    @contextmanager
    def active(self) -> Generator[nn.Module, None, None]:
        """The student's model with the reference's adapter; its own is active again at the end."""
        student = self._student
        trainable = [(weight, weight.requires_grad) for weight in student.parameters()]
        training = [(module, module.training) for module in student.modules()]
        student.eval()
        student.set_adapter(REFERENCE_ADAPTER, inference_mode=True)
        try:
            with torch.no_grad():
                yield student
        finally:
            student.set_adapter(self._adapter)
            for weight, requires_grad in trainable:
                weight.requires_grad_(requires_grad)
            for module, mode in training:
                module.training = mode

    def _weights(self) -> dict[str, Tensor]:
        weights = _canonical_weights(self._student)
        return {name: weight for name, weight in weights.items() if REFERENCE_ADAPTER in name.split(".")}

    def _student_weights(self, student: nn.Module) -> Iterable[Tensor]:
        weights, swap = _canonical_weights(student), {REFERENCE_ADAPTER: self._adapter}
        own = [name.split(".") for name in self._weights()]
        return [weights[".".join(swap.get(part, part) for part in name)] for name in own]


def build_reference(student: nn.Module, placement: Placement) -> Reference:
    """The reference of a student that is not wrapped or sharded yet; at first they are equal.

    ``device``: a copy beside the student. ``cpu``: a copy in CPU memory, for a device without room for it.
    ``adapter``: another adapter on the student's base, for a ``peft.PeftModel``. Raises InputError for a
    placement that does not go with the student.
    """
    if placement == "adapter" and not is_adapted(student):
        raise InputError("placement", placement, "the student has no adapter", "train one with LoRA")
    if placement != "adapter" and is_adapted(student):
        fix = "use 'adapter', which does not copy the base"
        raise InputError("placement", placement, "the student is an adapter on a frozen base", fix)
    return {"device": FrozenCopy, "cpu": OffloadedCopy, "adapter": AdapterCopy}[placement](student)


class RefreshReference(TrainerCallback):
    """Refreshes the reference after every ``refresh_every`` optimizer steps (C.2).

    With ``choice="best"``, or "auto" and a score, only from a student whose ``score()`` (higher is better;
    the same on every process) is at least the reference's; the untouched student's is measured first.
    """

    def __init__(
        self,
        reference: Reference,
        refresh_every: int,
        choice: ReferenceChoice = "latest",
        score: Callable[[], float] | None = None,
    ) -> None:
        assert choice != "best" or score is not None
        self.reference, self.refresh_every = reference, refresh_every
        self._score = None if choice == "latest" else score

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Measure the untouched student, unless a checkpoint has brought the reference's score."""
        del args, kwargs
        if self._score is not None and self.reference.score is None:
            self.reference.score = self._score()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """``state.global_step`` counts optimizer steps, this one included."""
        del args, control
        if state.global_step % self.refresh_every:
            return
        score = None if self._score is None else self._score()
        if score is not None and self.reference.score is not None and score < self.reference.score:
            return
        self.reference.score = score
        self.reference.refresh(kwargs["model"])


def _canonical_weights(model: nn.Module) -> dict[str, Tensor]:
    """By the names they have without the wrappers of compilation and activation checkpointing."""
    return fsdp2_canonicalize_names(dict(model.named_parameters()))


def _shard_like(weight: Any, whole: Tensor) -> Tensor:
    """This process's shard of ``whole``, cut like ``weight``."""
    if not is_sharded(weight):
        return whole
    mesh, placements = weight.device_mesh, weight.placements
    return distribute_tensor(whole.to(weight.device), mesh, placements, src_data_rank=None).to_local()


def _reshard(model: nn.Module) -> None:
    """Free what a forward of FSDP2 gathered and kept for a backward that does not come."""
    for module in model.modules():
        if torch.distributed.is_available() and isinstance(module, FSDPModule):
            module.reshard()

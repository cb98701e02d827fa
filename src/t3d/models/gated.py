"""Other weights at chosen tokens of a forward, all others see the base's; among them a gated adapter.

The gate is an argument of the model's forward, ``gated_positions`` (int64 [G], different indices into the
flattened rows x positions, as ``logit_positions``): nothing that forwards of other threads share is set
for it, and layers that a backward runs again (gradient checkpointing) have it too. Tokens that are not
gated get, bit for bit, what the base alone gives them, so that their keys and values serve both. A mixture's
experts are the exception in the last bits: gated tokens may be routed elsewhere, and products over groups of
other sizes round differently.

G gated tokens, D input width of a layer.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import dropout, linear
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig, PreTrainedModel

from t3d.errors import InputError
from t3d.models.linear_layers import ATTENTION_MODULES, TARGET_MODULES, linear_layers
from t3d.models.sdar import SDARMoeConfig

GATE = "gated_positions"
"""The forward's argument."""
ALPHA = 32.0


class Gate:
    """Which tokens of a forward are gated; remembers what was chosen last, as layers share their input."""

    def __init__(self, position_G: Int[Tensor, "G"]) -> None:
        self.position_G = position_G
        self._given: Tensor | None = None
        self._chosen: Tensor | None = None

    def choose(self, given: Tensor, num_axes: int) -> Tensor:
        """The gated ones of a layer's input, whose first ``num_axes`` axes are tokens."""
        if self._chosen is None or self._given is not given:
            self._given, self._chosen = given, given.flatten(0, num_axes - 1).index_select(0, self.position_G)
        return self._chosen


_gate: ContextVar[Gate | None] = ContextVar(GATE, default=None)
"""Of the forward that runs in this thread: the linear layers are called without its arguments."""


def gated_positions(is_gated_RT: Bool[Tensor, "R T"]) -> Int[Tensor, "G"]:
    """The forward's argument from a gate per token."""
    return is_gated_RT.flatten().nonzero()[:, 0]


class LowRank(nn.Module):
    """``alpha / rank`` B A x, with PEFT's names and first values: it adds nothing until it has learnt."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        kind: dict[str, Any] = {"dtype": layer.weight.dtype, "device": layer.weight.device}
        self.lora_A = nn.Parameter(torch.empty(rank, layer.in_features, **kind))
        self.lora_B = nn.Parameter(torch.zeros(layer.out_features, rank, **kind))
        self.scaling, self.dropout = alpha / rank, dropout
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, input_GD: Float[Tensor, "G D"]) -> Tensor:
        """What the base's output is to be increased by."""
        return self.unscaled(input_GD) * self.scaling

    def unscaled(self, input_GD: Float[Tensor, "G D"]) -> Tensor:
        """The same over ``scaling``."""
        a, b = self.lora_A, self.lora_B
        if a.dtype == torch.bfloat16 and a.device.type == "cpu" and not torch.is_grad_enabled():
            # So few numbers take a CPU five times as long in bfloat16, casts not counted.
            a, b = a.float(), b.float()
        input_GD = input_GD.to(a.dtype)
        if self.dropout and self.training:
            input_GD = dropout(input_GD, self.dropout)
        return linear(linear(input_GD, a), b)


class Gated(nn.Module, ABC):
    """Weights that act at gated tokens, attached to a model that stays as it is; calling it calls that model.

    Its parameters and its state are its own alone.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.__dict__["base"] = model  # not a submodule: its weights are not these
        self._handles: list[RemovableHandle] = []

    @property
    def base(self) -> PreTrainedModel:
        """The model it was made for."""
        return self.__dict__["base"]

    @property
    def config(self) -> PreTrainedConfig:
        """The base's."""
        return self.base.config

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The base's forward, with these weights where ``gated_positions`` says."""
        return self.base(*args, **kwargs)

    def attach(self) -> None:
        """Begin to act in the base's forwards.

        Raises InputError if other weights do already, and for a model that processes share.
        """
        base: Any = self.base
        if (base._tp_size or 1) > 1:
            problem = f"shared by {base._tp_size} processes"
            raise InputError("model", type(base).__name__, problem, "load it without tp_plan")
        if attached(base) is not None:
            problem = "has a drafter already"
            raise InputError("model", type(base).__name__, problem, "detach that one first")
        core = base.base_model
        self._handles = [core.register_forward_pre_hook(_OpenGate(self), with_kwargs=True)]
        self._handles.append(core.register_forward_hook(_close, always_call=True))
        try:
            self._handles += self._hooks(dict(base.named_modules()))
        except BaseException:
            self.detach()
            raise

    @abstractmethod
    def _hooks(self, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        """What acts while the gate is open, by the names of the base's modules."""

    def detach(self) -> None:
        """Act no more; the base is as it was."""
        while self._handles:
            self._handles.pop().remove()


class GatedAdapter(Gated):
    """Weights of a gated adapter: low-rank products, that can be trained."""

    def __init__(
        self,
        model: PreTrainedModel,
        rank: int,
        *,
        alpha: float = ALPHA,
        dropout: float = 0.0,
        target_modules: Sequence[str] | None = None,
        mask_token_id: int | None = None,
    ) -> None:
        super().__init__(model)
        self.rank, self.alpha, self.dropout = rank, alpha, dropout
        self.target_modules = default_modules(model) if target_modules is None else tuple(target_modules)
        self.mask_token_id = mask_token_id
        self.layers = nn.ModuleDict(
            {
                _key(name): LowRank(layer, rank, alpha, dropout)
                for name, layer in linear_layers(model, self.target_modules).items()
            }
        )
        self.mask_embedding: nn.Parameter | None = None
        """In the place of the base's embedding, at gated tokens; None: the base's."""
        if mask_token_id is not None:
            own: Any = model.get_input_embeddings().weight
            self.mask_embedding = nn.Parameter(own[mask_token_id].detach().clone())

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Of the base's layers."""
        self.base.activation_checkpointing_enable(*args, **kwargs)

    def train(self, mode: bool = True) -> "GatedAdapter":
        """The mode of the base, too: gradient checkpointing asks for it."""
        self.base.train(mode)
        return super().train(mode)

    def _hooks(self, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        base: Any = self.base
        hooks = []
        for layer in base.base_model.layers:  # once more, for a backward that runs a layer again
            hooks.append(layer.self_attn.register_forward_pre_hook(_OpenGate(self), with_kwargs=True))
            hooks.append(layer.mlp.register_forward_hook(_close, always_call=True))
        for name, module in self.layers.items():
            hooks.append(
                modules[_name(name)].register_forward_hook(partial(_add_where_gated, cast(LowRank, module)))
            )
        if self.mask_embedding is not None:
            hooks.append(base.get_input_embeddings().register_forward_hook(partial(_embed, self)))
        return hooks


class _OpenGate:
    """Hook before a module that is given the forward's arguments; tells whose weights are attached."""

    def __init__(self, owner: Gated) -> None:
        self.owner = owner

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        del module, args
        position_G = kwargs.get(GATE)
        _gate.set(None if position_G is None or not len(position_G) else Gate(position_G))


def open_gate() -> Gate | None:
    """Of the forward that runs in this thread; None where no token is gated."""
    return _gate.get()


def _close(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    del module, args, output
    _gate.set(None)


def _add_where_gated(
    low_rank: LowRank, module: nn.Module, args: tuple[Tensor, ...], output: Tensor
) -> Tensor | None:
    """Hook after a linear layer: its output, at gated tokens increased."""
    del module
    gate = _gate.get()
    if gate is None:
        return None
    input_GD = gate.choose(args[0], args[0].dim() - 1)
    flat = output.flatten(0, -2)
    if torch.is_grad_enabled():
        return flat.index_add(0, gate.position_G, low_rank(input_GD).to(output.dtype)).view_as(output)
    # In the place of the layer's output, which nobody else has yet.
    added_GD = low_rank.unscaled(input_GD).to(output.dtype)
    return flat.index_add_(0, gate.position_G, added_GD, alpha=low_rank.scaling).view_as(output)


def _embed(
    adapter: GatedAdapter, module: nn.Module, args: tuple[Tensor, ...], output: Tensor
) -> Tensor | None:
    """Hook after the embedding: the adapter's own row at gated tokens."""
    del module, args
    gate = _gate.get()
    if gate is None:
        return None
    assert adapter.mask_embedding is not None
    row_GD = adapter.mask_embedding.to(output.dtype).expand(len(gate.position_G), -1)
    return output.flatten(0, -2).index_copy(0, gate.position_G, row_GD).view_as(output)


def add_gated_adapter(model: PreTrainedModel, rank: int, **options: Any) -> GatedAdapter:
    """A new :class:`GatedAdapter`, attached to ``model``; it changes nothing until it has learnt.

    ``options``: ``alpha``, ``dropout``, ``target_modules`` (by default :func:`default_modules`), and
    ``mask_token_id``, with which it learns an input embedding of its own for gated masks. Raises InputError
    for a rank that is not positive, for layers that the model does not have, for a model that processes
    share, and for one that has a gated adapter.
    """
    if rank < 1:
        raise InputError("rank", rank, "an adapter has at least one dimension", "use for example 16")
    adapter = GatedAdapter(model, rank, **options)
    adapter.attach()
    return adapter


def default_modules(model: PreTrainedModel) -> tuple[str, ...]:
    """All linear layers, or those of the attention for a mixture, whose experts are one tensor."""
    return ATTENTION_MODULES if isinstance(model.config, SDARMoeConfig) else TARGET_MODULES


def attached(model: nn.Module) -> Gated | None:
    """What acts at gated tokens of a model's forwards, if anything does."""
    base: Any = model
    core = base.base_model if isinstance(base, PreTrainedModel) else base
    hooks = core._forward_pre_hooks.values()
    return next((hook.owner for hook in hooks if isinstance(hook, _OpenGate)), None)


def refuse_gated(model: nn.Module, doing: str) -> None:
    """Raise InputError for a model with a drafter: no plain weights decode as the two do."""
    if isinstance(model, Gated) or attached(model) is not None:
        problem = f"has a drafter, which cannot be {doing}: it acts on drafts only"
        raise InputError("model", type(model).__name__, problem, "keep the drafter beside its base")


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module's name has no dots


def _name(key: str) -> str:
    return key.replace("/", ".")

"""A student's own weights at gated tokens: it drafts, and its teacher, with all other tokens, checks.

Every layer runs twice for a gated token and once for any other; what a gated token sees of others are the
base's keys and values. A student is no lossy replacement then: whatever it drafts, the text is the base's.

N positions whose logits are asked for.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig, PreTrainedModel

from t3d.errors import InputError
from t3d.models.gated import GATE, Gate, Gated, open_gate

_SHAPE = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"),
    *("num_attention_heads", "num_key_value_heads", "hidden_act", "rms_norm_eps", "rope_parameters"),
    *("attention_bias", "sliding_window", "num_experts", "num_experts_per_tok", "moe_intermediate_size"),
    *("norm_topk_prob", "decoder_sparse_step", "mlp_only_layers"),
)
"""What two models must share for one to read the other's keys and values, or to be run by its code."""
_rows: ContextVar[Gate | None] = ContextVar("gated_rows", default=None)
"""Which rows of the head's input are gated, in the forward that runs in this thread."""


class GatedStudent(Gated):
    """A whole model of the base's architecture, whose weights act at gated tokens."""

    def __init__(self, base: PreTrainedModel, student: PreTrainedModel) -> None:
        super().__init__(base)
        self.student = student

    def _hooks(self, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
        base: Any = self.base
        own = dict(self.student.named_modules())
        hooks = [base.register_forward_pre_hook(_find_rows, with_kwargs=True)]
        hooks.append(base.register_forward_hook(_forget_rows, always_call=True))
        for name, module in modules.items():
            if module is base.get_output_embeddings():
                hooks.append(module.register_forward_hook(partial(_replace, own[name], _rows.get)))
            elif _is_run_whole(name, module):
                hooks.append(module.register_forward_hook(partial(_replace, own[name], open_gate)))
        return hooks


def _is_run_whole(name: str, module: nn.Module) -> bool:
    """Whether it maps tokens to tokens one by one: an MLP (a mixture's as a whole), or any layer outside."""
    if name.endswith(".mlp"):
        return True
    return ".mlp." not in name and next(module.parameters(recurse=False), None) is not None


def _find_rows(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    del module, args
    gated_G, at_N = kwargs.get(GATE), kwargs.get("logit_positions")
    if gated_G is not None and at_N is not None:
        gated_G = torch.isin(at_N, gated_G).nonzero()[:, 0]
    _rows.set(None if gated_G is None or not len(gated_G) else Gate(gated_G))


def _forget_rows(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    del module, args, output
    _rows.set(None)


def _replace(
    own: nn.Module, which: Callable[[], Gate | None], module: nn.Module, args: tuple[Any, ...], output: Tensor
) -> Any:
    """Hook after a module of the base: what the student's says of gated tokens stands in their places."""
    del module
    gate = which()
    if gate is None:
        return None
    (given,) = args
    # Rows and positions; the head is given chosen tokens, which have no rows.
    num_axes = 1 if given.dim() == 2 and given.is_floating_point() else 2
    said = own(gate.choose(given, num_axes)[None])[0].to(output.dtype)
    return output.flatten(0, num_axes - 1).index_copy(0, gate.position_G, said).view_as(output)


def gate_student(base: PreTrainedModel, student: PreTrainedModel) -> GatedStudent:
    """``student``'s weights, attached to ``base``. Raises InputError unless one's code can run the other."""
    different = [name for name in _SHAPE if _value(base.config, name) != _value(student.config, name)]
    if different:
        theirs, ours = _value(student.config, different[0]), _value(base.config, different[0])
        problem = f"its {different[0]} is {theirs!r}, that of its base {ours!r}"
        raise InputError("drafter", student.config.name_or_path, problem, "give a student of this base")
    gated = GatedStudent(base, student)
    gated.attach()
    return gated.eval().requires_grad_(False)


def _value(config: PreTrainedConfig, name: str) -> Any:
    return getattr(config, name, None)

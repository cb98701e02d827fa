"""Bytes of a training step and of a rollout on one device, part by part.

The trainer keeps float32 weights, gradients and AdamW moments, and with bfloat16 computes under autocast.
What a layer keeps for its backward is counted in bytes per token, by width: hidden, query heads x head
dimension, the same of key heads, MLP. The counts are those of the tensors that autograd saves (a test
compares); attention keeps no weights, in ``documents`` and in FlexAttention alike.
"""

from dataclasses import asdict, dataclass, replace
from typing import Literal

from t3d.models.head import fit_tile
from t3d.planning.choices import Parallel
from t3d.planning.shape import Shape

DeviceType = Literal["cpu", "cuda"]
WORD, HALF = 4, 2
"""Bytes of float32 and of bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What the memory of a training step depends on."""

    shape: Shape
    num_trajectories: int
    """Of a micro-batch, on one device."""
    prompt_tokens: int
    response_tokens: int
    """Of each trajectory: for a bound, of the longest."""
    block_size: int = 8
    accumulation: int = 1
    """Micro-batches of an optimizer step: from the second on, gradients are there while activations are."""
    autocast: bool = False
    """bfloat16 arithmetic on float32 weights."""
    checkpointing: bool = False
    """Gradient checkpointing: of a layer only its input is kept."""
    adapter_parameters: int = 0
    """With LoRA, what is trained; 0: all weights are."""
    adapter_rank: int = 0
    reference: Literal["device", "cpu", "adapter"] | None = "device"
    parallel: Parallel = "ddp"
    num_devices: int = 1
    device_type: DeviceType = "cuda"

    @property
    def num_clean(self) -> int:
        """Clean tokens of a trajectory: nothing sees the last block's."""
        return self.prompt_tokens + self.response_tokens - self.block_size

    @property
    def num_tokens(self) -> int:
        """Of the micro-batch, both copies."""
        return self.num_trajectories * (self.num_clean + self.response_tokens)

    @property
    def num_positions(self) -> int:
        """At most so many take loss."""
        return self.num_trajectories * self.response_tokens

    @property
    def trained(self) -> int:
        """Trained parameters."""
        return self.adapter_parameters or self.shape.num_parameters

    @property
    def shards(self) -> int:
        """Devices that share one copy of the weights."""
        return self.num_devices if self.parallel == "fsdp2" else 1


@dataclass(frozen=True, kw_only=True)
class TrainingBytes:
    """Of one device at the moment of a step when it holds the most."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    exchange: float
    """DDP's buckets, or the weights and gradients that FSDP2 has gathered; 0 on one device."""
    casts: float
    """bfloat16 copies of weights that autocast keeps until the forward or the backward has used them."""
    activations: float
    workspace: float
    """Of the layer or the head that is being computed: logits by tiles, scores, gradients on their way."""

    @property
    def total(self) -> float:
        """All parts."""
        return sum(asdict(self).values())


def training_bytes(step: Step) -> TrainingBytes:
    """Of a step that is not the first: the fullest of its three moments.

    The start of the backward, with all activations and the head's gradient; its end, with all gradients; and
    the optimizer's step.
    """
    shape, gradients = step.shape, WORD * step.trained / step.shards
    # Of gathered weights the gradient of the head is part of the exchange.
    is_gathered = step.shards > 1
    table = 0 if step.adapter_parameters or is_gathered else WORD * shape.table_parameters
    start = TrainingBytes(
        weights=WORD * (shape.num_parameters + step.adapter_parameters) / step.shards,
        gradients=gradients if step.accumulation > 1 else 0,
        optimizer=optimizer_bytes(step.trained, _trained_tensors(step)) / step.shards,
        reference=reference_bytes(step) / step.shards,
        exchange=_exchange_bytes(step),
        casts=_cast_bytes(step),
        activations=activation_bytes(step),
        workspace=table + max(head_bytes(step), _layer_workspace(step)),
    )
    layer = layer_bytes_per_token(step) * step.num_tokens
    end = replace(start, gradients=gradients, casts=0, activations=layer, workspace=table)
    idle = replace(end, activations=0, workspace=2 * table)
    return max(start, end, idle, key=lambda moment: moment.total)


def loading_bytes(step: Step) -> int:
    """Before FSDP2 cuts them up, the weights and their copy are whole on every device; else 0."""
    if step.shards == 1:
        return 0
    copies = 2 if step.reference == "device" else 1
    return WORD * (copies * step.shape.num_parameters + step.adapter_parameters)


def peak_bytes(step: Step) -> float:
    """The most that a device ever holds."""
    return max(training_bytes(step).total, loading_bytes(step))


def optimizer_bytes(num_parameters: int, num_tensors: int) -> int:
    """Of AdamW: two float32 moments, and a float32 count for each tensor."""
    return 2 * WORD * num_parameters + WORD * num_tensors


def _trained_tensors(step: Step) -> int:
    # An adapter has two matrices for each of at most seven linear layers.
    return 14 * step.shape.num_layers if step.adapter_parameters else step.shape.num_tensors


def reference_bytes(step: Step) -> int:
    """Of the frozen earlier student, on the device, before it is sharded."""
    shape = step.shape
    layer_at_a_time = shape.layer_parameters + shape.table_parameters  # the head stays
    kept = {
        None: 0,
        "device": shape.num_parameters,
        "cpu": layer_at_a_time if step.device_type == "cuda" else shape.num_parameters,
        "adapter": step.adapter_parameters,
    }
    return WORD * kept[step.reference]


def layer_bytes_per_token(step: Step) -> int:
    """What autograd saves of a token in one layer."""
    shape = step.shape
    hidden, query, key, mlp = shape.hidden_size, shape.query_width, shape.key_width, shape.mlp_width
    trains_norms = not step.adapter_parameters  # only then is a normed value kept beside what it was made of
    if step.autocast:  # residuals and norms in float32, what products read and write in bfloat16
        kept = 18 * hidden + 10 * query + 8 * key + 8 * mlp
        kept += trains_norms * (8 * hidden + 2 * query + 2 * key)
    else:
        kept = WORD * (4 * hidden + 4 * query + 3 * key + 4 * mlp)
        kept += WORD * trains_norms * (2 * hidden + query + key)
    width = HALF if step.autocast else WORD
    # A mixture copies a token to each of its experts and back.
    routed = 2 * width * hidden * shape.experts_per_token
    return kept + 10 * shape.num_heads + routed + 7 * width * step.adapter_rank


def activation_bytes(step: Step) -> int:
    """What the forward keeps for the backward, over all layers, the last norm and the head's positions."""
    per_layer = layer_bytes_per_token(step)
    hidden = WORD * step.shape.hidden_size
    layers = step.shape.num_layers
    kept = hidden * layers + per_layer if step.checkpointing else per_layer * layers
    return step.num_tokens * (kept + 3 * hidden) + step.num_positions * hidden


def head_bytes(step: Step) -> int:
    """A tile's logits, what is made of them, and the gradient of the hidden states; its weights' is apart.

    A tile is in float32 twice (with a sum of exponentials, or a gradient), under autocast in bfloat16, too.
    """
    shape = step.shape
    width = fit_tile(step.num_positions, shape.vocab_size, step.device_type)
    tile = step.num_positions * width * (2 * WORD + (HALF if step.autocast else 0))
    return tile + 2 * WORD * step.num_positions * shape.hidden_size


def _layer_workspace(step: Step) -> int:
    """Gradients on their way through an MLP; attention writes no scores out, neither on a CPU nor on CUDA."""
    shape, width = step.shape, HALF if step.autocast else WORD
    return step.num_tokens * (3 * width * shape.mlp_width + WORD * shape.hidden_size)


def _cast_bytes(step: Step) -> int:
    """Of the layers' matrices; with FSDP2 they are gathered in bfloat16 and need no casts."""
    if not step.autocast or step.parallel == "fsdp2" or step.adapter_parameters:
        return 0
    return HALF * step.shape.visited_parameters


def _exchange_bytes(step: Step) -> float:
    if step.num_devices == 1:
        return 0
    if step.parallel == "ddp":
        return WORD * step.trained
    shape, width = step.shape, HALF if step.autocast else WORD
    tables = shape.table_parameters * (1 if shape.is_tied else 2)
    # Embedding and head stay gathered; one layer is used while the next one comes, and a gradient goes.
    return width * (tables + 2 * shape.layer_parameters) + width * (
        shape.table_parameters + shape.layer_parameters
    )


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What the memory of a rollout depends on."""

    shape: Shape
    batch_size: int
    prompt_tokens: int
    """Of the longest prompt."""
    max_new_tokens: int
    block_size: int
    bytes_per_weight: int


@dataclass(frozen=True, kw_only=True)
class RolloutBytes:
    """Of one device that decodes alone."""

    weights: float
    cache: float
    """Keys and values: a slot for every request of the batch, as long as the longest may get."""
    logits: float
    prefill: float

    @property
    def total(self) -> float:
        """All parts."""
        return sum(asdict(self).values())


def rollout_bytes(decoding: Decoding, max_prefill_tokens: int = 2048) -> RolloutBytes:
    """Of an engine that decodes ``batch_size`` requests together."""
    shape, width = decoding.shape, decoding.bytes_per_weight
    positions = decoding.prompt_tokens + decoding.max_new_tokens + decoding.block_size
    rows = decoding.batch_size * decoding.block_size
    widest = 2 * shape.mlp_width + shape.query_width + 2 * shape.key_width + 3 * shape.hidden_size
    return RolloutBytes(
        weights=width * shape.num_parameters,
        cache=decoding.batch_size * positions * position_bytes(shape, width),
        # The logits, and their probabilities in float32 with one more copy to sort or sum them.
        logits=rows * shape.vocab_size * (width + 2 * WORD),
        prefill=max(max_prefill_tokens, 2 * rows) * widest * width,
    )


def position_bytes(shape: Shape, bytes_per_number: int) -> int:
    """Keys and values of one position in all layers."""
    return 2 * shape.num_layers * shape.key_width * bytes_per_number

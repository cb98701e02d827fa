"""What the engine decodes on a GPU against what it has to be: parts of gpu_check.py.

The model is random with weights so wide that its distributions are peaked: a wrong mask or a stale key
changes tokens at once. The rounding of two ways to compute the same differs, so two tokens or places that
are all but equally likely may change places. A greedy response may therefore part from the other, but only
where the two commits are nearly tied: ``largest gap`` in log-probability, at most :data:`TIE` of the dtype.
Sampled responses must be equal in float32; of bfloat16 only the share of equal ones is reported.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from decoding_shapes import SHAPES, build_model
from differences import first_difference, first_parting
from gpu_parts import Case, Machine, Row

from t3d.decoding.completion import Completion, DecodeRequest, completions_of
from t3d.decoding.engine import Engine, EngineConfig
from t3d.decoding.jobs import Job
from t3d.decoding.params import DecodeParams
from t3d.decoding.specification import decode_as_specified
from t3d.models.sdar import SDARForCausalLM

TIE = {"float32": 1e-3, "bfloat16": 0.25}
"""Log-probabilities closer than this are tied. bfloat16 keeps 8 bits: logits of 8 to 16 are 1/16 apart."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Parting = Callable[[Completion, Completion], float | None]

GREEDY = DecodeParams(temperature=0.0)
BY_STEPS = {
    "B4 S4": GREEDY,
    "B4 S2": replace(GREEDY, steps_per_block=2),
    "B4 S1": replace(GREEDY, steps_per_block=1),
    "B8 S4": replace(GREEDY, block_size=8, steps_per_block=4),
    "B4 dynamic": replace(GREEDY, remasking="low_confidence_dynamic", confidence_threshold=0.5),
    "B4 S2 sampled": replace(GREEDY, steps_per_block=2, temperature=1.0),
}


def peaked_model(machine: Machine, dtype: str) -> SDARForCausalLM:
    """On the CPU; tiny, or small enough for the specification, which keeps no cache."""
    shape = "tiny" if machine.is_tiny else "small"
    width = SHAPES[shape]["hidden_size"] ** -0.5
    return build_model(shape, "cpu", torch.float32, initializer_range=3 * width).to(DTYPES[dtype])


def requests_for(machine: Machine, vocab_size: int) -> list[DecodeRequest]:
    """Prompts of many lengths, more than there are slots."""
    torch.manual_seed(1)
    lengths = (1, 3, 4, 7, 21, 32) if machine.is_tiny else (1, 3, 4, 7, 21, 61, 64, 90)
    prompts = [torch.randint(1, vocab_size - 1, (length,)).tolist() for length in lengths]
    return [DecodeRequest(id=str(number), prompt_ids=tuple(prompt)) for number, prompt in enumerate(prompts)]


class Bench:
    """A model on the machine's device, and its copy on the CPU."""

    def __init__(self, machine: Machine, dtype: str) -> None:
        self.dtype, self.on_cpu = dtype, peaked_model(machine, dtype)
        self.model = copy.deepcopy(self.on_cpu).to(machine.device)
        self.ids = {"mask_token_id": self.model.config.mask_token_id, "stop_token_ids": (0,)}
        self.requests = requests_for(machine, self.model.config.vocab_size)
        self.max_new_tokens = 10 if machine.is_tiny else 18

    def engine(self, **config: object) -> Engine:
        """With fewer slots than requests, and prompts longer than a forward takes."""
        return Engine(
            self.model, config=EngineConfig(max_batch_size=4, max_prefill_tokens=48, **config), **self.ids
        )

    def decode(self, engine: Engine, params: DecodeParams) -> list[Completion]:
        """What an engine makes of the requests."""
        params = replace(params, max_new_tokens=self.max_new_tokens)
        done = engine.decode([Job(request, params) for request in self.requests])
        return completions_of(self.requests, done)

    def specified(self, params: DecodeParams) -> list[Completion]:
        """What the specification makes of them, on the CPU."""
        params = replace(params, max_new_tokens=self.max_new_tokens)
        return [decode_as_specified(self.on_cpu, request, params, **self.ids) for request in self.requests]


def compared(
    name: str,
    dtype: str,
    ours: Sequence[Completion],
    theirs: Sequence[Completion],
    parting: Parting = first_parting,
) -> Row:
    """A row: agreement of responses and tokens, and the largest gap where they part."""
    pairs = list(zip(ours, theirs, strict=True))
    found = [parting(*pair) for pair in pairs if pair[0].response_ids != pair[1].response_ids]
    gaps = [abs(gap) for gap in found if gap is not None]
    num_equal = sum(
        one == other for pair in pairs for one, other in zip(*(c.response_ids for c in pair), strict=False)
    )
    num_tokens = sum(max(len(one.response_ids), len(other.response_ids)) for one, other in pairs)
    row: Row = {
        "setting": name,
        "dtype": dtype,
        "responses": len(pairs),
        "equal responses": len(pairs) - len(found),
        "token agreement": num_equal / num_tokens,
        "largest gap": max(gaps, default=0.0),
    }
    is_sampled = ours[0].params.temperature > 0
    if is_sampled and dtype == "bfloat16":
        return row
    limit = 0.0 if is_sampled else TIE[dtype]
    holds = not found if is_sampled else all(gap <= limit for gap in gaps) and len(gaps) == len(found)
    why = f"{name} in {dtype}: {len(found)} of {len(pairs)} responses differ, gap {row['largest gap']:.3g}"
    return row | {"ok": holds} | ({} if holds else {"why": why})


def engine_cases(machine: Machine) -> list[Case]:
    """The engine on the device against the specification on the CPU."""
    benches = [Bench(machine, dtype) for dtype in DTYPES]

    def case(bench: Bench, name: str) -> Row:
        params = BY_STEPS[name]
        return compared(name, bench.dtype, bench.decode(bench.engine(), params), bench.specified(params))

    return [partial(case, bench, name) for name in BY_STEPS for bench in benches]


def fixed_shape_cases(machine: Machine) -> list[Case]:
    """Padded forwards against plain ones, on the device."""

    def case(bench: Bench, name: str) -> Row:
        plain = bench.decode(bench.engine(), BY_STEPS[name])
        return compared(
            name, bench.dtype, bench.decode(bench.engine(fixed_shapes=True), BY_STEPS[name]), plain
        )

    benches = [Bench(machine, dtype) for dtype in DTYPES]
    return [partial(case, bench, name) for name in BY_STEPS for bench in benches]


def graph_cases(machine: Machine) -> list[Case]:
    """CUDA graphs against eager forwards, when they are recorded and when all of them are replayed."""

    def case(bench: Bench, engine: Engine, name: str, when: str) -> Row:
        plain = bench.decode(bench.engine(), BY_STEPS[name])
        return compared(f"{name}, {when}", bench.dtype, bench.decode(engine, BY_STEPS[name]), plain)

    cases: list[Case] = []
    for bench in [Bench(machine, dtype) for dtype in DTYPES]:
        engine = bench.engine(enforce_eager=False)
        cases += [partial(case, bench, engine, name, "first") for name in BY_STEPS]
        cases += [partial(case, bench, engine, name, "replayed") for name in BY_STEPS]
    return cases


def self_speculation_cases(machine: Machine) -> list[Case]:
    """Drafts and their checks against one token per forward, on the device."""
    plain = DecodeParams(block_size=8, remasking="left_to_right", temperature=0.0)
    settings = {
        f"{groups} groups{', sampled' if temperature else ''}": replace(
            plain, remasking="self_speculative", draft_groups=groups, temperature=temperature
        )
        for groups in ("last", "all")
        for temperature in (0.0, 1.0)
    }

    def case(bench: Bench, name: str) -> Row:
        drafted, engine = settings[name], bench.engine()
        expected = bench.decode(bench.engine(), replace(plain, temperature=drafted.temperature))
        row = compared(name, bench.dtype, bench.decode(engine, drafted), expected, first_difference)
        accepted = engine.stats.summary()["tokens_per_forward"]
        return row | {"tokens per forward": accepted}

    benches = [Bench(machine, dtype) for dtype in DTYPES]
    return [partial(case, bench, name) for name in settings for bench in benches]

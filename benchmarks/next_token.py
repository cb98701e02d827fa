"""Lossless decoding of an autoregressive model with a drafter, beside transformers, in one run.

python benchmarks/next_token.py --model FOLDER --drafter FOLDER --json results.json
    --prompts NAME=FILE [NAME=FILE ...]
python benchmarks/next_token_table.py results.json > docs/results/smollm2.md

``--prompts``: questions as ``t3d rollout --prompts`` takes them, or rollouts (.parquet) whose prompts are
taken, by a name for their kind. Greedy; the sides in turn, in one process, the best round counts.

- *drafts*: tokens per forward, and how many drafts were right up to each offset, of ``--limit`` prompts of a
  kind decoded together, without a clock;
- *speed* (``--speed-dtypes float32 bfloat16``): of the first ``--timed`` of them, visible tokens per second
  at batch 1 and 8 of transformers' ``generate``, with its prompt-lookup decoding (which it has for batch 1
  alone), and of this engine without drafts and with them, and without packed weights (``plain products``);
- *sameness*: responses that differ from those without drafts, of transformers and of the engine, in float32
  and bfloat16; where, and how far apart the two best tokens are there.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from differences import first_difference
from transformers import PreTrainedModel

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.decoding.posed_requests import decode_requests
from t3d.models.adopted import ARCHITECTURES
from t3d.models.drafter import with_drafter
from t3d.models.loading import LoadedModel, load_model
from t3d.problems.prompt_file import read_prompt_file
from t3d.trajectory import read_trajectories
from t3d.work.progress import Progress
from t3d.work.versions import versions

Row = dict[str, Any]
Answers = list[tuple[int, ...]]
DTYPES = ("float32", "bfloat16")
PARTS = ("drafts", "speed", "sameness")
BATCHES = (1, 8)
GENERATE, LOOKUP = "transformers generate", "transformers prompt lookup"
PLAIN = "left_to_right"
GROUPS = ("last", "all", "auto")
LOOKUP_TOKENS = 10
"""Of prompt lookup: transformers' documentation suggests it."""
PAD = 0


def source_network(loaded: LoadedModel) -> PreTrainedModel:
    """The same weights in transformers' own class, sharing memory."""
    fields = loaded.model.config.to_dict()
    (row,) = (one for one in ARCHITECTURES.values() if isinstance(loaded.model, one.model))
    config: Any = row.source.config_class
    own = {name: value for name, value in fields.items() if name not in ("model_type", "architectures")}
    network: Any = row.source(config(**own))
    network.load_state_dict(loaded.model.state_dict(), assign=True)
    network.tie_weights()
    network.generation_config.eos_token_id = list(loaded.stop_token_ids)
    network.generation_config.pad_token_id = PAD
    return network.eval()


@torch.inference_mode()
def generate(network: Any, requests: Sequence[DecodeRequest], count: int, **how: Any) -> Answers:
    """By transformers, greedily, one batch padded on the left."""
    longest = max(len(request.prompt_ids) for request in requests)
    ids = torch.full((len(requests), longest), PAD)
    mask = torch.zeros_like(ids)
    for row, request in enumerate(requests):
        ids[row, longest - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
        mask[row, longest - len(request.prompt_ids) :] = 1
    out = network.generate(ids, attention_mask=mask, max_new_tokens=count, do_sample=False, **how)
    stops = set(network.generation_config.eos_token_id)
    return [_until_stop(row, stops) for row in out[:, longest:].tolist()]


def _until_stop(tokens: Sequence[int], stops: set[int]) -> tuple[int, ...]:
    end = next((place + 1 for place, token in enumerate(tokens) if token in stops), len(tokens))
    return tuple(tokens[:end])


class Side:
    """One way to decode, with what it counted."""

    def __init__(self, decode: Callable[[Sequence[DecodeRequest], int], tuple[Answers, Row]]) -> None:
        self.decode = decode

    @classmethod
    def of_transformers(cls, network: Any, count: int, **how: Any) -> "Side":
        """Batches of ``generate``."""

        def decode(requests: Sequence[DecodeRequest], batch: int) -> tuple[Answers, Row]:
            parts = [requests[first : first + batch] for first in range(0, len(requests), batch)]
            return [answer for part in parts for answer in generate(network, part, count, **how)], {}

        return cls(decode)

    @classmethod
    def of_engine(
        cls, loaded: LoadedModel, params: DecodeParams, forward_cost: int, *, pack_weights: bool | None = None
    ) -> "Side":
        """The engine, one request after the other at batch 1."""

        def decode(requests: Sequence[DecodeRequest], batch: int) -> tuple[Answers, Row]:
            llm = LLM(loaded, max_batch_size=batch, forward_cost=forward_cost, pack_weights=pack_weights)
            parts = [[request] for request in requests] if batch == 1 else [list(requests)]
            done = [completion for part in parts for completion in llm.decode(part, params)]
            summary = llm.stats.summary()
            counted = {key: summary[key] for key in ("tokens_per_forward", "positions_per_token")}
            by_offset = {"drafted_at": llm.stats.drafted_at, "accepted_at": llm.stats.accepted_at}
            return [completion.response_ids for completion in done], counted | by_offset

        return cls(decode)


def measured_forward_cost(loaded: LoadedModel, params: DecodeParams, rounds: int = 3) -> int:
    """What a forward costs besides its positions, in positions: from the times of the engine's forwards
    without drafts and with all, the drafter's work included."""
    request = DecodeRequest(id="cost", prompt_ids=(PAD,))
    points = []
    for how in ({"remasking": "left_to_right"}, {"remasking": "self_speculative", "draft_groups": "all"}):
        per_forward = []
        for _ in range(rounds):
            llm = LLM(loaded, max_batch_size=1)
            llm.decode([request], dataclasses.replace(params, max_new_tokens=16, **how))
            per_forward.append((llm.stats.seconds / llm.stats.forwards, llm.stats))
        seconds, stats = min(per_forward, key=lambda one: one[0])
        points.append((stats.query_tokens / stats.forwards, seconds))
    (few, little), (many, much) = points
    per_position = max((much - little) / (many - few), 1e-6)
    return max(1, round(little / per_position - few))


def sides_of(loaded: LoadedModel, count: int, draft_tokens: int) -> dict[str, Side]:
    """What is timed, by name; ``loaded`` has its drafter."""
    network = source_network(loaded)
    params = dataclasses.replace(
        LLM(loaded).default_params, temperature=0.0, max_new_tokens=count, max_draft_tokens=draft_tokens
    )
    cost = measured_forward_cost(loaded, params)
    sides = {
        GENERATE: Side.of_transformers(network, count),
        LOOKUP: Side.of_transformers(network, count, prompt_lookup_num_tokens=LOOKUP_TOKENS),
        PLAIN: Side.of_engine(
            loaded, dataclasses.replace(params, remasking="left_to_right", max_draft_tokens=0), cost
        ),
    }
    for groups in GROUPS:
        own = dataclasses.replace(params, remasking="self_speculative", draft_groups=groups)
        sides[f"drafter, {groups}"] = Side.of_engine(loaded, own, cost)
    plain = dataclasses.replace(params, remasking="left_to_right", max_draft_tokens=0)
    last = dataclasses.replace(params, remasking="self_speculative", draft_groups="last")
    for name, own in ((PLAIN, plain), ("drafter, last", last)):
        sides[f"{name}, plain products"] = Side.of_engine(loaded, own, cost, pack_weights=False)
    return sides


def measure_speed(
    sides: dict[str, Side],
    kinds: dict[str, list[DecodeRequest]],
    rounds: int,
    advance: Callable[[], None],
) -> list[Row]:
    """Every side on every kind of prompts at every batch size; the best of ``rounds``."""
    rows: list[Row] = []
    for (kind, requests), batch in ((item, batch) for item in kinds.items() for batch in BATCHES):
        best: dict[str, Row] = {}
        plain: Answers = []
        for _ in range(rounds):
            for name, side in sides.items():
                if name == LOOKUP and batch > 1:
                    continue
                started = time.perf_counter()
                answers, counted = side.decode(requests, batch)
                seconds = time.perf_counter() - started
                plain = answers if name == GENERATE else plain
                row = {"side": name, "kind": kind, "batch": batch, "n": len(requests), **counted}
                row |= {"tokens": sum(map(len, answers)), "seconds": seconds}
                row["num_different"] = sum(one != two for one, two in zip(answers, plain, strict=True))
                if name not in best or seconds < best[name]["seconds"]:
                    best[name] = row
                advance()
        rows += best.values()
    return rows


def measure_drafts(
    loaded: LoadedModel,
    kinds: dict[str, list[DecodeRequest]],
    count: int,
    draft_tokens: int,
    advance: Callable[[], None],
) -> list[Row]:
    """Forwards and acceptance of every kind of prompts, for the two ways to draft that no clock decides."""
    rows = []
    for kind, requests in kinds.items():
        for groups in ("last", "all"):
            llm = LLM(loaded)
            params = dataclasses.replace(
                llm.default_params,
                temperature=0.0,
                max_new_tokens=count,
                max_draft_tokens=draft_tokens,
                draft_groups=groups,
            )
            done = llm.decode(requests, params, on_finish=lambda _: advance())
            rows.append(
                {
                    "kind": kind,
                    "side": f"drafter, {groups}",
                    "n": len(requests),
                    "rates": [len(one.response_ids) / one.num_forwards for one in done],
                    "tokens": sum(len(one.response_ids) for one in done),
                    "forwards": sum(one.num_forwards for one in done),
                    "positions_per_token": llm.stats.summary()["positions_per_token"],
                    "drafted_at": llm.stats.drafted_at,
                    "accepted_at": llm.stats.accepted_at,
                }
            )
    return rows


def measure_sameness(
    loaded: LoadedModel, dtype: str, requests: list[DecodeRequest], count: int, draft_tokens: int
) -> list[Row]:
    """Completions with drafts beside those without, of one precision."""
    llm = LLM(loaded)
    params = dataclasses.replace(
        llm.default_params, temperature=0.0, max_new_tokens=count, max_draft_tokens=draft_tokens
    )
    plain = llm.decode(requests, dataclasses.replace(params, remasking="left_to_right", max_draft_tokens=0))
    rows = []
    for groups in GROUPS:
        how = dataclasses.replace(params, remasking="self_speculative", draft_groups=groups)
        drafted = llm.decode(requests, how)
        parted = [
            {"place": _first_place(*pair), "gap": first_difference(*pair)}
            for pair in zip(drafted, plain, strict=True)
            if pair[0].response_ids != pair[1].response_ids
        ]
        rows.append({"dtype": dtype, "side": f"drafter, {groups}", "n": len(requests), "parted": parted})
    return rows


def _first_place(ours: Completion, theirs: Completion) -> int:
    pairs = zip(ours.response_ids, theirs.response_ids, strict=False)
    shorter = min(len(ours.response_ids), len(theirs.response_ids))
    return next((place for place, (one, two) in enumerate(pairs) if one != two), shorter)


def read_requests(name: str, file: str, loaded: LoadedModel, limit: int) -> list[DecodeRequest]:
    """The first prompts of a file, under ids of their kind."""
    if file.endswith(".parquet"):
        records = read_trajectories(file)[:limit]
        requests = [DecodeRequest(id=record.id, prompt_ids=record.prompt_ids) for record in records]
    else:
        requests = decode_requests(loaded.tokenizer, read_prompt_file(file)[:limit])
    return [dataclasses.replace(request, id=f"{name}/{request.id}") for request in requests]


def main() -> None:
    """Measure the parts that are asked for and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--drafter", required=True)
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--prompts", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--limit", type=int, default=24, help="prompts of a kind")
    parser.add_argument("--timed", type=int, default=8, help="of them for the speed")
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--draft-tokens", type=int, default=0, help="0: the default")
    parser.add_argument("--rounds", type=int, default=2, help="of the timing")
    parser.add_argument("--speed-dtypes", nargs="+", choices=DTYPES, default=["float32"])
    args = parser.parse_args()
    files = dict(item.split("=", 1) for item in args.prompts)
    record = json.loads(args.json.read_text()) if args.json.exists() else {}
    shown = ("limit", "timed", "max_new_tokens", "draft_tokens", "rounds", "model", "drafter")
    arguments = {name: getattr(args, name) for name in shown} | {"threads": torch.get_num_threads()}
    told = record.get("arguments", {}) | dict.fromkeys(args.parts, arguments)
    count, draft_tokens = args.max_new_tokens, args.draft_tokens
    is_timed = {dtype: "speed" in args.parts and dtype in args.speed_dtypes for dtype in DTYPES}
    for dtype in DTYPES:
        if dtype == "bfloat16" and "sameness" not in args.parts and not is_timed[dtype]:
            continue
        loaded = with_drafter(load_model(args.model, device="cpu", dtype=dtype), args.drafter)
        kinds = {name: read_requests(name, file, loaded, args.limit) for name, file in files.items()}
        every = [request for requests in kinds.values() for request in requests]
        few = [request for requests in kinds.values() for request in requests[: args.timed]]
        if "drafts" in args.parts and dtype == "float32":
            with Progress("drafts", 2 * len(every)) as bar:
                record["drafts"] = measure_drafts(loaded, kinds, count, draft_tokens, bar.advance)
        if is_timed[dtype]:
            sides = sides_of(loaded, count, draft_tokens)
            timed = {name: requests[: args.timed] for name, requests in kinds.items()}
            old = [row for row in record.get("speed", []) if row["dtype"] != dtype]
            with Progress(f"speed, {dtype}", args.rounds * len(kinds) * (2 * len(sides) - 1)) as bar:
                found = measure_speed(sides, timed, args.rounds, bar.advance)
            record["speed"] = old + [{"dtype": dtype, **row} for row in found]
        if "sameness" in args.parts:
            old = [row for row in record.get("sameness", []) if row["dtype"] != dtype]
            record["sameness"] = old + measure_sameness(loaded, dtype, few, count, draft_tokens)
        record |= {"arguments": told, "versions": versions()}
        args.json.write_text(json.dumps(record, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()

"""A training step of a drafter in two ways: noisy tokens alone behind clean keys, and both copies at once.

python benchmarks/training_drafter.py [--shape mini|smollm2] [--rounds 5] [--threads 1] [--profile]

Preset ``drafter``, blocks of 8, an embedding of its own for masks, the rollout's tokens as targets: collated
once, then forward, loss and backward of one micro-batch, both ways in turn. ``mini``: the bundled teacher, 32
texts of about 40 + 32 tokens, rank 16. ``smollm2``: random weights of SmolLM2-135M's shape, 4 texts of about
110 + 96, rank 8. The tokens are random, which no time depends on. CPU time counts beside wall time since
machines are busy; the ratio is that of the least of each. ``checks`` times what targets of the base's own
add to both ways, its forward at the check masks. The output is one JSON object.
"""

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import gettempdir
from typing import Any

import torch
from training_lengths import random_trajectory
from training_sides import SMOLLM2

from t3d.attention.packed_forward import arrange, packed_forward
from t3d.models.adopted import T3DLlamaConfig, T3DLlamaForCausalLM
from t3d.models.gated import GATE, GatedAdapter, add_gated_adapter
from t3d.models.loading import load_model
from t3d.models.token_pick import TokenPick
from t3d.training.config import T3DConfig
from t3d.training.loss import BatchCounts, count_batch, draft_objective
from t3d.training.presets import preset_fields
from t3d.training.scoring import check_scores, prepare_drafts
from t3d.training.states import TrajectoryCollator, TrajectoryDataset
from t3d.work.versions import versions

PARTS = {"_HeadScoresFunction": "head", "_GroupAttention": "attention"}
LINEAR = {"aten::linear": "linear layers, forward", "MmBackward0": "linear layers, backward"}
SHAPES = {"mini": (32, 40, 32, 16), "smollm2": (4, 110, 96, 8)}
"""Texts, tokens of a prompt, of a response, rank."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A drafter and one micro-batch."""

    adapter: GatedAdapter
    config: T3DConfig
    batch: dict[str, Any]
    mask_token_id: int

    def two_passes(self) -> float:
        """The trainer's way: loss, with gradients."""
        base, arrangement = self.adapter.base, arrange(self.batch, self.config.attention)
        drafts = prepare_drafts(base, self.batch, arrangement, self.config, self.mask_token_id)
        return self._learn(drafts.batch, drafts.arrangement, drafts.head)

    def one_pass(self) -> float:
        """Both copies in a forward with gradients."""
        head = {name: self.batch[name] for name in (GATE, "loss_positions")}
        pick = TokenPick(excluded_token_id=self.mask_token_id)
        head |= {"targets": self.batch["labels"][None], "pick": pick}
        return self._learn(self.batch, arrange(self.batch, self.config.attention), head)

    def checks(self) -> float:
        """What targets of the base's own add to both."""
        config = copy.copy(self.config)  # a second TrainingArguments would reset what accelerate knows
        config.draft_targets = "tokens"
        check_scores(self.adapter.base, self.batch, config, self.mask_token_id)
        return 0.0

    def _learn(self, batch: Any, arrangement: Any, head: dict[str, Any]) -> float:
        self.adapter.zero_grad()
        scores = packed_forward(self.adapter, batch, arrangement, **head)
        checked = check_scores(self.adapter.base, self.batch, self.config, self.mask_token_id)
        counts = BatchCounts(*torch.tensor(count_batch(self.batch)).unbind())
        loss = draft_objective(scores, checked, self.batch, counts, self.config).loss
        loss.backward()
        return loss.item()


def load_shape(shape: str) -> tuple[Any, int]:
    """(the base, its mask token)."""
    if shape == "mini":
        loaded = load_model("mini", device="cpu")
        return loaded.model, loaded.mask_token_id
    torch.manual_seed(0)
    config = T3DLlamaConfig(**SMOLLM2, eos_token_id=0, pad_token_id=0)
    return T3DLlamaForCausalLM(config), SMOLLM2["vocab_size"] - 1


def make_work(shape: str) -> Work:
    """The same for the same shape; lengths differ by up to a tenth, but for whole blocks."""
    model, mask_token_id = load_shape(shape)
    num_texts, prompt, response, rank = SHAPES[shape]
    torch.manual_seed(1)
    adapter = add_gated_adapter(model.requires_grad_(False), rank, mask_token_id=mask_token_id).train()
    with torch.no_grad():
        for weight in adapter.layers.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.01)
    fields = preset_fields("drafter") | {"lora_rank": rank, "block_size": 8}
    config = T3DConfig(output_dir=gettempdir(), use_cpu=True, **fields)  # nothing is written
    draw = random.Random(0)
    lengths = [[draw.randint(size * 9 // 10, size) for size in (prompt, response)] for _ in range(num_texts)]
    lengths = [(prompt, response + -(prompt + response) % 8) for prompt, response in lengths]  # whole blocks
    texts = [random_trajectory(index, *pair, mask_token_id + 1) for index, pair in enumerate(lengths)]
    collator = TrajectoryCollator(
        config=config, pad_token_id=0, mask_token_id=mask_token_id, vocab_size=mask_token_id + 1
    )
    dataset = TrajectoryDataset(texts, config)
    batch = collator([dataset[index] for index in range(num_texts)])
    config = copy.copy(config)
    config.draft_targets = "rollout"
    return Work(adapter=adapter, config=config, batch=batch, mask_token_id=mask_token_id)


def least_seconds(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, dict[str, float]]:
    """CPU and wall seconds of each side, which take turns, and its loss."""
    rows: dict[str, dict[str, float]] = {name: {"cpu": math.inf, "wall": math.inf} for name in sides}
    for _ in range(rounds + 1):  # the first warms up
        for name, side in sides.items():
            clocks = {"cpu": time.process_time, "wall": time.perf_counter}
            started = {clock: read() for clock, read in clocks.items()}
            loss = side()
            took = {clock: read() - started[clock] for clock, read in clocks.items()}
            rows[name] = {clock: min(rows[name][clock], took[clock]) for clock in clocks} | {"loss": loss}
    return rows


def shares(side: Callable[[], float]) -> dict[str, float]:
    """Seconds of the parts with all they call, and of the operations that take most by themselves."""
    with torch.profiler.profile() as profile:
        side()
    events = profile.key_averages()
    found = {"all": sum(event.self_cpu_time_total for event in events) / 1e6}
    for event in events:
        for function, part in (PARTS | LINEAR).items():
            if event.key in (function, f"{function}Backward"):
                found[part] = found.get(part, 0.0) + event.cpu_time_total / 1e6
    for event in sorted(events, key=lambda event: -event.self_cpu_time_total)[:16]:
        found[f"{event.key} ({event.count})"] = event.self_cpu_time_total / 1e6
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="mini")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="once more, by parts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = make_work(options.shape)
    sides = {"two_passes": work.two_passes, "one_pass": work.one_pass, "checks": work.checks}
    rows = least_seconds(sides, options.rounds)
    two, one, checks = (rows[name] for name in sides)
    report: dict[str, Any] = {"shape": options.shape, "rows": rows}
    report["tokens"] = work.batch["documents"][:, 1:].sum(0).tolist()
    report["ratio"] = {clock: one[clock] / two[clock] for clock in ("cpu", "wall")}
    report["ratio_with_checks"] = (one["cpu"] + checks["cpu"]) / (two["cpu"] + checks["cpu"])
    if options.profile:
        report["profile"] = {name: shares(sides[name]) for name in ("two_passes", "one_pass")}
    print(json.dumps(report | {"threads": options.threads, "versions": versions()}, indent=1))


if __name__ == "__main__":
    main()

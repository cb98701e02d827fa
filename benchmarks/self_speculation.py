"""Self-speculative decoding of the mini suite: what it gives, how often it is the same text, how fast it is.

python benchmarks/self_speculation.py --json results.json [--model NAME=FOLDER ...] [--limit 512] [--seeds 3]
python benchmarks/self_speculation_table.py results.json > docs/results/self_speculation.md

The bundled teacher and every student that is named, in one run, drafts in blocks of 8:

- *quality*: accuracy, tokens per forward and acceptance of drafts by task and offset, greedy and at
  temperature 0.1, on held-out prompts of every seed. The *bound* is that of a perfect drafter: tokens per
  forward if every draft of these responses had been right;
- *agreement* (teacher): responses of ``self_speculative`` that are not those of ``left_to_right``, in
  float32 and bfloat16, and how far apart the first two different tokens are in log-probability;
- *speed*: visible tokens per second by batch size, float32, the sides in turn, the best round counts.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.llm import LLM, decode_requests
from t3d.decoding.params import DecodeParams
from t3d.decoding.self_speculation import num_to_draft
from t3d.decoding.settings import decoding_settings
from t3d.models.loading import LoadedModel, load_model
from t3d.tasks.mini.suite import TASKS
from t3d.work.progress import Progress
from t3d.work.versions import versions

Row = dict[str, Any]
SHARED = DecodeParams(temperature=0.0, max_new_tokens=56)
TEMPERATURES = (0.0, 0.1)
BATCHES = {1: 12, 8: 48, 64: 192}
"""Prompts decoded at each batch size."""


def settings_of(temperature: float, seed: int) -> dict[str, DecodeParams]:
    """What is compared, by label."""
    shared = dataclasses.replace(SHARED, temperature=temperature, seed=seed)
    behind_all = dataclasses.replace(shared, draft_groups="all")
    return (
        decoding_settings(block_sizes=(4,), tokens_per_step=(1,), dynamic=(0.9,), shared=shared)
        | decoding_settings(block_sizes=(8,), tokens_per_step=(1, 4), dynamic=(0.9,), shared=shared)
        | decoding_settings(
            block_sizes=(8,), left_to_right=("left_to_right", "self_speculative"), shared=shared
        )
        | decoding_settings(block_sizes=(8,), left_to_right=("self_speculative",), shared=behind_all)
    )


def forwards_of_a_perfect_drafter(completion: Completion) -> int:
    """Forwards of this response if every draft were right; the first has none to check."""
    committed = len(completion.prompt_ids) + 1
    end, forwards = committed - 1 + len(completion.response_ids), 1
    while committed < end:
        committed += num_to_draft(committed, end, completion.params) + 1
        forwards += 1
    return forwards


def measure_quality(
    name: str, loaded: LoadedModel, limit: int, num_seeds: int, advance: Callable[[], None]
) -> list[Row]:
    """Rows of one model: each task under each setting and temperature, the seeds together."""
    rows = []
    for temperature in TEMPERATURES:
        for label in settings_of(temperature, 0):
            for task_name, task in TASKS.items():
                llm, done, num_correct = LLM(loaded), list[Completion](), 0
                for seed in range(num_seeds):
                    problems = task.problems("test", limit, seed)
                    requests = decode_requests(loaded.tokenizer, problems)
                    answers = llm.decode(requests, settings_of(temperature, seed)[label])
                    num_correct += sum(
                        task.grade(problem, answer.text)
                        for problem, answer in zip(problems, answers, strict=True)
                    )
                    done += answers
                rows.append(
                    {
                        "model": name,
                        "setting": label,
                        "temperature": temperature,
                        "task": task_name,
                        "n": len(done),
                        "num_correct": num_correct,
                        "tokens": sum(len(completion.response_ids) for completion in done),
                        "forwards": sum(completion.num_forwards for completion in done),
                        "drafted_at": llm.stats.drafted_at,
                        "accepted_at": llm.stats.accepted_at,
                        "positions_per_token": llm.stats.summary()["positions_per_token"],
                        "bound_forwards": sum(map(forwards_of_a_perfect_drafter, done))
                        if llm.stats.drafted_at
                        else None,
                    }
                )
                advance()
    return rows


def first_difference(ours: Completion, theirs: Completion) -> float | None:
    """Log-probability of their first different token less that of ours; None where the texts are equal."""
    pairs = zip(ours.response_ids, theirs.response_ids, ours.logprobs, theirs.logprobs, strict=False)
    for our_token, their_token, our_logprob, their_logprob in pairs:
        if our_token != their_token:
            return their_logprob - our_logprob
    return None if len(ours.response_ids) == len(theirs.response_ids) else float("nan")


def measure_agreement(limit: int, advance: Callable[[], None]) -> list[Row]:
    """The bundled teacher's responses with drafts beside those without, in two precisions."""
    rows = []
    for dtype in ("float32", "bfloat16"):
        llm = LLM("mini", device="cpu", dtype=dtype)
        problems = [problem for task in TASKS.values() for problem in task.problems("test", limit, 0)]
        requests = decode_requests(llm.tokenizer, problems)
        for temperature in TEMPERATURES:
            settings = settings_of(temperature, 0)
            plain = llm.decode(requests, settings["B8-left-to-right"])
            for label in ("B8-self-speculative", "B8-self-speculative-all"):
                drafted = llm.decode(requests, settings[label])
                found = [first_difference(*pair) for pair in zip(drafted, plain, strict=True)]
                differences = [difference for difference in found if difference is not None]
                rows.append(
                    {
                        "dtype": dtype,
                        "temperature": temperature,
                        "setting": label,
                        "n": len(requests),
                        "num_different": len(differences),
                        "gaps": sorted(map(abs, differences), reverse=True),
                    }
                )
                advance()
    return rows


def sides_of(models: dict[str, LoadedModel]) -> dict[tuple[str, str], tuple[LoadedModel, DecodeParams]]:
    """What is timed: every setting of the teacher, and of students what they are for."""
    settings = settings_of(0.0, 0)
    of_students = ("B8-T4", "B8-dynamic", "B8-self-speculative", "B8-self-speculative-all")
    return {
        (name, label): (loaded, settings[label])
        for name, loaded in models.items()
        for label in (settings if name == "teacher" else of_students)
    }


def measure_speed(models: dict[str, LoadedModel], rounds: int, advance: Callable[[], None]) -> list[Row]:
    """Visible tokens per second of every side at every batch size."""
    best: dict[tuple[str, str, int], Row] = {}
    tokenizer = models["teacher"].tokenizer
    for batch, count in BATCHES.items():
        problems = [task.problems("test", -(-count // len(TASKS)), 0) for task in TASKS.values()]
        requests: Sequence[DecodeRequest] = decode_requests(
            tokenizer, [problem for group in zip(*problems, strict=True) for problem in group][:count]
        )
        for _ in range(rounds):
            for (name, label), (loaded, params) in sides_of(models).items():
                llm = LLM(loaded, max_batch_size=batch)
                if batch == 1:
                    for request in requests:  # one after the other, as one user asks
                        llm.decode([request], params)
                else:
                    llm.decode(requests, params)
                summary = llm.stats.summary()
                row = {"model": name, "setting": label, "batch": batch} | {
                    key: summary[key]
                    for key in ("visible_tokens_per_second", "tokens_per_forward", "positions_per_token")
                }
                kept = best.get((name, label, batch))
                if kept is None or row["visible_tokens_per_second"] > kept["visible_tokens_per_second"]:
                    best[name, label, batch] = row
                advance()
    return list(best.values())


def main() -> None:
    """Measure everything and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER", help="a student")
    parser.add_argument("--limit", type=int, default=512, help="problems per task and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--agreement-limit", type=int, default=128, help="problems per task, seed 0")
    parser.add_argument("--rounds", type=int, default=3, help="of the timing")
    args = parser.parse_args()
    folders = {"teacher": "mini"} | dict(item.split("=", 1) for item in args.model)
    models = {name: load_model(folder, device="cpu", dtype="float32") for name, folder in folders.items()}
    num_settings = len(settings_of(0.0, 0))
    total = len(models) * len(TEMPERATURES) * num_settings * len(TASKS) + 2 * len(TEMPERATURES) * 2
    total += args.rounds * len(BATCHES) * len(sides_of(models))
    with Progress("self-speculation", total) as bar:
        speed = measure_speed(models, args.rounds, bar.advance)
        agreement = measure_agreement(args.agreement_limit, bar.advance)
        quality = [
            row
            for name, loaded in models.items()
            for row in measure_quality(name, loaded, args.limit, args.seeds, bar.advance)
        ]
    named = vars(args) | {"json": str(args.json), "model": sorted(dict.fromkeys(folders))}
    record = {"arguments": named, "versions": versions(), "speed": speed, "agreement": agreement}
    args.json.write_text(json.dumps(record | {"quality": quality}, indent=1) + "\n")


if __name__ == "__main__":
    main()

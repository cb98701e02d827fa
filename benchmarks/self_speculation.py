"""Self-speculative decoding of the mini suite: what it gives, how often it is the same text, how fast it is.

python benchmarks/self_speculation.py --json results.json [--student NAME=FOLDER ...] [--drafter FOLDER]
python benchmarks/self_speculation_table.py results.json > docs/results/self_speculation.md

The bundled teacher, alone and with its drafter, and every student that is named; drafts in blocks of 8.
Students draft and check by themselves, and draft for their teacher. What the file has of other parts is
kept, and of the quality, which depends on no clock, what it has of other models (``--models`` names those
that are measured now).

- *quality*: accuracy, tokens per forward and acceptance of drafts by task and offset, greedy and at
  temperature 0.1, on held-out prompts of every seed. The *bound* is that of a perfect drafter: tokens per
  forward if every draft of these responses had been right;
- *agreement* (teacher): responses of ``self_speculative`` that are not those of ``left_to_right``, in
  float32 and bfloat16, how far apart the first two different tokens are in log-probability and, where they
  were drawn, how far the uniform was from drawing the other, in float64 (what shows a tie there);
- *speed*: visible tokens per second by batch size, float32, the sides in turn, the best round counts.
"""

import argparse
import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from differences import distance_of_draw, first_difference

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.decoding.posed_requests import decode_requests
from t3d.decoding.self_speculation import num_to_draft
from t3d.decoding.settings import decoding_settings
from t3d.models.drafter import with_drafter
from t3d.models.loading import LoadedModel, load_model
from t3d.tasks.mini.suite import TASKS
from t3d.work.progress import Progress
from t3d.work.versions import versions

Row = dict[str, Any]
TEACHER = "teacher"
DRAFTED = ("B8-self-speculative", "B8-self-speculative-all", "B8-self-speculative-auto")
PARTS = ("quality", "agreement", "speed")
SHARED = DecodeParams(temperature=0.0, max_new_tokens=56)
TEMPERATURES = (0.0, 0.1)
BATCHES = {1: 12, 8: 48, 64: 192}
"""Prompts decoded at each batch size."""


def settings_of(temperature: float, seed: int) -> dict[str, DecodeParams]:
    """What is compared, by label."""
    shared = dataclasses.replace(SHARED, temperature=temperature, seed=seed)
    behind_all = dataclasses.replace(shared, draft_groups="all")
    where_it_pays = dataclasses.replace(shared, draft_groups="auto")
    return (
        decoding_settings(block_sizes=(4,), tokens_per_step=(1,), dynamic=(0.9,), shared=shared)
        | decoding_settings(block_sizes=(8,), tokens_per_step=(1, 4), dynamic=(0.9,), shared=shared)
        | decoding_settings(
            block_sizes=(8,), left_to_right=("left_to_right", "self_speculative"), shared=shared
        )
        | decoding_settings(block_sizes=(8,), left_to_right=("self_speculative",), shared=behind_all)
        | decoding_settings(block_sizes=(8,), left_to_right=("self_speculative",), shared=where_it_pays)
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
        for label in labels_of(name, has_auto=False):
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


def measure_agreement(limit: int, advance: Callable[[], None]) -> list[Row]:
    """The bundled teacher's responses with drafts beside those without, in two precisions."""
    rows = []
    for dtype in ("float32", "bfloat16"):
        llm = LLM("mini", device="cpu", dtype=dtype)
        problems = [problem for task in TASKS.values() for problem in task.problems("test", limit, 0)]
        requests = decode_requests(llm.tokenizer, problems)
        finer = copy.deepcopy(llm.loaded.model).double()
        for temperature in TEMPERATURES:
            settings = settings_of(temperature, 0)
            plain = llm.decode(requests, settings["B8-left-to-right"])
            for label in DRAFTED:
                drafted = llm.decode(requests, settings[label])
                found = [first_difference(*pair) for pair in zip(drafted, plain, strict=True)]
                differences = [difference for difference in found if difference is not None]
                parted = [
                    (request, *pair)
                    for request, *pair in zip(requests, drafted, plain, strict=True)
                    if pair[0].response_ids != pair[1].response_ids and temperature > 0
                ]
                rows.append(
                    {
                        "dtype": dtype,
                        "temperature": temperature,
                        "setting": label,
                        "n": len(requests),
                        "num_different": len(differences),
                        "gaps": sorted(map(abs, differences), reverse=True),
                        "draws": sorted((distance_of_draw(finer, *each) for each in parted), reverse=True),
                    }
                )
                advance()
    return rows


def labels_of(name: str, *, has_auto: bool) -> tuple[str, ...]:
    """What is measured of a model: of the teacher every setting, of others what they are for.

    Drafts that are made where they pay take other forwards in other batches: they are for the speed alone.
    """
    found = DRAFTED if name.startswith(f"{TEACHER} + ") else ("B8-T4", "B8-dynamic", *DRAFTED)
    found = tuple(settings_of(0.0, 0)) if name == TEACHER else found
    return tuple(label for label in found if has_auto or not label.endswith("-auto"))


def sides_of(models: dict[str, LoadedModel]) -> dict[tuple[str, str], tuple[LoadedModel, DecodeParams]]:
    """What is timed."""
    settings = settings_of(0.0, 0)
    return {
        (name, label): (loaded, settings[label])
        for name, loaded in models.items()
        for label in labels_of(name, has_auto=True)
    }


def measure_speed(models: dict[str, LoadedModel], rounds: int, advance: Callable[[], None]) -> list[Row]:
    """Visible tokens per second of every side at every batch size."""
    best: dict[tuple[str, str, int], Row] = {}
    tokenizer = models[TEACHER].tokenizer
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


def load_models(students: Sequence[str], drafter: str | None) -> dict[str, LoadedModel]:
    """By name; each drafter is on a copy of the teacher of its own."""
    folders = dict(item.split("=", 1) for item in students)
    drafters = folders if drafter is None else {"drafter": drafter} | folders
    models = {TEACHER: load_model("mini", device="cpu")}
    for name, folder in drafters.items():
        models[f"{TEACHER} + {name}"] = with_drafter(load_model("mini", device="cpu"), folder)
    return models | {name: load_model(folder, device="cpu") for name, folder in folders.items()}


def main() -> None:
    """Measure the parts that are asked for and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--student", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--drafter", metavar="FOLDER", help="of the bundled teacher")
    parser.add_argument("--models", nargs="+", help="of the quality; default: all")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--limit", type=int, default=512, help="problems per task and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--agreement-limit", type=int, default=128, help="problems per task, seed 0")
    parser.add_argument("--rounds", type=int, default=3, help="of the timing")
    args = parser.parse_args()
    models = load_models(args.student, args.drafter)
    totals = {
        "quality": sum(len(labels_of(name, has_auto=False)) for name in models)
        * len(TEMPERATURES)
        * len(TASKS),
        "agreement": 2 * len(TEMPERATURES) * len(DRAFTED),
        "speed": args.rounds * len(BATCHES) * len(sides_of(models)),
    }
    record = json.loads(args.json.read_text()) if args.json.exists() else {}
    arguments = {name: value for name, value in vars(args).items() if name not in ("json", "parts", "models")}
    for part in args.parts:
        with Progress(part, totals[part]) as bar:
            if part == "speed":
                rows = measure_speed(models, args.rounds, bar.advance)
            elif part == "agreement":
                rows = measure_agreement(args.agreement_limit, bar.advance)
            else:
                each = (args.limit, args.seeds, bar.advance)
                chosen = {name: one for name, one in models.items() if name in (args.models or models)}
                rows = [row for row in record.get(part, []) if row["model"] not in chosen]
                rows += [row for name, one in chosen.items() for row in measure_quality(name, one, *each)]
        record |= {"arguments": arguments, "versions": versions(), part: rows}
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

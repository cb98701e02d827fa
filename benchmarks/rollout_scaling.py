"""What Ray costs a rollout: its workers beside as many plain processes, and a projection to many GPUs.

    python benchmarks/rollout_scaling.py [--workers 1 2] [--limit 256] [--output runs/rollout_scaling.json]

Both sides have the same cores (a thread for each worker or process), make the same chunks into one folder,
and must end with the same bytes. Plain: N processes with a shard each. Start-up, until the first model is
loaded, is reported apart (Ray's includes the cluster); the work runs from then on until the output is there.
Overhead: Ray's work over that of plain processes, less one. The goal is at most 10 %.

The projection is arithmetic, not a measurement: ``ASSUMED`` says from what, and the output repeats it. Prints
tables in Markdown.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from t3d.cli.plan import Plan
from t3d.cli.plan_inputs import planned
from t3d.cli.recipe import read_recipe
from t3d.cli.rollout import Rollout, prepared_rollout
from t3d.scale.chunked import LOCAL, Workers
from t3d.scale.ray_workers import make_on_ray
from t3d.work.files import write_text
from t3d.work.shards import parse_shard
from t3d.work.versions import versions

RECIPE = "recipes/sdar_4b_math.yaml"
GOAL = 0.1
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
GPUS = (8, 64, 512)
SECONDS_TO_START = 120.0
ASSUMED = [
    f"prompts per second and GPU: t3d plan {RECIPE} --gpus 1x80GB (a share of the roofline that is assumed,"
    " never measured), at any chunk size, though chunks smaller than a batch decode slower",
    f"{SECONDS_TO_START:.0f} s until a worker has a 4B model, all at the same time; the cluster is there",
    "every chunk takes the same time, so a run takes ceil(chunks / workers) of them",
    "overhead of Ray as measured here with the most workers, none if that is below zero; the folder that all"
    " share, and making the one output file of all chunks, cost nothing",
]


@dataclass(frozen=True)
class Row:
    """One side with a number of workers."""

    side: str
    num_workers: int
    seconds_to_start: float
    seconds: float


def child(command: Rollout, shard: str | None, count: int) -> None:
    """A plain process, or the driver of a cluster; prints when its model was there and when it ended."""
    if shard is not None:
        work = prepared_rollout(command)
        ready = time.time()
        work.make(parse_shard(shard))
        ended = time.time()
    else:
        workers = Workers(num_workers=count, address=LOCAL, cpus_per_worker=1, gpus_per_worker=0)
        started = time.time()
        made = make_on_ray(partial(prepared_rollout, command), workers, "rollout")
        ready = started + made.seconds_to_start
        ended = ready + made.seconds
    print(f"\n{json.dumps([ready, ended])}")


def measured(side: str, arguments: list[str], output: Path, count: int) -> Row:
    """One side, in processes of its own."""
    shards = [["--shard", f"{number}/{count}"] for number in range(1, count + 1)]
    line = [sys.executable, __file__, *arguments, "--child", str(output), "--workers", str(count)]
    started = time.time()
    running = [
        subprocess.Popen([*line, *more], stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD)
        for more in (shards if side == "plain" else [[]])
    ]
    told = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{side} with {count} workers failed")
    times = [json.loads(text.strip().splitlines()[-1]) for text in told]
    ready, ended = min(each[0] for each in times), max(each[1] for each in times)
    return Row(side, count, round(ready - started, 2), round(ended - ready, 2))


def overhead(rows: list[Row], count: int) -> float:
    """Of Ray over plain processes, as a share."""
    seconds = {row.side: row.seconds for row in rows if row.num_workers == count}
    return seconds["ray"] / seconds["plain"] - 1


def projection(share: float) -> list[dict[str, Any]]:
    """Hours on many GPUs, and the share of them that works; by arithmetic."""
    plan = planned(Plan(recipe=RECIPE, gpus="1x80GB"), read_recipe(RECIPE), 1, 80.0)
    rate = plan.work.num_prompts / (plan.rollout_hours * 3600)
    found = []
    for num_prompts, chunk_size, num_gpus in itertools.product((7_500, 200_000), (32, 512), GPUS):
        rounds = math.ceil(math.ceil(num_prompts / chunk_size) / num_gpus)
        seconds = SECONDS_TO_START + rounds * chunk_size / rate * (1 + max(share, 0))
        row = {"prompts": num_prompts, "chunk_size": chunk_size, "gpus": num_gpus, "hours": seconds / 3600}
        found.append({**row, "used": num_prompts / rate / num_gpus / seconds})
    return found


def tables(result: dict[str, Any]) -> str:
    """All of it in Markdown."""
    lines = ["| side | workers | start, s | work, s | prompts/s |", "|---|---|---|---|---|"]
    for row in result["measured"]:
        rate = result["limit"] / row["seconds"]
        lines.append(
            "| {side} | {num_workers} | {seconds_to_start} | {seconds} |".format(**row) + f" {rate:.2f} |"
        )
    for count, share in result["overhead"].items():
        lines.append(f"\nOverhead of Ray with {count} workers: {share:+.1%} (goal: at most {GOAL:.0%}).")
    lines += ["", "Projection, not measured:", "", "| prompts | per chunk | GPUs | hours | GPUs used |"]
    lines.append("|---|---|---|---|---|")
    for row in result["projection"]:
        lines.append("| {prompts} | {chunk_size} | {gpus} | {hours:.3f} | {used:.0%} |".format(**row))
    return "\n".join([*lines, "", *(f"- {text}" for text in ASSUMED)])


def main() -> None:
    """Measure, project, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="mini")
    parser.add_argument("--task", default="chain")
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--chunk-size", type=int, default=16)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", default="runs/rollout_scaling.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--shard", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    names = ("model", "task", "limit", "chunk_size")
    given = {name: getattr(asked, name) for name in names}
    if asked.child:
        command = Rollout(**given, output=asked.child, device="cpu")
        return child(command, asked.shard, asked.workers[0])
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for count, side in itertools.product(asked.workers, ("plain", "ray")):
            rows.append(measured(side, arguments, Path(folder) / f"{side}-{count}.parquet", count))
        if len({path.read_bytes() for path in Path(folder).glob("*.parquet")}) != 1:
            raise SystemExit("the files differ")
    shares = {count: overhead(rows, count) for count in asked.workers}
    result = {
        **given,
        "measured": [asdict(row) for row in rows],
        "overhead": shares,
        "projection": projection(shares[max(shares)]),
        "assumed": ASSUMED,
        "cores": os.cpu_count(),
        "versions": {**versions(), "ray": version("ray")},
    }
    write_text(Path(asked.output), json.dumps(result, indent=1) + "\n")
    print(tables(result))
    return None


if __name__ == "__main__":
    main()

"""Kill ``t3d rollout | train | eval`` at random moments, continue, and compare with an uninterrupted run.

    python scripts/kill_and_resume.py --command all --kills 5 --seed 0

Each command runs once to the end. Then it runs in another output and its process group is killed
(SIGKILL) at a moment drawn uniformly from the uninterrupted run's duration; the same command follows
in the same output until it has been killed often enough, and once more to the end. A run that ends
before its moment is compared, and the remaining kills go to a new output. Prints the moments and
verdicts; the exit status is 1 if any number differs, a record is lost or doubled, or a file is left.
The workload is the bundled teacher's, some twenty seconds a run on two cores. POSIX only.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file
from torch import equal

from t3d.trajectory import read_trajectories
from t3d.work.checkpoints import checkpoints

DECODE = ["--model", "mini", "--max-new-tokens", "56", "--device", "cpu"]
TRAIN = ["--model", "mini", "--device", "cpu", "--batch-size", "16", "--learning-rate", "3e-4"]
TRAIN += ["--warmup-steps", "10"]
NUM_UNITS = 16
UNITS = {
    "rollout": "out.chunks/chunk-*",
    "eval": "out/unfinished/*.jsonl",
    "train": "out/checkpoints/checkpoint-*",
}
"""Finished units of work, of which the table shows the newest."""
WALL_CLOCK = ("seconds", "tokens_per_second", "latency")
MEASURED = ("speed/", "memory/")
"""Starts of names in the trainer's log that no two runs share."""


def arguments_of(command: str, output: Path, trajectories: Path, size: float) -> list[str]:
    """The command line without ``t3d``: sixteen units of work."""
    if command == "train":
        save_every = max(1, round(6 * size))
        steps = ["--num-optimizer-steps", str(NUM_UNITS * save_every), "--save-every", str(save_every)]
        inputs = [*TRAIN, "--trajectories", str(trajectories), *steps]
    else:
        chunk = max(1, round(128 * size))
        tasks, num_chunks = ["--task", "chain"], NUM_UNITS
        if command == "eval":  # two tasks under two settings, four chunks each
            tasks, num_chunks = ["--tasks", "chain,make", "--tokens-per-step", "1,4"], NUM_UNITS // 4
        inputs = [*DECODE, *tasks, "--limit", str(num_chunks * chunk), "--chunk-size", str(chunk)]
    return [command, *inputs, "--output", str(output)]


def run(arguments: list[str], log: Path, kill_after: float | None = None) -> float | None:
    """Run ``t3d``; returns its seconds, or None if it was killed after ``kill_after`` seconds."""
    started = time.perf_counter()
    with log.open("a") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "t3d", *arguments], stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        status = process.wait(kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None
    if status:
        sys.exit(f"t3d {' '.join(arguments)} ended with status {status}\n{log.read_text()[-3000:]}")
    return time.perf_counter() - started


def files_of(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def different_files(whole: Path, cut: Path) -> list[str]:
    """Files that one output has and the other has not."""
    return [f"only in one: {name}" for name in sorted(set(files_of(whole)) ^ set(files_of(cut)))]


def different_rollout(whole: Path, cut: Path) -> list[str]:
    """What differs between two rollouts, record for record."""
    ours, theirs = (read_trajectories(folder / "out") for folder in (cut, whole))
    found = [f"record {a.id}" for a, b in zip(ours, theirs, strict=False) if a != b]
    if [record.id for record in ours] != [record.id for record in theirs]:
        found.append("records were lost or doubled")
    return found


def different_train(whole: Path, cut: Path) -> list[str]:
    """What differs between two students, their configs and their logs, number for number."""
    ours, theirs = (load_file(folder / "out" / "student" / "model.safetensors") for folder in (cut, whole))
    found = [name for name in theirs if not equal(ours[name], theirs[name])]
    for name in ("config.json", "generation_config.json"):
        files = [folder / "out" / "student" / name for folder in (cut, whole)]
        found += [name] if files[0].read_bytes() != files[1].read_bytes() else []
    states = [checkpoints(folder / "out" / "checkpoints")[-1] for folder in (cut, whole)]
    histories = [json.loads((state / "trainer_state.json").read_text())["log_history"] for state in states]
    logs = [
        [{name: entry[name] for name in entry if not name.startswith(MEASURED)} for entry in history]
        for history in histories
    ]
    return found if logs[0] == logs[1] else [*found, "the trainer's log"]


def different_eval(whole: Path, cut: Path) -> list[str]:
    """What differs between two evaluations but wall-clock times and the output's name."""
    reports = []
    for folder in (cut, whole):
        report = json.loads((folder / "out" / "results.json").read_text())
        del report["config"]["output"], report["config_hash"], report["checksum"]
        for entry in report["results"]:
            for name in WALL_CLOCK:
                del entry[name]
        reports.append(report)
    found = [name for name in reports[0] if reports[0][name] != reports[1][name]]
    samples = [(folder / "out" / "samples.jsonl").read_bytes() for folder in (cut, whole)]
    return found if samples[0] == samples[1] else [*found, "samples.jsonl"]


DIFFERENCES = {"rollout": different_rollout, "train": different_train, "eval": different_eval}


def newest_unit(command: str, folder: Path) -> str:
    """Name of the newest finished unit of work."""
    found = sorted(folder.glob(UNITS[command]), key=lambda path: path.stat().st_mtime_ns)
    if command == "eval" and found:
        return f"{found[-1].stem}, line {len(found[-1].read_bytes().splitlines())}"
    return found[-1].name.split(".")[0] if found else "-"


def kill_and_compare(
    command: str, kills: int, rng: random.Random, folder: Path, trajectories: Path, size: float
) -> bool:
    """Print one line per kill and per finished output; returns whether all outputs are equal."""
    whole = folder / "whole"
    whole.mkdir(parents=True)
    seconds = run(arguments_of(command, whole / "out", trajectories, size), folder / "log.txt")
    assert seconds is not None
    print(f"{command:8} uninterrupted, {seconds:.1f} s", flush=True)
    killed, all_equal, attempt = 0, True, 0
    while killed < kills:
        attempt += 1
        cut = folder / f"cut-{attempt}"
        cut.mkdir()
        arguments = arguments_of(command, cut / "out", trajectories, size)
        finished = False
        while killed < kills and not finished:
            moment = rng.uniform(0, seconds)
            finished = run(arguments, folder / "log.txt", kill_after=moment) is not None
            if not finished:
                killed += 1
                unit = newest_unit(command, cut)
                print(f"{command:8} kill {killed} at {moment:5.1f} s, newest unit {unit}", flush=True)
        if not finished:
            run(arguments, folder / "log.txt")
        found = DIFFERENCES[command](whole, cut) + different_files(whole, cut)
        all_equal = all_equal and not found
        verdict = f"DIFFERENT: {', '.join(found[:5])}" if found else "equal"
        print(f"{command:8} output {attempt} after {killed} kills: {verdict}", flush=True)
    return all_equal


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--command", choices=[*DIFFERENCES, "all"], default="all")
    parser.add_argument("--kills", type=int, default=5, help="kills per command")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    parser.add_argument("--size", type=float, default=1.0, help="of the workload")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    commands = list(DIFFERENCES) if options.command == "all" else [options.command]
    with tempfile.TemporaryDirectory(prefix="t3d-kill-") as name:
        folder, trajectories = Path(name), Path(name) / "trajectories.parquet"
        if "train" in commands:
            rollout = ["rollout", *DECODE, "--task", "chain", "--limit", "256"]
            run([*rollout, "--output", str(trajectories)], folder / "log.txt")
        results = [
            kill_and_compare(command, options.kills, rng, folder / command, trajectories, options.size)
            for command in commands
        ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

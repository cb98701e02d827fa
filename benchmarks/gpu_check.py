"""Does the library do on a GPU what it claims to, and how fast is it there? One command, 8 minutes at most.

scripts/gpu_check.sh [--output runs/gpu_check] [--parts NAME ...] [--seconds S]
scripts/gpu_check.sh --device cpu --tiny        every part that a CPU can run, on tiny random models

Weights are random everywhere, so nothing is downloaded. Every part runs in a process of its own under a time
budget, ``--seconds`` or its own. What it found goes into OUTPUT/gpu_check.json as soon as it ends, and
OUTPUT/gpu_check.md is made from that; what it printed is in OUTPUT/gpu_check.log. The same command goes on
where it was stopped: parts that passed are not run again. Exit status 0 if no part failed and one passed. A
part whose packages are missing is *not run*, never passed; they are named at the end, with how to bring them.
"""

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from gpu_parts import (
    FAILED,
    LOG_FILE,
    NOT_RUN,
    Machine,
    Outcome,
    Part,
    Record,
    StartMethod,
    one_line,
    preload,
    run_apart,
)
from gpu_table import page

from t3d.errors import InputError
from t3d.work.files import write_text
from t3d.work.kept import claim
from t3d.work.versions import versions

ROOT = Path(__file__).resolve().parents[1]
PAGE_FILE = "gpu_check.md"
MOST_SECONDS = 450
"""That all budgets of a call may add up to: half a minute less than 8 minutes, for imports."""
WITHOUT_DEPENDENCIES = ("accelerate", "peft")
"""Packages to bring alone: what else they need is torch and transformers, which are there, or is named."""
DECODING = ("jaxtyping",)
TRAINING = (*DECODING, "psutil", "accelerate")
ON_RAY = ("ray", "tyro", "yaml", "pyarrow", "rich", "fsspec", "psutil")
PARTS = (
    Part(
        name="engine",
        claim="the engine decodes what the specification decodes on the CPU, near-ties aside",
        function="gpu_decoding_checks.engine_cases",
        seconds=40,
        needs=DECODING,
    ),
    Part(
        name="fixed_shapes",
        claim="forwards padded to fixed shapes decode what others do",
        function="gpu_decoding_checks.fixed_shape_cases",
        seconds=15,
        needs=DECODING,
    ),
    Part(
        name="graphs",
        claim="CUDA graphs decode what eager forwards do, recorded and replayed",
        function="gpu_decoding_checks.graph_cases",
        seconds=30,
        needs_cuda=True,
        needs=DECODING,
    ),
    Part(
        name="self_speculation",
        claim="self_speculative decodes what left_to_right does",
        function="gpu_decoding_checks.self_speculation_cases",
        seconds=20,
        needs=DECODING,
    ),
    Part(
        name="flex_mask",
        claim="FlexAttention's block mask is the dense mask",
        function="gpu_training_checks.flex_mask_cases",
        seconds=10,
        needs=TRAINING,
    ),
    Part(
        name="flex",
        claim="FlexAttention gives the logits and the gradient of the dense mask",
        function="gpu_training_checks.flex_cases",
        seconds=70,
        needs=TRAINING,
        needs_cuda=True,
    ),
    Part(
        name="placement",
        claim="a reference streamed from CPU memory is the one on the device",
        function="gpu_training_checks.placement_cases",
        seconds=15,
        needs=TRAINING,
    ),
    Part(
        name="fsdp",
        claim="FSDP2 in a world of one trains as without it, reference included",
        function="gpu_training_checks.fsdp_cases",
        seconds=20,
        needs=TRAINING,
    ),
    Part(
        name="decoding_1.7b",
        claim="speed of decoding at SDAR-1.7B's shape",
        function="gpu_decoding_speed.small_cases",
        seconds=50,
        needs=DECODING,
    ),
    Part(
        name="decoding_4b",
        claim="speed of decoding at SDAR-4B's shape",
        function="gpu_decoding_speed.large_cases",
        seconds=55,
        needs=DECODING,
    ),
    Part(
        name="training_1.7b",
        claim="speed and memory of training at SDAR-1.7B's shape",
        function="gpu_training_speed.speed_cases",
        seconds=120,
        needs=(*TRAINING, "peft"),
    ),
    Part(
        name="workers",
        claim="workers on Ray that share a GPU make the records of one process",
        function="gpu_process_checks.worker_cases",
        seconds=200,
        needs=(*DECODING, *ON_RAY),
        by_default=False,
    ),
    Part(
        name="shared_model",
        claim="processes that share a model (tp_plan) decode what one does",
        function="gpu_process_checks.shared_model_cases",
        seconds=200,
        needs=(*DECODING, *ON_RAY),
        num_devices=2,
        by_default=False,
    ),
)


def source_digest() -> str:
    """Of the library and the benchmarks, as they are on disk: a GPU machine may have no git."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def commit() -> str:
    """Of git, where there is one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def cuda_name() -> str | None:
    """The first GPU, opened; to be called in a process that ends, as no fork could open it later."""
    if not torch.cuda.is_available():
        return None
    torch.zeros(1, device="cuda")
    return torch.cuda.get_device_name()


def find_device(device: str) -> tuple[str, StartMethod]:
    """What the parts run on, and how their processes start. Raises InputError without CUDA.

    A forked process cannot use CUDA if an import has opened it here; then every part imports all anew.
    """
    if device == "cpu":
        return "cpu", "fork"
    methods: tuple[StartMethod, ...] = ("fork", "spawn")
    problem = "PyTorch finds no CUDA device"
    for method in methods:
        with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
            try:
                name = pool.submit(cuda_name).result()
            except RuntimeError as error:
                problem = f"PyTorch cannot use it ({one_line(error)})"
                continue
        if name is not None:
            return name, method
    fix = "use a machine with a GPU, or --device cpu --tiny, which proves nothing of one"
    raise InputError("device", device, problem, fix)


def budgets(parts: Sequence[Part], seconds: float | None) -> dict[str, float]:
    """Seconds by part. Raises InputError for more than a call may take."""
    found = {part.name: part.seconds if seconds is None else seconds for part in parts}
    if sum(found.values()) > MOST_SECONDS:
        problem = (
            f"{len(found)} parts would take up to {sum(found.values()):.0f} s, {MOST_SECONDS} are allowed"
        )
        raise InputError("seconds", seconds, problem, "use fewer seconds, or name fewer parts with --parts")
    return found


def run_parts(
    parts: Sequence[Part],
    machine: Machine,
    seconds: float | None,
    output: Path,
    about: dict[str, str],
    method: StartMethod = "fork",
) -> bool:
    """Run what is not finished, print a line for each; whether one passed and none failed."""
    allowed = budgets(parts, seconds)
    plan = {"about": about, "machine": vars(machine), "seconds": seconds}
    with claim(output, plan, "gpu_check.json"):
        record = Record(output, about)
        for part in parts:
            outcome, note = record.outcomes.get(part.name), ", found before"
            if outcome is None or not record.is_finished(part):
                outcome, note = run_apart(part, machine, allowed[part.name], output / LOG_FILE, method), ""
                record.add(part, outcome)
                write_page(record, output)
            print(f"{part.name:<18} {outcome.seconds:6.1f} s  {outcome.line}{note}", flush=True)
        write_page(record, output)  # a kill may have come between the record and its page
    return summed_up([record.outcomes[part.name] for part in parts], output)


def write_page(record: Record, output: Path) -> None:
    """The Markdown of all that was found so far."""
    write_text(output / PAGE_FILE, page(record.as_json(), {part.name: part.claim for part in PARTS}))


def summed_up(outcomes: Sequence[Outcome], output: Path) -> bool:
    """Print how many passed; whether one did and none failed."""
    failed, not_run = (sum(one.status == status for one in outcomes) for status in (FAILED, NOT_RUN))
    passed = len(outcomes) - failed - not_run
    print(f"{passed} passed, {failed} failed, {not_run} not run; {output / PAGE_FILE}")
    return passed > 0 and failed == 0


def missing_packages(parts: Sequence[Part]) -> list[str]:
    """What these parts need and this Python has not, in the order of their need."""
    needed = dict.fromkeys(name for part in parts for name in part.needs)
    return [name for name in needed if importlib.util.find_spec(name) is None]


def how_to_bring(packages: Sequence[str]) -> str:
    """Commands that fill a folder on a machine with a network, and the one that uses it here."""
    lines = [f"missing packages: {', '.join(packages)}. Without a network here: where there is one,"]
    for alone in (False, True):
        names = [name for name in packages if (name in WITHOUT_DEPENDENCIES) is alone]
        if names:
            lines.append(f"    pip install --target DIR {'--no-deps ' if alone else ''}{' '.join(names)}")
    return "\n".join([*lines, "copy DIR to this machine, then: PYTHONPATH=DIR scripts/gpu_check.sh"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if no part failed and one passed, else 1; 2 for wrong input."""
    known, usual = ([part.name for part in PARTS if part.by_default or named] for named in (True, False))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "gpu_check", metavar="DIR")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the check itself")
    parser.add_argument("--parts", nargs="+", choices=known, default=usual, metavar="NAME", help=str(known))
    parser.add_argument("--seconds", type=float, help="budget of each part, in place of its own")
    options = parser.parse_args(arguments)
    if options.device == "cpu" and not options.tiny:
        parser.error("--device cpu is for --tiny")
    machine = Machine(device=options.device, is_tiny=options.tiny)
    chosen = [part for part in PARTS if part.name in options.parts]
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # to ask for CUDA does not open it: we fork
    try:
        preload(chosen)
        name, method = find_device(options.device)
        about = {"device": name, "commit": commit(), "source": source_digest()} | versions()
        passed = run_parts(chosen, machine, options.seconds, options.output, about, method)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    missing = missing_packages(chosen)
    if missing:
        print(how_to_bring(missing))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

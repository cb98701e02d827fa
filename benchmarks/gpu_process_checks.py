"""Several processes with GPUs, against one: parts of gpu_check.py that it runs by name only.

The model is the bundled ``mini``. Processes that share it add up parts of sums, so that greedy responses may
part from those of one where two commits are nearly tied, as :mod:`gpu_decoding_checks` says.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from gpu_decoding_checks import DTYPES, compared
from gpu_parts import Case, Machine, Row

from t3d import LLM, DecodeParams
from t3d.decoding.completion import Completion
from t3d.trajectory import read_trajectories

QUESTIONS = (
    "Gus has 9 nuts, then drops 4, then gets 2. How many nuts does Gus have now?",
    "Ann has 3 pens, then gets 5. How many pens does Ann have now?",
    "make 23 with 4 digits",
)
PARAMS = DecodeParams(temperature=0.0, max_new_tokens=24)
MOST_SECONDS = 400
"""Of a command; it is ended then, and the part has failed."""


def _rollout(machine: Machine, dtype: str) -> list[str]:
    command = ["-m", "t3d", "rollout", "--model", "mini", "--task", "chain", "--device", machine.device]
    return [*command, "--limit", "8", "--chunk-size", "2", "--max-new-tokens", "16", "--dtype", dtype]


def worker_cases(machine: Machine) -> list[Case]:
    """Two workers on Ray that share a GPU, against one process: the same file."""

    def case() -> Row:
        command = _rollout(machine, "float32")
        shared = ["--ray", "--num-workers", "2", *(["--gpus-per-worker", "0.5"] if machine.on_cuda else [])]
        with TemporaryDirectory() as folder:
            one, several = (Path(folder) / name for name in ("one.parquet", "several.parquet"))
            _run([*command, "--output", str(one)])
            _run([*command, "--output", str(several), *shared])
            holds = one.read_bytes() == several.read_bytes()
        row: Row = {"setting": "2 workers", "dtype": "float32", "responses": 8, "ok": holds}
        return row if holds else row | {"why": "the files of two workers and of one process differ"}

    return [case]


def shared_model_cases(machine: Machine) -> list[Case]:
    """Two processes that share a model, each on a device of its own, against one that has all of it."""

    def case(dtype: str) -> Row:
        with TemporaryDirectory() as folder:
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            _run([*launch, __file__, folder, dtype])
            shared = pickle.loads((Path(folder) / "completions").read_bytes())
        return compared(
            "2 processes", dtype, shared, _decoded(LLM("mini", device=machine.device, dtype=dtype))
        )

    return [*(partial(case, dtype) for dtype in DTYPES), partial(_shared_worker_case, machine)]


def _shared_worker_case(machine: Machine) -> Row:
    """A worker on Ray whose two processes share the model, in float64: the same tokens in the same order."""
    command, shared = _rollout(machine, "float64"), ["--ray", "--num-workers", "1", "--tensor-parallel", "2"]
    with TemporaryDirectory() as folder:
        one, worker = (Path(folder) / name for name in ("one.parquet", "worker.parquet"))
        _run([*command, "--output", str(one)])
        _run([*command, "--output", str(worker), *shared])
        alone, together = (
            [(each.id, each.response_ids, each.step_map) for each in read_trajectories(path)]
            for path in (one, worker)
        )
    holds = alone == together
    row: Row = {"setting": "worker of 2 processes", "dtype": "float64", "responses": 8, "ok": holds}
    return row if holds else row | {"why": "responses of the worker and of one process differ"}


def _run(arguments: Sequence[str]) -> None:
    """Raises RuntimeError with the end of what a command said that failed."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=MOST_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(" ".join((done.stdout + done.stderr)[-400:].split()))


def _decoded(llm: LLM) -> list[Completion]:
    return llm.generate(list(QUESTIONS), PARAMS, progress=False)


def _main(folder: str, dtype: str) -> None:
    """Of each process that shares the model."""
    completions = _decoded(LLM("mini", tp_plan="auto", dtype=dtype))
    if os.environ["RANK"] == "0":
        (Path(folder) / "completions").write_bytes(pickle.dumps(completions))


if __name__ == "__main__":
    _main(*sys.argv[1:])

"""The numbers of one source tree as JSON, for ``fence.py``.

    PYTHONPATH=src python scripts/fence_probe.py STEP FILE      (in the root of the tree)

It asks the tree through what users see: the command line, ``import t3d``, T3DConfig's fields and
transformers' Trainer. What has no such surface is looked up in HOMES, the one list to edit when it moves.
A number that cannot be had is an error, never a number left out.
"""

import contextlib
import hashlib
import importlib
import io
import json
import random
import runpy
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml
from transformers import TrainerCallback

import t3d

HOMES = {
    "PRESETS": ("t3d.training.presets",),
    "T3DConfig": ("t3d.training", "t3d.training.config"),
    "T3DTrainer": ("t3d.training", "t3d.training.trainer"),
}
"""Modules that may hold a name, the newest place first."""

Answers = dict[str, dict[str, Any]]
"""Values by part and key."""

RESULTS = Path("docs/results")
TABLES = ["reproduce", "all", "--suite", "mini", "--seeds", "3", "--cells", str(RESULTS / "cells")]
TABLES += ["--rows", "t3d-plus", "t3d-plus-verified"]
KEY = ("table", "teacher", "method", "setting", "task", "metric")
PINNED = ("mean", "ci95", "n", "seeds", "config_hashes", "paper", "paper_is_printed", "paper_model")
"""Fields of an entry of tables.json: what it is, and what may not change."""
STUDENT = ("teacher", "student", "seed", "learning_rate")

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "t3d, rows of 48": ("t3d", {"max_length": 48}),
    "t3d, dense attention": ("t3d", {"attention": "dense"}),
    "t3d, refreshed every step": ("t3d", {"refresh_every": 1}),
    "t3d, sampled fakes": ("t3d", {"fake_source": "sample"}),
    "naive_td_path_random, over response tokens": (
        "naive_td_path_random",
        {"loss_normaliser": "response_tokens"},
    ),
}
"""Trainings beside the plain presets: a preset and further T3DConfig fields."""
LOGGED = ("loss", "margin", "nll")
"""Starts of the names in the trainer's log that are numbers of the method."""

DECODINGS = {
    "B4-T1": ["--temperature", "0"],
    "B8-T4": ["--block-size", "8", "--steps-per-block", "2", "--temperature", "0"],
    "B4-dynamic": ["--remasking", "low_confidence_dynamic"],
    "B4-T1 at temperature 1": ["--temperature", "1"],
}


def find(name: str) -> Any:
    """A name from the first of its HOMES that has it."""
    for home in HOMES[name]:
        try:
            module = importlib.import_module(home)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{home}.".startswith(f"{error.name}."):
                raise  # the module is there, what it imports is not
            continue
        if hasattr(module, name):
            return getattr(module, name)
    sys.exit(f"{name} is in none of {', '.join(HOMES[name])}: add its module to HOMES in {__file__}")


def run_t3d(*arguments: str) -> str:
    """What ``t3d`` prints. Raises RuntimeError if it fails."""
    printed = io.StringIO()
    with mock.patch.object(sys, "argv", ["t3d", *arguments]), contextlib.redirect_stdout(printed):
        try:
            runpy.run_module("t3d", run_name="__main__", alter_sys=True)
        except SystemExit as error:
            if error.code:
                raise RuntimeError(f"t3d {' '.join(arguments)}: exit status {error.code}") from error
    return printed.getvalue()


def sha256(data: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def no_model_runs() -> Iterator[None]:
    """Within, whatever calls a model fails: every forward begins with an embedding."""
    error = RuntimeError("a finished table called a model: a committed cell is no longer found")
    with mock.patch.object(torch.nn.Embedding, "forward", side_effect=error):
        yield


def entries_of(path: Path) -> dict[str, Any]:
    """What may not change in a tables.json."""
    report = json.loads(path.read_text())
    found = {"/".join(str(e[name]) for name in KEY): {n: e[n] for n in PINNED} for e in report["entries"]}
    assert len(found) == len(report["entries"]), "two entries have the same key"
    for rate in report["learning_rates"]:
        found[f"learning rate/{rate['method']}/{rate['learning_rate']}"] = rate["validation_accuracy"]
    return found


def planned_students(output: Path) -> dict[str, Any]:
    """The documents of a dry run, one per student, with its configuration and the hashes of its cells."""
    command = (*TABLES, "--output", str(output), "--dry-run")
    documents = run_t3d(*command).split("\n...\n")[0]
    if not documents.startswith("---"):  # later commits print a table, and write the documents to a file
        file = output.with_suffix(".yaml")
        run_t3d(*command, "--configurations", str(file))
        documents = file.read_text(encoding="utf-8").split("\n...\n")[0]
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    found = list(yaml.load_all(documents, Loader=loader))
    return {"/".join(str(item[name]) for name in STUDENT): item for item in found}


def report(folder: Path) -> Answers:
    """Entries of the tables, recomputed from the committed cells, and the hash of each of these cells.

    A cell's hash is null if the code computes no such hash: neither in the dry run, which has the cells
    of all students, nor under the table entries, which have those of the originals. ``about`` helps to
    find out why.
    """
    problem = ""
    with no_model_runs():
        students = planned_students(folder / "planned")
        try:
            run_t3d(*TABLES, "--output", str(folder / "tables"))
            tables = entries_of(folder / "tables" / "tables.json")
        except RuntimeError as error:
            problem, tables = f"no tables, and no hashes of originals: {error}", {}
    computed = {name for student in students.values() for name in student["cells"]}
    for key, entry in tables.items():
        computed |= set() if key.startswith("learning rate/") else set(entry["config_hashes"])
    hashes = {}
    for path in sorted((RESULTS / "cells").glob("*.json")):
        label, _, name = path.stem.rpartition(".")
        hashes[label] = name if name in computed else None
    return {
        "tables": tables,
        "committed tables": entries_of(RESULTS / "tables.json"),
        "hashes": hashes,
        "about": {"problem": problem, "students": {key: s["config"] for key, s in students.items()}},
    }


def real_trajectories(folder: Path) -> list[t3d.Trajectory]:
    """Rollouts of ``mini``, whose tokens it finds likely: of random ones it never guesses one right."""
    path = folder / "real.parquet"
    where = ["--model", "mini", "--task", "make", "--limit", "4", "--output", str(path)]
    run_t3d("rollout", *where, "--max-new-tokens", "32", "--device", "cpu")
    return t3d.read_trajectories(path)


def random_trajectories(mask_token_id: int, stop_token_id: int, num_ids: int) -> list[t3d.Trajectory]:
    """On a grid of 4, of several lengths; every other one stops inside its last block."""
    rng = random.Random(0)
    made = []
    for row in range(4):
        num_prompt, num_blocks = rng.randint(3, 14), rng.randint(3, 6)
        count = 4 * num_blocks - num_prompt % 4
        response = [rng.randrange(num_ids) for _ in range(count)]
        visible = count - rng.randint(1, 3) if row % 2 else count
        if row % 2:
            response[visible - 1] = stop_token_id
        blocks = [(num_prompt + place) // 4 - num_prompt // 4 for place in range(count)]
        made.append(
            t3d.Trajectory(
                id=f"row {row}",
                prompt_ids=tuple(rng.randrange(num_ids) for _ in range(num_prompt)),
                response_ids=tuple(response),
                step_map=tuple(4 * block + rng.randint(1, 4) for block in blocks),
                visible_length=visible,
                finish_reason="stop" if row % 2 else "length",
                block_size=4,
                mask_token_id=mask_token_id,
            )
        )
    return made


class Gradients(TrainerCallback):
    """Keeps each optimizer step's gradient: a norm per parameter, and the SHA-256 of all its bytes."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer; clipping is off."""
        del args, state, control
        named = {name: p.grad for name, p in kwargs["model"].named_parameters() if p.grad is not None}
        assert all(gradient.dtype == torch.float32 for gradient in named.values())
        data = b"".join(named[name].numpy().tobytes() for name in sorted(named))
        norms = {name: gradient.double().norm().item() for name, gradient in named.items()}
        self.found.append({"sha256": sha256(data), "norms": norms})


def train(fields: dict[str, Any], data: Sequence[t3d.Trajectory]) -> dict[str, Any]:
    """Three optimizer steps of two micro-batches from ``mini``: the losses, the log and the gradients.

    In the first step student and reference are the same, then they are not; the third is of a second epoch.
    """
    loaded = t3d.load_model("mini", device="cpu", dtype="float32")
    common = {
        "max_steps": 3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "logging_steps": 1,
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 0,
    }
    losses: list[float] = []

    class Watched(find("T3DTrainer")):
        """Keeps the loss of every micro-batch."""

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            """Trainer.compute_loss."""
            result = super().compute_loss(*args, **kwargs)
            losses.append((result[0] if isinstance(result, tuple) else result).item())
            return result

    gradients = Gradients()
    data = [*data, *random_trajectories(loaded.mask_token_id, loaded.stop_token_ids[0], num_ids=490)]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as output:
        config = find("T3DConfig")(output_dir=output, **(common | fields))
        told = {}
        if fields.get("soft_target_weight"):
            told["soft_target_model"] = t3d.load_model("mini", device="cpu", dtype="float32")
        trainer = Watched(loaded.model, config, data, loaded.tokenizer, callbacks=[gradients], **told)
        trainer.train()
    assert len(losses) == 6 and len(gradients.found) == 3
    log = [{n: v for n, v in line.items() if n.startswith(LOGGED)} for line in trainer.state.log_history]
    return {"losses": losses, "log": log, "gradients": gradients.found}


def losses(folder: Path) -> Answers:
    """Every preset, and the variants."""
    torch.set_num_threads(1)
    real = real_trajectories(folder)
    presets = {n: fields for n, fields in find("PRESETS").items() if n != "drafter"}  # no student: an adapter
    runs = dict(presets) | {name: presets[preset] | more for name, (preset, more) in VARIANTS.items()}
    return {"losses": {name: train(fields, real) for name, fields in runs.items()}}


def tokens(folder: Path) -> Answers:
    """Rollouts of ``mini``: SHA-256 of each trajectory's prompt, tokens and order of commits."""
    torch.set_num_threads(1)
    found = {}
    for setting, flags in DECODINGS.items():
        for task in ("chain", "make", "code"):
            path = folder / f"{task}-{setting.replace(' ', '-')}.parquet"
            where = ["--model", "mini", "--task", task, "--limit", "16", "--output", str(path)]
            run_t3d("rollout", *where, "--max-new-tokens", "56", "--device", "cpu", *flags)
            for item in t3d.read_trajectories(path):
                record = [item.prompt_ids, item.response_ids, item.step_map, item.visible_length]
                found[f"{setting}/{item.id}"] = sha256(json.dumps([*record, item.finish_reason]).encode())
    return {"tokens": found}


def demo(folder: Path) -> Answers:
    """Every number of the demo's models: accuracies, intervals and costs by setting."""
    run_t3d("demo", "--seed", "0", "--output", str(folder / "demo"))
    models = json.loads((folder / "demo" / "summary.json").read_text())["models"]
    return {
        "demo": {
            f"{model}/{setting}": {name: value for name, value in row.items() if "per_second" not in name}
            for model in models
            for setting, row in models[model].items()
        }
    }


STEPS = {"report": report, "losses": losses, "tokens": tokens, "demo": demo}


def main(arguments: Sequence[str]) -> None:
    """Write the answers of a step."""
    step, file = arguments
    source = Path(t3d.__file__).resolve()
    if not source.is_relative_to(Path.cwd().resolve()):
        sys.exit(f"t3d is that of {source}, not of {Path.cwd()}")
    with tempfile.TemporaryDirectory(prefix="t3d-fence-") as folder:
        answers = STEPS[step](Path(folder))
    Path(file).write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

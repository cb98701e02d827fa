"""Save a student so that it loads anywhere its base does."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from torch import Tensor

from t3d.errors import InputError
from t3d.model_choice import checkpoint_of
from t3d.models import custom_generate
from t3d.models.checkpoint import check_links
from t3d.models.loading import LoadedModel
from t3d.models.older_names import add_older_config_names, use_older_tokenizer_names
from t3d.models.own_settings import KEY
from t3d.models.sglang import FILE as SGLANG_FILE
from t3d.models.sglang import sglang_settings
from t3d.work.files import atomic_folder
from t3d.work.weights import first_not_finite

GENERATE_FILE = "custom_generate/generate.py"
"""Where transformers looks for a model's own ``generate``: a copy of :mod:`t3d.models.custom_generate`."""

_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
_COPIED_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
    "*.py",  # SDAR's modeling file imports others, of any name
)


def export_model(
    loaded: LoadedModel,
    folder: str | Path,
    finish: Callable[[Path], None] = lambda _: None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights and config; copy the base's tokenizer, generation and remote-code files.

    Engines that load SDAR with the base's code (JetEngine) then load the export the same way, with
    transformers 4 too: names that only transformers 5 knows are written as 4 knows them.
    The model's own settings (:mod:`t3d.models.own_settings`) replace those of the base, and SGLang's file
    (:mod:`t3d.models.sglang`) says the same where it can. transformers' ``generate`` decodes by the file
    ``custom_generate/generate.py``, and finds the mask token and all stop tokens in the configs.
    ``finish`` may add files to what becomes the folder, which appears only when complete. ``weights`` is the
    state dict, whole, of a model that is sharded. Raises InputError
    for a model that processes share: each holds a part of it; for weights that are not finite; and for a base
    whose files are links that lead out of it.
    """
    num_shares = loaded.model._tp_size or 1
    if num_shares > 1:
        problem = f"shared by {num_shares} processes"
        raise InputError(
            "model", loaded.source, problem, "export it from one process, loaded without tp_plan"
        )
    whole = loaded.model.named_parameters() if weights is None else weights.items()
    broken = first_not_finite(whole)
    if broken is not None:
        problem = f"weight {broken} is not a finite number"
        raise InputError("model", loaded.source, problem, "train it again with a lower learning_rate")
    base = Path(checkpoint_of(loaded.source))
    if not base.is_dir():
        revision = loaded.weights_hash  # of a hub id its commit: the files of the weights loaded
        if not revision:
            problem = "neither a folder nor loaded from the hub, so its tokenizer files are not at hand"
            raise InputError("model", loaded.source, problem, "save it to a folder and load that")
        how: dict[str, Any] = {"revision": revision, "token": loaded.token}
        base = Path(snapshot_download(loaded.source, ignore_patterns=list(_WEIGHT_FILES), **how))
    check_links(base)
    with atomic_folder(folder) as partial:
        loaded.model.save_pretrained(partial, state_dict=None if weights is None else dict(weights))
        add_older_config_names(partial)
        for file in sorted(base.iterdir()):
            if file.is_file() and any(file.match(pattern) for pattern in _COPIED_FILES):
                shutil.copyfile(file, partial / file.name)
        if not (partial / "tokenizer_config.json").is_file():  # of a GGUF file, which has it inside
            loaded.tokenizer.save_pretrained(partial)
        use_older_tokenizer_names(partial)
        _write_own_settings(loaded.model, partial / "generation_config.json")
        if loaded.predicts == "self":
            _write_generate(loaded, partial)
        told = sglang_settings(loaded)
        if told is not None:
            (partial / SGLANG_FILE).write_text(told, encoding="utf-8")
        finish(partial)


def _write_own_settings(model: Any, path: Path) -> None:
    """Into the base's file, which stays as it is where the model has learnt nothing else."""
    told = json.loads(path.read_text(encoding="utf-8"))
    own = vars(model.generation_config).get(KEY)
    if own is not None and told.get(KEY) != own:
        told.pop("_from_model_config", None)  # transformers would drop what it does not know
        path.write_text(json.dumps({**told, KEY: own}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_generate(loaded: LoadedModel, folder: Path) -> None:
    """transformers' own way to decode it, and the ids that it needs where only the tokenizer names them."""
    (folder / GENERATE_FILE).parent.mkdir()
    shutil.copyfile(custom_generate.__file__, folder / GENERATE_FILE)
    _add(folder / "config.json", mask_token_id=loaded.mask_token_id)
    path = folder / "generation_config.json"
    declared = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    if {*loaded.stop_token_ids} != {*(declared if isinstance(declared, list) else [declared])}:
        _add(path, eos_token_id=list(loaded.stop_token_ids))


def _add(path: Path, **fields: Any) -> None:
    """Into a JSON file, which stays as it is where it says the same."""
    told = json.loads(path.read_text(encoding="utf-8"))
    if told | fields != told:
        path.write_text(json.dumps(told | fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")

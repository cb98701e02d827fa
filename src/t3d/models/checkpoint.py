"""A checkpoint as files that nobody vouches for: nothing in it is executed, and its weights are its own.

Only this room, ``models/reading.py`` and ``models/autoregressive.py`` (what is adopted, GGUF files too)
open checkpoints. Of what transformers would follow in one, these stay without effect: ``auto_map`` and the
attention and expert kernels of ``config.json``, since the classes and kernels are ours. Refused, before
transformers sees them, are what would make another program of ours than the one asked for: a tokenizer
that only code of the checkpoint can read, kernels of the hub, an adapter beside the weights, and weights
from anywhere but the folder itself.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from t3d.errors import InputError
from t3d.model_choice import check_source

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_KERNEL_FIELDS = ("attn_implementation", "experts_implementation")


@dataclass(frozen=True, kw_only=True)
class HubAccess:
    """Which version of a hub id is meant, and by whose leave it is read."""

    revision: str | None = None
    """A branch, tag or commit; None: the newest of its main branch."""
    token: str | None = field(default=None, repr=False)
    """None: that of ``HF_TOKEN`` or of ``hf auth login``, if there is one."""


USUAL = HubAccess()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A local folder, or a hub id at one commit, whose config is read and whose tokenizer needs no code."""

    source: str
    fields: dict[str, Any]
    """Of ``config.json``."""
    commit: str | None
    """Of a hub id: all files are read as they were at this commit."""
    token: str | None = field(default=None, repr=False)
    """Of a hub id: by whose leave they are read (:class:`HubAccess`)."""

    @property
    def is_folder(self) -> bool:
        """Whether it lies on this machine, outside of the hub's cache."""
        return Path(self.source).is_dir()

    @property
    def options(self) -> dict[str, Any]:
        """For every ``from_pretrained``: no code of the checkpoint, and one commit throughout."""
        return {"trust_remote_code": False, "revision": self.commit, "token": self.token}

    def config(self) -> PreTrainedConfig:
        """Its config, without the kernels it may name: :mod:`t3d.attention` supplies the attention."""
        config = AutoConfig.from_pretrained(self.source, **self.options)
        config._attn_implementation, config._experts_implementation = "sdpa", None
        return config

    def check_weights(self) -> list[Path]:
        """The files of its weights, all in the folder itself and readable; none for a hub id.

        Raises InputError for weights from elsewhere, truncated ones, and an adapter beside them.
        """
        if self.json_file("adapter_config.json") is not None:
            problem = (
                "an adapter lies in it (adapter_config.json), which would change its weights or its base"
            )
            raise _refusal(self.source, problem, "merge the adapter into its base and give the result")
        if "transformers_weights" in self.fields:
            fix = f"delete that line, and name the weights {WEIGHTS} or list them in {INDEX}"
            raise _refusal(self.source, "transformers_weights of config.json renames its weights", fix)
        names = self._weight_names()
        if not self.is_folder:
            return []
        files = [Path(self.source) / name for name in names]
        for file in files:
            _check_readable(file)
        return files

    def _weight_names(self) -> list[str]:
        """Names of what transformers loads: one file, or all that the index lists, in the order of names."""
        if self.is_folder and (Path(self.source) / WEIGHTS).is_file():
            return [WEIGHTS]
        index = self.json_file(INDEX)
        if index is None:
            return []  # of a hub id: the one file; of a folder: what is missing is told when it is loaded
        match index:
            case {"weight_map": dict() as named} if all(isinstance(name, str) for name in named.values()):
                names = sorted(set(named.values()))
            case _:
                raise _refusal(self.source, f"{INDEX} has no weight_map", "copy that checkpoint again")
        for name in names:
            if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
                problem = (
                    f"{INDEX} names {name!r}, which is no safetensors file of the checkpoint's own folder"
                )
                raise _refusal(self.source, problem, "put all weights into the folder and list them by name")
        return names

    def json_file(self, name: str) -> dict[str, Any] | None:
        """The content of one of its JSON files, or None if it has none of that name."""
        if self.is_folder:
            path = Path(self.source) / name
            if not path.is_file():
                return None
        else:
            try:
                path = Path(hf_hub_download(self.source, name, revision=self.commit, token=self.token))
            except EntryNotFoundError:
                return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            problem = f"is no JSON object ({error})"
            raise InputError("model", str(path), problem, "copy that file again") from error

    def check_code(self) -> None:
        """Raise InputError where the config or the tokenizer could only be used by executing code."""
        kind, has_code = self.fields.get("model_type"), "auto_map" in self.fields
        if has_code and str(kind) not in CONFIG_MAPPING:
            problem = f"its config (model_type {kind!r}) needs code of its own, which is never executed"
            fix = "give one of an architecture that transformers has, such as SDAR's (model_type 'sdar')"
            raise _refusal(self.source, problem, fix)
        for key in (name for kernel in _KERNEL_FIELDS for name in (kernel, f"_{kernel}")):
            value = self.fields.get(key)
            if value is not None and not (isinstance(value, str) and value.isidentifier()):
                problem = f"{key} of config.json names a kernel, {value!r}, which is never executed"
                raise _refusal(self.source, problem, f"delete {key} from config.json")
        tokenizer = self.json_file("tokenizer_config.json") or {}
        if tokenizer.get("auto_map") is not None and not _is_known(tokenizer.get("tokenizer_class")):
            problem = "its tokenizer needs code of its own (auto_map), which is never executed"
            fix = "save it as a fast tokenizer (tokenizer.json) of a class that transformers has"
            raise _refusal(self.source, problem, fix)


def open_checkpoint(source: str, access: HubAccess = USUAL) -> Checkpoint:
    """The checkpoint in a local folder or under a hub id, its config read.

    Raises InputError if there is none, if it could only be used by executing code of its own, or for a
    revision of a folder.
    """
    folder = Path(source)
    check_revision(source, access)
    check_source(source)
    if folder.is_dir():
        check_links(folder)
    try:
        commit = None if folder.is_dir() else _commit_of(source, access)
        fields, _ = PreTrainedConfig.get_config_dict(source, revision=commit, token=access.token)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        wanted = "" if access.revision is None else f" at revision {access.revision!r}"
        problem = f"neither a local folder nor a hub id that can be loaded{wanted} ({reason})"
        if folder.is_dir():
            problem = f"its config cannot be read ({reason})"
        raise InputError(
            "model", source, problem, "give a checkpoint folder, or a hub id such as org/name"
        ) from error
    checkpoint = Checkpoint(source=source, fields=fields, commit=commit, token=access.token)
    checkpoint.check_code()
    return checkpoint


def hash_of(files: list[Path]) -> str:
    """SHA-256 of the contents of files, in this order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def shapes_of(files: list[Path]) -> dict[str, list[int]]:
    """The shapes of the weights in files, by name, read without the weights."""
    shapes: dict[str, list[int]] = {}
    for file in files:
        with safe_open(file, framework="pt") as weights:
            shapes |= {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    return shapes


def check_links(folder: Path) -> None:
    """Raise InputError for a link that leads out of the folder: what is read or copied is the folder's own.

    A snapshot in the hub's cache consists of links into the ``blobs`` folder beside ``snapshots``: those
    are its own files. The folder itself may be a link.
    """
    whole = folder.resolve()
    homes = [whole]
    if whole.parent.name == "snapshots":
        homes.append((whole.parent.parent / "blobs").resolve())
    for path in sorted(whole.iterdir()):
        target = path.resolve()
        if path.is_symlink() and not any(target.is_relative_to(home) for home in homes):
            problem = f"{path.name} is a link to {target}, outside of the checkpoint"
            fix = "copy the file into the folder, or give the folder that it lies in"
            raise _refusal(str(folder), problem, fix)


def check_revision(source: str, access: HubAccess) -> None:
    """Raise InputError for a revision of a local folder."""
    if access.revision is not None and Path(source).is_dir():
        problem = f"{source} is a local folder, which has no revisions"
        raise InputError("revision", access.revision, problem, "leave it out, or give a hub id as the model")


def _commit_of(source: str, access: HubAccess) -> str:
    """Of a hub id; without the network, that of the cache. The cache has a folder for each commit."""
    file = hf_hub_download(source, "config.json", revision=access.revision, token=access.token)
    return Path(file).parent.name


def _refusal(source: str, problem: str, fix: str) -> InputError:
    return InputError("model", source, problem, fix)


def _check_readable(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        problem = f"truncated or damaged ({error})"
        raise InputError("model", str(file), problem, "copy or export that checkpoint again") from error
    except FileNotFoundError as error:
        problem = f"missing, though {INDEX} names it"
        raise InputError("model", str(file), problem, "give a complete checkpoint folder") from error


def _is_known(tokenizer_class: object) -> bool:
    """Whether transformers has a tokenizer class of this name, which it then takes, not ``auto_map``."""
    if not isinstance(tokenizer_class, str):
        return False
    name = tokenizer_class.removesuffix("Fast")
    return any(tokenizer_class_from_name(found) is not None for found in (name, f"{name}Fast"))

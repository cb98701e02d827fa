"""Put a student on the hub: the files that make a checkpoint, and its card."""

import re
from collections.abc import Callable, Sequence
from glob import escape
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import validate_repo_id
from transformers.dynamic_module_utils import get_relative_imports

from t3d.errors import InputError, naming
from t3d.models.checkpoint import INDEX, WEIGHTS, Checkpoint, check_links, open_checkpoint
from t3d.models.export import GENERATE_FILE
from t3d.models.sglang import FILE as SGLANG_FILE

CARD = "README.md"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json")
_TOKENIZER += ("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt")
_TOKENIZER += ("chat_template.jinja", "chat_template.json")
_TERMS = tuple(f"{name}{ending}" for name in ("LICENSE", "NOTICE") for ending in ("", ".md", ".txt"))
_FILES = (CARD, "config.json", "generation_config.json", "training.json", SGLANG_FILE, *_TOKENIZER, *_TERMS)
"""Names that are a checkpoint's, besides those of its weights and of its code; others are somebody's own."""


@naming(model="student")
def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    message: str = "Upload with t3d",
    tell: Callable[[Sequence[str]], None] = lambda _: None,
) -> str:
    """Upload a checkpoint's own files, by name, of its subfolders ``generate`` alone; the commit's address.

    The repository is made unless it is there, ``private`` if so. ``tell`` gets the names before the upload.
    The token is that of ``HF_TOKEN`` or of ``hf auth login``, the hub that of ``HF_ENDPOINT``. Raises
    InputError for a folder that is no whole checkpoint or has no card, for a name that cannot be, without a
    token, for a public repository where a ``private`` one is wanted, and where the hub refuses or cannot be
    reached.
    """
    folder = Path(folder)
    names = files_to_push(folder)
    try:
        validate_repo_id(repo)
    except ValueError as error:
        problem = " ".join(str(error).split()).rstrip(".")
        raise InputError("repo", repo, problem, "write ORGANISATION/NAME") from error
    _check_token(get_token())
    api = HfApi(library_name="t3d")
    try:
        made = api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.repo_info(made.repo_id).private:
            fix = "make it private in its settings on the hub, use another name, or leave the flag out"
            raise InputError("private", True, f"{repo} is public, and so would be the upload", fix)
        tell(names)
        patterns = [escape(name) for name in names]
        done = api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, allow_patterns=patterns, commit_message=message
        )
    except HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except (OSError, HTTPError) as error:
        problem = f"the hub cannot be reached at {_without_user(api.endpoint)} ({_first_line(error)})"
        raise InputError("repo", repo, problem, "go online, or correct HF_ENDPOINT") from error
    return str(done.commit_url)


def files_to_push(folder: Path) -> list[str]:
    """Names of a checkpoint's files, sorted. Raises InputError as :func:`push` says."""
    checkpoint = open_checkpoint(str(folder))
    if not checkpoint.is_folder:
        raise InputError("student", str(folder), "no folder of this machine", "give the student's folder")
    weights = [file.name for file in checkpoint.check_weights()]
    check_links(folder)
    if not (folder / CARD).is_file():
        raise InputError("student", str(folder), f"has no card ({CARD})", f"write one: t3d card {folder}")
    if weights != [WEIGHTS]:
        weights.append(INDEX)
    there = {file.name for file in folder.iterdir() if file.is_file()}
    generate = {GENERATE_FILE} if (folder / GENERATE_FILE).is_file() else set()
    return sorted(there & {*_FILES, *weights, *_code_files(checkpoint)} | generate)


def _code_files(checkpoint: Checkpoint) -> set[str]:
    """Names of the Python files that engines with the checkpoint's own code read, which is not executed here.

    They are those that ``auto_map`` names, and in the folder those that they import.
    """
    configs = (checkpoint.fields, checkpoint.json_file("tokenizer_config.json") or {})
    left = [f"{name}.py" for config in configs for name in _modules(config.get("auto_map"))]
    found: set[str] = set()
    while left:
        name = left.pop()
        file = Path(checkpoint.source) / name
        if name not in found and file.is_file():
            found.add(name)
            left += [f"{imported}.py" for imported in get_relative_imports(file)]
    return found


def _modules(auto_map: Any) -> list[str]:
    """Of ``{"AutoModel": "modeling_x.Model", ...}``, a tokenizer's two classes in a list; none of others."""
    match auto_map:
        case str():
            return [auto_map.rpartition(".")[0]]
        case list():
            return [name for value in auto_map for name in _modules(value)]
        case dict():
            return _modules(list(auto_map.values()))
    return []


def _check_token(token: str | None) -> None:
    fix = "set HF_TOKEN to a token that may write, or run hf auth login"
    if token is None:
        raise InputError("token", None, "none for the hub", fix)
    if not re.fullmatch("[!-~]+", token):
        raise InputError("token", "...", "has characters that no token has", fix)


def _refused(repo: str, error: HfHubHTTPError) -> InputError:
    status = error.response.status_code if error.response is not None else None
    if status == 401:
        return InputError("token", "...", "the hub does not know it", "set HF_TOKEN to a token of yours")
    if status == 403:
        fix = "use a token that may write there, or a repository of your own"
        return InputError("repo", repo, "this token may not write there", fix)
    return InputError(
        "repo", repo, f"the hub refuses ({_first_line(error)})", "see what it says, then try again"
    )


def _first_line(error: Exception) -> str:
    return _without_user((str(error).splitlines() or [type(error).__name__])[0])[:200]


def _without_user(text: str) -> str:
    """A text without the users and passwords of its addresses."""
    return re.sub(r"//[^/\s]*@", "//", text)

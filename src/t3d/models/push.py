"""Put a student on the hub: the files that make a checkpoint, and its card."""

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import validate_repo_id

from t3d.errors import InputError
from t3d.models.checkpoint import check_links, open_checkpoint

CARD = "README.md"
_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.py", CARD, "LICENSE*", "NOTICE*")


def push(folder: str | Path, repo: str, *, private: bool = False, message: str = "Upload with t3d") -> str:
    """Upload a checkpoint's own files, nothing of its subfolders; the address of the commit.

    The repository is made unless it is there, ``private`` if so; of one that is there that does not change.
    The token is that of ``HF_TOKEN`` or of ``hf auth login``, the hub that of ``HF_ENDPOINT``. Raises
    InputError for a folder that is no whole checkpoint or has no card, for a name that cannot be, without a
    token, and where the hub refuses or cannot be reached.
    """
    folder = Path(folder)
    names = files_to_push(folder)
    try:
        validate_repo_id(repo)
    except ValueError as error:
        problem = " ".join(str(error).split()).rstrip(".")
        raise InputError("repo", repo, problem, "write ORGANISATION/NAME") from error
    if get_token() is None:
        fix = "set HF_TOKEN to a token that may write, or run hf auth login"
        raise InputError("token", None, "none for the hub", fix)
    api = HfApi(library_name="t3d")
    try:
        made = api.create_repo(repo, private=private or None, exist_ok=True)
        done = api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, allow_patterns=names, commit_message=message
        )
    except HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except (OSError, HTTPError) as error:
        problem = f"the hub cannot be reached at {api.endpoint} ({_first_line(error)})"
        raise InputError("repo", repo, problem, "go online, or correct HF_ENDPOINT") from error
    return str(done.commit_url)


def files_to_push(folder: Path) -> list[str]:
    """Names of a checkpoint's files, sorted. Raises InputError as :func:`push` says."""
    checkpoint = open_checkpoint(str(folder))
    if not checkpoint.is_folder:
        raise InputError("student", str(folder), "no folder of this machine", "give the student's folder")
    checkpoint.check_weights()
    check_links(folder)
    if not (folder / CARD).is_file():
        raise InputError("student", str(folder), f"has no card ({CARD})", f"write one: t3d card {folder}")
    return sorted(file.name for file in folder.iterdir() if file.is_file() and _is_wanted(file))


def _is_wanted(file: Path) -> bool:
    return not file.name.startswith(".") and any(file.match(pattern) for pattern in _FILES)


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
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

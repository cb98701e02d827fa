"""Drafters that come with t3d, by name, each as it was shipped or not at all.

One lies in ``models/drafters/NAME``, made by ``scripts/ship_drafter.py``, beside it the SHA-256 of what is
loaded.
"""

from pathlib import Path

from t3d.errors import InputError
from t3d.work.files import read_json
from t3d.work.plan import file_sha256, is_whole

BUNDLED_DRAFTERS = {"smollm2": Path(__file__).parent / "models" / "drafters" / "smollm2"}
RECORD = "shipped.json"
"""File of a bundled drafter that holds the SHA-256 of those that are loaded."""
FOLDERS = (
    "give a folder that t3d train wrote: that of a drafter (--preset drafter), or of a student of this base; "
    f"or the name of a bundled drafter ({', '.join(BUNDLED_DRAFTERS)})"
)
"""What a drafter may be."""
_FIX = "install t3d again, or give the folder of a drafter"


def drafter_folder(source: str | Path) -> Path:
    """The folder of a bundled drafter, or the folder itself; a bundled name stands before a folder's.

    Raises InputError for a folder that is not there, and for a bundled drafter that is not as it was shipped.
    """
    folder = BUNDLED_DRAFTERS.get(str(source))
    if folder is None:
        if not Path(source).is_dir():
            raise InputError("drafter", str(source), "no such folder", FOLDERS)
        return Path(source)
    if not folder.is_dir():
        raise InputError("drafter", str(source), f"bundled, but there is no folder {folder}", _FIX)
    match read_json(folder / RECORD):
        case {"files": dict() as files} as record if files and is_whole(record):
            damaged = [name for name, sha256 in files.items() if not _is_file(folder / name, sha256)]
        case _:
            damaged = [RECORD]
    if damaged:
        problem = f"{folder / damaged[0]} is not the file that came with t3d"
        raise InputError("drafter", str(source), problem, _FIX)
    return folder


def _is_file(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256

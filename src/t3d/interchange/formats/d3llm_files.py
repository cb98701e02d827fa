"""Files of d3LLM records: a folder of Hugging Face ``datasets``, JSONL, or the generator's JSON list.

``datasets`` is an extra; it is imported only when a folder is read or written.
"""

import errno
import json
import os
import shutil
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.problems.fields import Record
from t3d.problems.files import read_data_rows
from t3d.work.files import atomic_file, atomic_folder, read_json

_FOLDER_MARK = "dataset_info.json"
_FINGERPRINT = "t3d"
"""By which a folder of ours is known."""


def read_records(path: Path) -> Iterator[Any]:
    """Records of a folder that ``save_to_disk`` wrote, of a JSONL file, or of a JSON list.

    What is no record among them comes as it is. Raises InputError if it is neither, or if the folder needs
    ``datasets`` and that is missing.
    """
    if not path.is_dir():
        yield from read_data_rows(path, "input")
        return
    datasets = _datasets("input", path)
    fix = "give a folder that save_to_disk wrote for one split, a JSON list or a JSONL file"
    if not (path / _FOLDER_MARK).is_file():
        raise InputError("input", str(path), f"not a data set: it has no {_FOLDER_MARK}", fix)
    try:
        yield from datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        problem = f"not a readable data set ({' '.join(str(error).split())[:200]})"
        raise InputError("input", str(path), problem, fix) from error


def check_folder(path: Path) -> None:
    """Raise InputError for an existing path that is no data set of ours, and would be lost."""
    state = read_json(path / "state.json")
    is_own = (path / _FOLDER_MARK).is_file() and isinstance(state, dict)
    if path.exists() and not (is_own and state.get("_fingerprint") == _FINGERPRINT):
        problem = "exists, and is not a data set that this command wrote"
        raise InputError("output", str(path), problem, "use another output, or a name that ends in .jsonl")


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write JSONL where the name ends in ``.jsonl``, otherwise a folder for ``load_from_disk``.

    Raises InputError for an existing path that is no such folder of ours, for a disk that is full or may not
    be written to, or if ``datasets`` is missing.
    """
    if path.suffix == ".jsonl":
        with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        return
    check_folder(path)
    datasets = _datasets("output", path)
    with atomic_folder(path) as partial, _system_errors(datasets):
        cache = partial / "cache"
        data_set = datasets.Dataset.from_generator(
            lambda: iter(records),
            features=_features(datasets),
            cache_dir=str(cache),
            fingerprint=_FINGERPRINT,  # instead of a hash of all records: the cache is new and removed below
        )
        data_set.save_to_disk(str(partial))
        shutil.rmtree(cache)


@contextmanager
def _system_errors(datasets: Any) -> Generator[None]:
    """Raise the system's error, with its number, that an error of ``datasets`` stems from."""
    try:
        yield
    except (OSError, datasets.exceptions.DatasetGenerationError) as error:
        number = _error_number(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number)) from error


def _error_number(error: BaseException | None) -> int | None:
    while error is not None:
        if isinstance(error, OSError):
            # On a disk without any space the check of datasets comes first; its error has no number.
            return errno.ENOSPC if "Not enough disk space" in str(error) else error.errno
        error = error.__cause__ or error.__context__
    return None


def _features(datasets: Any) -> Any:
    text, number = datasets.Value("string"), datasets.Value("int64")
    ids = datasets.List(number)
    return datasets.Features(
        {
            "id": text,
            "idx": number,
            "question": text,
            "prompt_ids": ids,
            "trajectory": datasets.List(ids),
            "final_output": ids,
            "generated_text": text,
            "llm_answer": text,
            "gt_answer": text,
            "is_correct": datasets.Value("bool"),
        }
    )


def _datasets(field: str, path: Path) -> Any:
    try:
        import datasets  # noqa: PLC0415 (an extra)
    except ImportError as error:
        problem, fix = "a folder needs the package datasets", "pip install t3d[formats], or use a .jsonl file"
        raise InputError(field, str(path), problem, fix) from error
    datasets.disable_progress_bars()
    return datasets

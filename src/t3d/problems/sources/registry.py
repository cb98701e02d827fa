"""The sources of training problems by name, and what reading one gives."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from t3d.errors import InputError
from t3d.problems.fields import Record
from t3d.problems.files import DataFile, find_files, own_folder, read_data_file
from t3d.problems.hub import GSM8K, HUB, MBPP, HubData, download
from t3d.problems.problem import Problem
from t3d.problems.prompt_file import PROMPT_FIELDS, read_prompt_file
from t3d.problems.sources.rows import (
    DroppedProblem,
    Reading,
    code_row,
    gsm8k_row,
    math_row,
    mbpp_row,
    stratos_row,
)
from t3d.work.plan import file_sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a source lies in a folder of data, and how to read its rows."""

    folder: str
    """Its own folder in the folder of all data; without that its files are looked for in the latter."""
    patterns: tuple[str, ...]
    """Names of its files, the preferred first; all files of the first that matches are read."""
    read_row: Callable[[Record, str, str], Reading]
    hub: HubData


_SHARDS = ("train-*.parquet", "data/train-*.parquet")


def _stratos(folder: str, repository: str) -> Source:
    data = HubData(_SHARDS[1:], repository)
    return Source(folder=folder, patterns=(*_SHARDS, "train.jsonl"), read_row=stratos_row, hub=data)


SOURCES: dict[str, Source] = {
    "gsm8k_train": Source(
        folder="gsm8k",
        patterns=("train.jsonl", "train.jsonl.gz", *_SHARDS, "main/train-*.parquet", "GSM8K_train.json"),
        read_row=gsm8k_row,
        hub=HubData(("main/train-*.parquet",), *GSM8K),
    ),
    "math_train": Source(
        folder="math_train",
        patterns=(
            *("MATH_train.json", "train/MATH_train.json", "train.jsonl", "train.jsonl.gz"),
            *("train/*/*.json", *_SHARDS, "*/train-*.parquet"),
        ),
        read_row=math_row,
        hub=HubData(("train/MATH_train.json",), "Gen-Verse/MATH_train"),
    ),
    "primeintellect": Source(
        folder="primeintellect",
        patterns=("PrimeIntellect.json", "train/PrimeIntellect.json"),
        read_row=code_row,
        hub=HubData(("train/PrimeIntellect.json",), "Gen-Verse/PrimeIntellect"),
    ),
    "mbpp_train": Source(
        folder="mbpp",
        patterns=("mbpp.jsonl", "mbpp.jsonl.gz", "full/train-*.parquet"),
        read_row=mbpp_row,
        hub=HubData(("full/train-*.parquet",), *MBPP),
    ),
    "bespoke_stratos": _stratos("bespoke_stratos", "bespokelabs/Bespoke-Stratos-17k"),
    "stratos_hard": _stratos("stratos_hard", "Lansechen/bs17k_collection_filtered_hard_maxlength600"),
    "stratos_easy": _stratos("stratos_easy", "Lansechen/bs17k_collection_filtered_easy_maxlength600"),
}
"""MATH and PrimeIntellect are the copies that T3D's released code downloads; the two collections are those of
D2F (arXiv 2508.09192), which the paper's SFT baseline follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceData:
    """A source as read: its problems in the order of the files, and how many rows gave none and why.

    ``sha256`` is of the file; of several, of the lines ``SHA-256  NAME`` that ``sha256sum`` prints for them
    in their folder, in the order read. ``revision`` is the hub's commit.
    """

    name: str
    problems: tuple[Problem, ...]
    dropped: Counter[DroppedProblem]
    num_files: int
    sha256: str
    revision: str | None = None

    @property
    def num_read(self) -> int:
        """Rows of the files."""
        return len(self.problems) + self.dropped.total()


def read_source(name: str, data: str | None) -> SourceData:
    """Read a source from a folder, a file or the hub; a name that ends in ``.jsonl`` is a prompt file.

    Raises InputError for an unknown name, missing data, or a row that is not of the layout.
    """
    if name.endswith(".jsonl"):
        return _read_prompts(Path(name))
    if name not in SOURCES:
        fix = f"use one of {', '.join(SOURCES)}, or the name of a .jsonl file"
        raise InputError("source", name, "not known", fix)
    if data is None:
        raise InputError("data", None, f"{name} needs its data", f"give their folder, or {HUB}")
    source = SOURCES[name]
    root = download(source.hub) if data == HUB else Path(data)
    folder = own_folder(root, source.folder)
    found = find_files(folder, source.patterns, f"the problems of {name}")
    files = [read_data_file(path) for path in found]
    for file in files:
        if "task" in file.rows[0] and file.rows[0].keys() <= set(PROMPT_FIELDS):  # t3d's, in this folder
            fix = "give the published data, or name this file as the source"
            raise InputError("data", str(file.path), f"a file of prompts, not {name}", fix)
    rows = ((row, f"row {index} of {file.path}") for file in files for index, row in enumerate(file.rows, 1))
    problems: list[Problem] = []
    dropped: Counter[DroppedProblem] = Counter()
    for index, (row, where) in enumerate(rows):
        reading = source.read_row(row, f"{name}/{index}", where)
        if isinstance(reading, DroppedProblem):
            dropped[reading] += 1
        else:
            problems.append(reading)
    return SourceData(
        name=name,
        problems=tuple(problems),
        dropped=dropped,
        num_files=len(files),
        sha256=_sha256(files, folder),
        revision=root.name if data == HUB else None,
    )


def _read_prompts(path: Path) -> SourceData:
    problems = read_prompt_file(path)
    digest = file_sha256(path)
    return SourceData(name=str(path), problems=tuple(problems), dropped=Counter(), num_files=1, sha256=digest)


def _sha256(files: Sequence[DataFile], folder: Path) -> str:
    if len(files) == 1:
        return files[0].sha256
    lines = "".join(f"{file.sha256}  {file.path.relative_to(folder).as_posix()}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()

"""Data sets of the hub: which files of which repository, and the folder that they were downloaded to.

Revisions are commits that public evaluation code pins; where none is known it is ``main``.
"""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError

from t3d.errors import InputError

HUB = "hub"
"""In place of a folder: download the data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubData:
    """Files of a data set; only what the patterns match is downloaded."""

    repository: str
    patterns: tuple[str, ...]
    revision: str = "main"

    @property
    def url(self) -> str:
        """The data set's page."""
        return f"https://huggingface.co/datasets/{self.repository}"


_GSM8K = ("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866")
_MBPP = ("google-research-datasets/mbpp", "4bb6404fdc6cacfda99d4ac4205087b89d32030c")

BENCHMARKS: dict[str, HubData] = {
    "gsm8k": HubData(repository=_GSM8K[0], revision=_GSM8K[1], patterns=("main/*.parquet",)),
    "math500": HubData(
        repository="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        patterns=("test.jsonl",),
    ),
    "mbpp": HubData(
        repository=_MBPP[0], revision=_MBPP[1], patterns=("full/*.parquet", "sanitized/*.parquet")
    ),
    "humaneval": HubData(
        repository="openai/openai_humaneval",
        revision="7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
        patterns=("openai_humaneval/*.parquet",),
    ),
}
SOURCES: dict[str, HubData] = {
    "gsm8k_train": HubData(repository=_GSM8K[0], revision=_GSM8K[1], patterns=("main/train-*.parquet",)),
    "math_train": HubData(repository="Gen-Verse/MATH_train", patterns=("train/MATH_train.json",)),
    "primeintellect": HubData(repository="Gen-Verse/PrimeIntellect", patterns=("train/PrimeIntellect.json",)),
    "mbpp_train": HubData(repository=_MBPP[0], revision=_MBPP[1], patterns=("full/train-*.parquet",)),
    "bespoke_stratos": HubData(
        repository="bespokelabs/Bespoke-Stratos-17k", patterns=("data/train-*.parquet",)
    ),
    "stratos_hard": HubData(
        repository="Lansechen/bs17k_collection_filtered_hard_maxlength600",
        patterns=("data/train-*.parquet",),
    ),
    "stratos_easy": HubData(
        repository="Lansechen/bs17k_collection_filtered_easy_maxlength600",
        patterns=("data/train-*.parquet",),
    ),
}
"""MATH and PrimeIntellect are the copies that T3D's released code downloads; the two collections are those of
D2F (arXiv 2508.09192), which the paper's SFT baseline follows."""


def benchmark_folder(name: str) -> Path:
    """The folder of a benchmark's downloaded files, for :func:`t3d.tasks.benchmarks.load_benchmark`.

    Raises InputError for an unknown name, or where nothing can be downloaded and nothing was before.
    """
    return _download(name, BENCHMARKS)


def source_folder(name: str) -> Path:
    """Like :func:`benchmark_folder`, for a source of training problems. Its name is the commit."""
    return _download(name, SOURCES)


def _download(name: str, known: dict[str, HubData]) -> Path:
    if name not in known:
        raise InputError("data", name, "not a data set of the hub", f"use one of {', '.join(known)}")
    data = known[name]
    try:
        folder = snapshot_download(
            data.repository,
            repo_type="dataset",
            revision=data.revision,
            allow_patterns=list(data.patterns),
        )
    except (OSError, HTTPError) as error:
        problem = f"{data.repository} cannot be downloaded ({str(error).splitlines()[0][:120]})"
        wanted = " and ".join(data.patterns)
        fix = f"download {wanted} from {data.url} and give its folder as data"
        raise InputError("data", HUB, problem, fix) from error
    if not any(any(Path(folder).glob(pattern)) for pattern in data.patterns):
        problem = f"{data.repository} has no file {' or '.join(data.patterns)} at {data.revision}"
        raise InputError("data", HUB, problem, f"look at {data.url} and give the folder of your copy as data")
    return Path(folder)

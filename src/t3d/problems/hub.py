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


@dataclass(frozen=True, slots=True)
class HubData:
    """Files of a data set; only what the patterns match is downloaded."""

    patterns: tuple[str, ...]
    repository: str
    revision: str = "main"

    @property
    def url(self) -> str:
        """The data set's page."""
        return f"https://huggingface.co/datasets/{self.repository}"


GSM8K = ("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866")
MBPP = ("google-research-datasets/mbpp", "4bb6404fdc6cacfda99d4ac4205087b89d32030c")
_MATH500 = ("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be")
_HUMANEVAL = ("openai/openai_humaneval", "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544")

BENCHMARK_DATA: dict[str, HubData] = {
    "gsm8k": HubData(("main/*.parquet",), *GSM8K),
    "math500": HubData(("test.jsonl",), *_MATH500),
    "mbpp": HubData(("full/*.parquet", "sanitized/*.parquet"), *MBPP),
    "humaneval": HubData(("openai_humaneval/*.parquet",), *_HUMANEVAL),
}


def benchmark_folder(name: str) -> Path:
    """The folder of a benchmark's downloaded files, for :func:`t3d.tasks.benchmarks.load_benchmark`.

    Raises InputError for an unknown name, or where nothing can be downloaded and nothing was before.
    """
    if name not in BENCHMARK_DATA:
        raise InputError("data", name, "not a data set of the hub", f"use one of {', '.join(BENCHMARK_DATA)}")
    return download(BENCHMARK_DATA[name])


def download(data: HubData) -> Path:
    """The folder of the files, whose name is the commit.

    Raises InputError where nothing can be downloaded and nothing was before.
    """
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

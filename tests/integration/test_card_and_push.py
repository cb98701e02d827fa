"""``t3d card`` says what files say, of these weights alone; ``t3d push`` talks to a stand-in of the hub."""

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from command_helpers import run_failing
from huggingface_hub import constants

from t3d.cli.main import main
from t3d.models.checkpoint import hash_of, open_checkpoint
from t3d.report.model_card import MARK
from t3d.work.plan import sealed


class StubHub(BaseHTTPRequestHandler):
    """The hub's API as uploads use it. All files are taken inline, as the hub takes small ones."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        calls: list = self.server.calls  # ty: ignore[unresolved-attribute]
        calls.append((self.path, self.headers.get("Authorization"), body))
        status: int = self.server.status  # ty: ignore[unresolved-attribute]
        if status != 200:
            return self.answer(status, {"error": "refused"})
        place = f"http://127.0.0.1:{self.server.server_port}/me/student"  # ty: ignore[unresolved-attribute]
        if self.path == "/api/repos/create":
            return self.answer(200, {"url": place, "name": "me/student"})
        if self.path == "/api/validate-yaml":  # of the card's front matter
            return self.answer(200, {"errors": [], "warnings": []})
        if self.path.endswith("/preupload/main"):
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
            return self.answer(200, {"files": [one | {"shouldIgnore": False} for one in files]})
        assert self.path.endswith("/commit/main")
        done = {"success": True, "commitOid": "c0ffee", "commitUrl": f"{place}/commit/c0ffee"}
        return self.answer(200, done | {"hookOutput": ""})

    def do_GET(self):
        if self.path == "/api/models/me/student":
            is_private: bool = self.server.is_private  # ty: ignore[unresolved-attribute]
            self.answer(200, {"id": "me/student", "private": is_private})
        else:
            self.answer(404, {"error": "nothing there"})

    def answer(self, status, content):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), StubHub)
    server.calls, server.status, server.is_private = [], 200, True  # ty: ignore[unresolved-attribute]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # as all other tests have it
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(checkpoint, tmp_path):
    """The folder of a training: a student, two evaluations of which one is of other weights, its settings."""
    folder = tmp_path / "run"
    shutil.copytree(checkpoint, folder / "student")
    (folder / "student" / "training.json").write_text(
        json.dumps({"plan": {"objective": "t3d", "max_steps": 7, "trajectories": {"count": 1234}}})
    )
    weights = hash_of(open_checkpoint(str(folder / "student")).check_weights())
    for name, told, accuracy in (("eval", weights, 62.5), ("teacher-eval", "0" * 64, 99.0)):
        write_results(folder / name, told, accuracy)
    (folder.parent / "rollout.parquet.yaml").write_text("prompts: /home/me/train.jsonl\ntemperature: 0.1\n")
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    settings = {"model": str(base), "trajectories": str(folder.parent / "rollout.parquet")}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def write_results(folder: Path, weights: str, accuracy: float):
    row = {"setting": "B8-T4", "task": "chain", "n": 8, "num_correct": 5, "num_prompts": 8}
    row |= {"accuracy": accuracy, "ci95": [30.6, 86.3], "tokens_per_step": 3.9, "tokens_per_forward": 3.8}
    folder.mkdir()
    record = sealed({"results": [row | {"stopped": 1.0}], "model": {"weights": weights}})
    (folder / "results.json").write_text(json.dumps(record))


def test_a_card_has_what_the_files_say_of_these_weights(run, capsys):
    assert main(["card", str(run)]) == 0
    assert "1 results, licence mit" in capsys.readouterr().out
    text = (run / "student" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "mit" and "base_model" not in yaml.safe_load(front)
    assert "| chain | B8-T4 | 62.5 [30.6, 86.3] | 8 | 3.90 | 3.80 | 100% |" in body
    assert "99.0" not in body  # of other weights
    assert "1,234 records" in body and "prompts train.jsonl, temperature 0.1" in body
    assert "| max_steps | 7 |" in body and '"block_size": 4' in body
    assert "/home/me" not in body and str(run.parent) not in body
    assert main(["card", str(run / "student")]) == 0  # the same of the student's own folder
    assert (run / "student" / "README.md").read_text() == text


def test_what_nothing_tells_is_said_to_be_unknown(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "alone")
    assert main(["card", str(tmp_path / "alone")]) == 0
    text = (tmp_path / "alone" / "README.md").read_text()
    assert "None: no evaluation of these weights was given." in text and "license:" not in text
    assert "Where they are from is not recorded." in text and "look there before you use it" in text
    flags = ["--base", "org/base", "--licence", "apache-2.0", "--data", "GSM8K's train split."]
    assert main(["card", str(tmp_path / "alone"), *flags]) == 0
    text = (tmp_path / "alone" / "README.md").read_text()
    assert "base_model: org/base" in text and "license: apache-2.0" in text and "GSM8K's train split." in text


def test_evaluations_of_other_weights_and_cards_of_others_are_refused(run, tmp_path, capsys):
    text = run_failing(["card", str(run), "--evaluations", str(run / "teacher-eval")], capsys)
    assert "is of other weights" in text and not (run / "student" / "README.md").exists()
    assert "has no results.json" in run_failing(["card", str(run), "--evaluations", str(tmp_path)], capsys)
    (run / "student" / "README.md").write_text("# Mine\n")
    assert "nothing tells that this command wrote it" in run_failing(["card", str(run)], capsys)
    assert (run / "student" / "README.md").read_text() == "# Mine\n"
    assert "no such folder" in run_failing(["card", str(run / "nowhere")], capsys)


@pytest.mark.parametrize("base", ["", "/gone/a/b", "gone", "a--b/c", "../x/y/z"])
def test_a_base_that_can_be_neither_a_folder_nor_a_hub_id_is_refused(run, capsys, base):
    text = run_failing(["card", str(run), f"--base={base}"], capsys)
    assert "no folder of this machine, and no hub id" in text


def test_odd_records_of_a_run_tell_nothing(run, capsys):
    for settings in (
        "model: /gone/models/sdar\n",
        "model: 5\n",
        "model: [a]\n",
        "model: a--b/c\n",
        "\u20ac: [",
    ):
        (run / "config.yaml").write_text(settings)
        assert main(["card", str(run)]) == 0
        text = (run / "student" / "README.md").read_text()
        assert "which is not recorded here" in text and "base_model" not in text and "/gone" not in text
    for record in ({"plan": [1]}, {"plan": {"trajectories": 5}}, [1]):
        (run / "student" / "training.json").write_text(json.dumps(record))
        assert main(["card", str(run)]) == 0
        assert "Where they are from is not recorded." in (run / "student" / "README.md").read_text()


@pytest.mark.parametrize(("weights", "is_hub"), [("c" * 40, True), ("c" * 64, False)])
def test_a_recorded_base_is_one_of_the_hub_only_where_a_commit_was_recorded(run, capsys, weights, is_hub):
    """A relative folder may look like a hub id."""
    (run / "config.yaml").write_text("model: models/sdar\n")
    (run / "student" / "training.json").write_text(json.dumps({"plan": {"model": {"weights": weights}}}))
    assert main(["card", str(run)]) == 0
    text = (run / "student" / "README.md").read_text()
    assert ("base_model: models/sdar" in text) == is_hub == ("Base: `models/sdar`." in text)
    assert "Base: `sdar`." in text or is_hub


def test_what_is_no_evaluation_of_these_weights_stands_in_nobodys_way(run, capsys):
    strangers = ('{"results": {"gsm8k": 1}}', "[1]", '{"model": 5, "results": []}')
    for number, text in enumerate(strangers):
        (run / f"other{number}").mkdir()
        (run / f"other{number}" / "results.json").write_text(text)
        assert main(["card", str(run)]) == 0
        assert "62.5 [30.6, 86.3]" in (run / "student" / "README.md").read_text()
        run_failing(["card", str(run), "--evaluations", str(run / f"other{number}")], capsys)
    (run / "config.yaml").unlink()  # without it the folder above a student may be anything
    assert main(["card", str(run / "student")]) == 0
    assert "None: no evaluation" in (run / "student" / "README.md").read_text()


def test_push_uploads_the_checkpoint_and_its_card_and_nothing_else(run, hub, capsys):
    assert main(["card", str(run)]) == 0
    student = run / "student"
    code = {"modeling_x.py": "from .layers_x import Layer\n", "layers_x.py": "import torch\n"}
    config = json.loads((student / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_x.Model", "AutoConfig": "org/repo--elsewhere.Config"}
    (student / "config.json").write_text(json.dumps(config))
    for name, text in code.items():
        (student / name).write_text(text)
    generate = student / "custom_generate" / "generate.py"
    generate.parent.mkdir()
    generate.write_text("import torch\n")
    kept = {path.name for path in student.iterdir() if path.is_file()} | {"custom_generate/generate.py"}
    (generate.parent / "generate_mine.py").write_text("mine")
    foreign = ("notes.pdf", ".hidden.json", "credentials.json", "notes.txt", "my_script.py", "[a-z]*.json")
    for name in (*foreign, "optimizer.safetensors", "elsewhere.py"):
        (student / name).write_text("mine")
    for name in ("checkpoints", "sub"):
        (student / name).mkdir()
        (student / name / "config.json").write_text("{}")
    assert main(["push", str(student), "--repo", "me/student", "--private"]) == 0
    address = f"{constants.ENDPOINT}/me/student/commit/c0ffee"
    *_, told, last = capsys.readouterr().out.splitlines()
    assert last == address
    assert {token for _, token, _ in hub.calls} == {"Bearer hf_secret"}
    paths = [path for path, _, _ in hub.calls]
    assert paths[0] == "/api/repos/create" and paths[-1] == "/api/models/me/student/commit/main"
    made = json.loads(hub.calls[0][2])
    assert (made["name"], made["organization"]) == ("student", "me")
    assert made.get("private") is True or made.get("visibility") == "private"
    lines = [json.loads(line) for line in hub.calls[-1][2].splitlines()]
    files = {line["value"]["path"]: line["value"] for line in lines if line["key"] == "file"}
    assert set(files) == kept and {"model.safetensors", "config.json", "README.md", *code} <= kept
    assert told == f"uploading {len(kept)} files to me/student: {', '.join(sorted(kept))}"
    assert MARK in base64.b64decode(files["README.md"]["content"]).decode()
    weights = base64.b64decode(files["model.safetensors"]["content"])
    assert weights == (student / "model.safetensors").read_bytes()


def test_a_private_upload_into_a_public_repository_is_refused_before(run, hub, capsys):
    main(["card", str(run)])
    hub.is_private = False
    text = run_failing(["push", str(run / "student"), "--repo", "me/student", "--private"], capsys)
    assert "me/student is public" in text
    assert [path for path, _, _ in hub.calls] == ["/api/repos/create"]


@pytest.mark.parametrize("token", ["hf_SECRET\u20ac", "hf_SEC\x01RET", "hf SECRET"])
def test_a_token_that_cannot_be_is_refused_and_not_shown(run, hub, capsys, monkeypatch, token):
    main(["card", str(run)])
    monkeypatch.setenv("HF_TOKEN", token)
    text = run_failing(["push", str(run / "student"), "--repo", "me/student"], capsys)
    assert "characters that no token has" in text and "SEC" not in text and hub.calls == []


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "the hub does not know it"), (403, "may not write there"), (500, "the hub refuses (")],
)
def test_what_the_hub_refuses_is_one_line(run, hub, capsys, monkeypatch, status, message):
    main(["card", str(run)])
    hub.status = status
    text = run_failing(["push", str(run / "student"), "--repo", "me/student"], capsys)
    assert message in text and "hf_secret" not in text


def test_push_needs_a_token_a_card_a_whole_checkpoint_and_a_name(run, hub, tmp_path, capsys, monkeypatch):
    student = str(run / "student")
    assert "has no card (README.md)" in run_failing(["push", student, "--repo", "me/x"], capsys)
    main(["card", str(run)])
    assert "write ORGANISATION/NAME" in run_failing(["push", student, "--repo", "a/b/c"], capsys)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "run hf auth login" in run_failing(["push", student, "--repo", "me/x"], capsys)
    weights = run / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "truncated or damaged" in run_failing(["push", student, "--repo", "me/x"], capsys)
    assert hub.calls == []


def test_without_a_hub_the_error_names_its_address(run, hub, capsys, monkeypatch):
    main(["card", str(run)])
    monkeypatch.setattr(constants, "ENDPOINT", "http://me:PASSWORD@127.0.0.1:9")
    text = run_failing(["push", str(run / "student"), "--repo", "me/x"], capsys)
    assert "the hub cannot be reached at http://127.0.0.1:9" in text and "HF_ENDPOINT" in text
    assert "PASSWORD" not in text


@pytest.mark.slow
def test_the_environment_names_the_hub(run, hub):
    main(["card", str(run)])
    command = [sys.executable, "-m", "t3d", "push", str(run / "student"), "--repo", "me/student"]
    place = f"http://127.0.0.1:{hub.server_port}"
    environment = os.environ | {"HF_ENDPOINT": place, "HF_TOKEN": "hf_other", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert {token for _, token, _ in hub.calls} == {"Bearer hf_other"}

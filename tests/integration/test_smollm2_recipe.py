"""The recipe of SmolLM2's drafter: its commands parse, and its script decodes the same text, drafted."""

import dataclasses
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from adopt_helpers import plain_tokenizer, save_gguf, save_source
from next_token_helpers import add_random_adapter

from t3d.bundled_drafters import BUNDLED_DRAFTERS
from t3d.cli.main import COMMANDS, main
from t3d.models.drafter import save_drafter
from t3d.models.fetch import MODELS
from t3d.models.loading import load_model
from t3d.problems.prompt_file import read_prompt_file
from t3d.trajectory import read_trajectories, write_trajectories

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "smollm2_drafter"
RESULTS = ROOT / "docs" / "results" / "smollm2.md"
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|reserved_special_token_0|>")


@pytest.fixture(scope="module", params=["checkpoint", pytest.param("gguf", marks=pytest.mark.slow)])
def pair(request, tmp_path_factory):
    """(folder of a tiny autoregressive model, folder of a drafter with random weights)."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = plain_tokenizer(SPECIALS)
    model = save_source(folder / "model", "llama", tokenizer, max_position_embeddings=512)
    if request.param == "gguf":
        shutil.rmtree(folder / "model")
        (folder / "model").mkdir()
        save_gguf(folder / "model" / "tiny.gguf", model, tokenizer)
    loaded = load_model(folder / "model", device="cpu")
    adapter = add_random_adapter(loaded.model, mask_token_id=loaded.mask_token_id)
    save_drafter(adapter, loaded, folder / "drafter")
    return folder / "model", folder / "drafter"


@pytest.fixture
def decode(monkeypatch):
    """The script's main."""
    monkeypatch.syspath_prepend(RECIPE)
    yield importlib.import_module("decode").main
    del sys.modules["decode"]


def test_the_script_decodes_the_same_text_with_a_drafter_and_says_what_it_took(decode, pair, capsys):
    model, drafter = map(str, pair)
    assert decode(["--model", model, "--drafter", drafter, "--max-new-tokens", "12"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:5] == ["prompt", "tokens", "forwards", "TPF", "tokens/s"]
    rows = [line.split() for line in lines[3:10]]
    assert [row[0] for row in rows] == ["math", "math", "general", "general", "code", "code", "all"]
    for row in rows[:6]:
        tokens, forwards, drafted = int(row[1]), int(row[2]), int(row[5])
        assert tokens == forwards >= drafted and row[-1] == "yes"
        assert float(row[6]) == round(tokens / drafted, 2)
    assert [sum(int(row[column]) for row in rows[:6]) for column in (1, 2, 5)] == [
        int(rows[6][column]) for column in (1, 2, 5)
    ]
    assert rows[6][-3:] == ["6", "of", "6"]
    assert "A baker fills" in "\n".join(lines[10:])


def test_what_the_recipe_trains_is_shipped_and_decoded(decode, pair, tmp_path, prompts, monkeypatch, capsys):
    model, file, run = str(pair[0]), str(tmp_path / "all.parquet"), tmp_path / "run"
    short = ["--temperature", "0", "--max-new-tokens", "8"]
    assert main(["rollout", "--model", model, "--prompts", str(prompts), "--output", file, *short]) == 0
    flags = ["--block-size", "4", "--lora-rank", "2", "--num-optimizer-steps", "2", "--batch-size", "2"]
    flags += ["--override", "draft_targets=rollout", "lora_mask_embedding=true", "--warmup-steps", "1"]
    flags += ["--output", str(run), "--device", "cpu"]
    assert main(["train", "--preset", "drafter", "--model", model, "--trajectories", file, *flags]) == 0
    pinned = json.loads((run / "drafter" / "drafter.json").read_text())["base"]["weights"]
    monkeypatch.setitem(MODELS, "smollm2", dataclasses.replace(MODELS["smollm2"], sha256=pinned))
    monkeypatch.setitem(BUNDLED_DRAFTERS, "smollm2", tmp_path / "shipped")
    monkeypatch.syspath_prepend(ROOT / "scripts")
    ship = importlib.import_module("ship_drafter").main
    assert ship([str(run / "drafter"), str(tmp_path / "shipped"), "--data", "d", "--command", "c"]) == 0
    card = (tmp_path / "shipped" / "README.md").read_text()
    assert "2 optimizer steps of 2; peak learning rate 0.001, seed 0" in card and "| Rollouts | 6," in card
    assert "`draft_targets=rollout`" in card and "rank 2" in card
    assert decode(["--model", model, "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.count("6 of 6") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nowhere"], "model='nowhere': no such folder"),
        (["--model", "{model}", "--drafter", "smollm"], "or the name of a bundled drafter (smollm2)"),
        (["--model", "{model}", "--max-new-tokens", "0"], "max_new_tokens=0: not positive"),
    ],
)
def test_wrong_input_is_one_line(decode, pair, capsys, arguments, said):
    assert decode([word.format(model=pair[0]) for word in arguments]) == 2
    *bars, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and said in error
    assert all("GGUF" in bar or bar.startswith("loading ") for bar in bars if bar)  # transformers' and ours


@pytest.mark.parametrize("name", ["README.md", "train.sh"])
def test_every_command_of_the_recipe_parses(name, monkeypatch):
    text = (RECIPE / name).read_text(encoding="utf-8")
    variables = dict(re.findall(r"^(\w+)=\$\{\w+:-([^}]*)\}", text, flags=re.MULTILINE))
    text = re.sub(r"\$(\w+)\b", lambda match: variables.get(match[1], match[0]), text)
    lines = re.findall(r"^ *(t3d .*)$", text.replace("\\\n", " "), flags=re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        tyro.cli(COMMANDS[(words[0],)], args=words[1:])


def test_files_that_the_recipe_names_are_there():
    assert subprocess.run(["bash", "-n", RECIPE / "train.sh"], check=False).returncode == 0
    for page in ("README.md", "train.sh"):
        text = re.sub(r"\$HERE/(\.\./\.\./)?", "", (RECIPE / page).read_text(encoding="utf-8"))
        named = set(re.findall(r"[\w/]+\.(?:py|sh)\b", text))
        assert len(named) > 4
        assert [name for name in named if not any((base / name).is_file() for base in (ROOT, RECIPE))] == []


def test_the_general_prompts_are_two_prompt_files_without_a_topic_in_common(tmp_path):
    questions = {}
    for part in ("train", "held_out"):
        command = [sys.executable, str(RECIPE / "general_prompts.py"), part]
        written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        (tmp_path / f"{part}.jsonl").write_text(written)
        questions[part] = [problem.question for problem in read_prompt_file(tmp_path / f"{part}.jsonl")]
        assert len(questions[part]) == len(written.splitlines())
    assert (len(questions["train"]), len(questions["held_out"])) == (204, 36)
    assert not any("robots" in question for question in questions["train"])
    failed = subprocess.run([*command[:2], "all"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1 and "give train or held_out" in failed.stderr


def test_rollouts_are_joined_in_their_order(tmp_path, trajectories):
    parts = [trajectories[:2], trajectories[2:3]]
    names = [str(tmp_path / f"{number}.parquet") for number in range(2)]
    for name, part in zip(names, parts, strict=True):
        write_trajectories(name, part)
    joined = tmp_path / "all.parquet"
    subprocess.run([sys.executable, str(RECIPE / "join.py"), str(joined), *names], check=True)
    assert read_trajectories(joined) == trajectories[:3]
    parts = [f"{joined}[1:2]", f"{joined}[2:]", f"{joined}[:1]"]
    subprocess.run([sys.executable, str(RECIPE / "join.py"), names[0], *parts], check=True)
    assert read_trajectories(names[0]) == [trajectories[place] for place in (1, 2, 0)]


def test_make_help_lists_the_target():
    # A make above (`make test`) hands its flags down, and then prints the folders that it enters.
    alone = {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    }
    told = subprocess.run(
        ["make", "help"], cwd=ROOT, env=alone, capture_output=True, text=True, check=True
    ).stdout
    line = next(line for line in told.splitlines() if line.split()[:1] == ["smollm2"])
    assert "drafter" in line
    command = ["make", "-n", "smollm2"]
    planned = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=True)
    fetch, decoding = planned.stdout.splitlines()[-2:]
    assert fetch.endswith("t3d fetch smollm2 --source package --output runs/smollm2/model")
    assert decoding.endswith("decode.py --model runs/smollm2/model --drafter smollm2")


def test_the_page_has_the_tables_of_the_committed_numbers_and_says_how_many_were_together(
    monkeypatch, capsys
):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    table = importlib.import_module("next_token_table")
    monkeypatch.setattr(sys, "argv", ["next_token_table.py", str(RESULTS.with_suffix(".json"))])
    table.main()
    printed, page = capsys.readouterr().out, RESULTS.read_text()
    told = [line for line in printed.splitlines() if line]
    assert told and all(line in page for line in told)
    for dtype in ("float32", "bfloat16"):
        assert f"| {dtype}, 4 together (room for 8) |" in printed and f"| {dtype}, batch 1 |" in printed
    rows = [{"batch": 8, "n": 12}, {"batch": 1, "n": 4}]
    assert table.batch_title(rows, 8) == "batch 8"
    for name in ("next_token_table", "next_token", "self_speculation_table"):
        sys.modules.pop(name, None)

"""``t3d eval``: a grid over mini tasks, prompt files and benchmarks; unfit flags; real kills."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from command_helpers import run_failing

from t3d.cli.evaluate import Eval
from t3d.cli.main import main
from t3d.decoding.llm import LLM
from t3d.errors import InputError
from t3d.problems.problem import Problem
from t3d.problems.prompts import problem_ids
from t3d.trajectory import read_trajectories

DATA = Path(os.environ.get("T3D_DATA", ""))
needs_data = pytest.mark.skipif(
    not (DATA / "gsm8k").is_dir(), reason="set T3D_DATA to the folder of the data sets"
)
SHORT = ["--max-new-tokens", "12", "--device", "cpu"]
WALL_CLOCK = ("seconds", "tokens_per_second", "latency", "batch1_latency")
GSM8K = [{"question": f"Two and {index}?", "answer": f"So\n#### {index + 2}"} for index in range(3)]
STUB = 'def f(x):\n    """The same."""\n'


@pytest.fixture(scope="session")
def long_checkpoint(tmp_path_factory, make_model, tiny_tokenizer):
    """The tiny model with positions for a benchmark's prompts, most of whose bytes are a token each."""
    folder = tmp_path_factory.mktemp("long") / "tiny-sdar"
    ids = {f"{name}_token_id": getattr(tiny_tokenizer, f"{name}_token_id") for name in ("mask", "eos", "pad")}
    make_model(vocab_size=len(tiny_tokenizer), max_position_embeddings=4096, **ids).float().save_pretrained(
        folder
    )
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def gsm8k(tmp_path):
    """A folder with three problems in GSM8K's form."""
    folder = tmp_path / "data" / "gsm8k"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, GSM8K)))
    return folder.parent


def results(folder):
    return json.loads((folder / "results.json").read_text())


def samples(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def numbers(folder):
    return [
        {name: value for name, value in entry.items() if name not in WALL_CLOCK}
        for entry in results(folder)["results"]
    ]


def test_a_grid_over_a_benchmark_and_a_mini_task_and_again_from_its_config(
    long_checkpoint, gsm8k, tmp_path, capsys
):
    output = tmp_path / "e"
    arguments = ["eval", "--model", str(long_checkpoint), "--tasks", "gsm8k, chain", "--data", str(gsm8k)]
    arguments += ["--tokens-per-step", "4", "--dynamic", "0.95", "--limit", "2", *SHORT]
    assert main([*arguments, "--latency-samples", "1", "--output", str(output)]) == 0
    table = capsys.readouterr().out
    entries = results(output)["results"]
    labels = ["B4-T4", "B4-dynamic-0.95"]
    assert [(entry["task"], entry["setting"]) for entry in entries] == [
        (task, label) for task in ("gsm8k", "chain") for label in labels
    ]
    assert all(label in table for label in labels) and "TPF" in table
    assert "hit the length limit (max_new_tokens)" in table, "as a rollout says it"
    assert len(samples(output)) == 2 * len(entries)
    first, last = entries[0], entries[-1]
    assert first["prompt"] == {"style": "sdar", "kind": "math"} and last["prompt"]["style"] == "plain"
    assert first["grader"]["name"] == "math_verify" and len(first["data"]["test"]["sha256"]) == 64
    assert {"strict-match", "flexible-extract", "reasons", "num_timeouts", "num_unparsed"} <= set(first)
    assert first["batch1_latency"]["n"] == 1 and first["batch1_latency"]["mean"] > 0
    assert {"tokens_per_second", "latency", "mean_denoising_steps", "mean_length", "accuracy"} <= set(last)
    row = samples(output)[0]
    assert {"extracted", "reason", "strict-match", "num_tokens", "finish_reason"} <= set(row)
    assert results(output)["model"]["dtype"] == "torch.float32"
    report = (output / "report.html").read_text()
    assert all(label in report for label in labels) and "gsm8k, chain" in report
    again = tmp_path / "again"
    assert main(["eval", "--config", str(output / "config.yaml"), "--output", str(again)]) == 0
    assert (again / "samples.jsonl").read_bytes() == (output / "samples.jsonl").read_bytes()
    graded = tmp_path / "graded.jsonl"
    grade = ["grade", "--task", "gsm8k", "--samples", str(output / "samples.jsonl"), "--output", str(graded)]
    assert main(grade) == 0
    assert [json.loads(line) for line in graded.read_text().splitlines()] == [
        row | {"grader": "math_verify"} for row in samples(output) if row["task"] == "gsm8k"
    ]
    summary = json.loads(graded.with_name("graded.jsonl.summary.json").read_text())
    assert list(summary["settings"]) == labels and summary["settings"]["B4-T4"]["n"] == 2


def test_an_evaluation_gains_settings_and_loses_none(long_checkpoint, tmp_path, capsys):
    output = tmp_path / "e"
    command = ["eval", "--model", str(long_checkpoint), "--tasks", "chain", "--limit", "2", *SHORT]
    command += ["--output", str(output), "--tokens-per-step"]
    assert main([*command, "4"]) == 0
    (before,) = results(output)["results"]
    assert main([*command, "2,4", "--dynamic", "0.9"]) == 0
    added = {entry["setting"]: entry for entry in results(output)["results"]}
    assert list(added) == ["B4-T2", "B4-T4", "B4-dynamic"] and added["B4-T4"] == before
    assert yaml.safe_load((output / "config.yaml").read_text())["tokens_per_step"] == "2,4"
    said = run_failing([*command, "4"], capsys)
    assert "settings.B4-T2 was given, now not given" in said
    assert len(results(output)["results"]) == 3


@pytest.mark.parametrize(("style", "rule"), [("sdar", "opencompass"), ("released", "dllm_rl")])
def test_the_style_of_the_prompts_says_where_a_program_is_and_results_say_it(
    long_checkpoint, tmp_path, style, rule
):
    row = {"task_id": "HumanEval/0", "prompt": STUB, "test": "def check(f):\n    assert f(3) == 3\n"}
    row |= {"entry_point": "f", "canonical_solution": "    return x\n"}
    (tmp_path / "HumanEval.jsonl").write_text(json.dumps(row))
    command = [
        "eval",
        "--model",
        str(long_checkpoint),
        "--tasks",
        "humaneval",
        "--data",
        str(tmp_path),
        *SHORT,
    ]
    command += ["--unsafe-no-sandbox", "--output", str(tmp_path / "e"), "--prompt-style", style]
    assert main(command) == 0
    (entry,) = results(tmp_path / "e")["results"]
    assert entry["grader"]["code_rule"] == rule and entry["prompt"]["style"] == style


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"prompts": "x.jsonl"},
            "tasks='chain': prompts='x.jsonl' is given too. Fix: leave out one of the two",
        ),
        ({"tasks": None}, "tasks=None: neither this nor prompts is given. Fix: give --tasks or --prompts"),
        ({"tasks": "chain,chian"}, "tasks='chian': not known.*gsm8k"),
        ({"tasks": "chain,"}, "tasks='': not known"),
        ({"tasks": "chain,chain"}, "tasks='chain': twice in"),
        ({"tasks": "gsm8k"}, "data=None: gsm8k needs its data"),
        ({"data": "x"}, "data='x': no benchmark reads them"),
        ({"block_size": "4,x"}, "block_size='x': cannot be an item of '4,x'"),
        ({"block_size": "4,4"}, "block_size='4': twice in"),
        ({"block_size": ""}, "block_size='': cannot be an item"),
        ({"block_size": "-4"}, "block_size=-4: not positive"),
        ({"tokens_per_step": "1,3"}, "tokens_per_step=3: does not divide block_size=4"),
        ({"tokens_per_step": "1.5"}, "tokens_per_step='1.5': cannot be an item"),
        ({"dynamic": "high"}, "dynamic='high': cannot be an item"),
        ({"dynamic": "2"}, "confidence_threshold=2.0: not in"),
        ({"entropy_bound": "-1"}, "entropy_bound=-1.0: not a number of 0 or more"),
        ({"dynamic": "0.9", "remasking": "random"}, "remasking='random': no strategy"),
        ({"draft_groups": "all"}, "draft_groups='all': ignored: .*drafts nothing"),
        ({"left_to_right": True, "max_draft_tokens": 2}, "max_draft_tokens=2: ignored"),
        ({"self_speculative": True, "max_draft_tokens": -1}, "max_draft_tokens=-1: not a number of 0"),
        ({"temperature": -1.0}, "temperature=-1.0: not a number of 0 or more"),
        ({"latency_samples": -1}, "latency_samples=-1: not a number of 0 or more"),
        ({"samples_per_prompt": 0}, "samples_per_prompt=0: not positive"),
        ({"chunk_size": 0}, "chunk_size=0: not positive"),
        ({"limit": 0}, "limit=0: not positive"),
        ({"grader": "legacy"}, "grader='legacy': no task of gsm8k, math500"),
        ({"mbpp_protocol": "sanitized"}, "mbpp_protocol='sanitized': no task of mbpp"),
        ({"unsafe_no_sandbox": True}, "unsafe_no_sandbox=True: no task of mbpp, humaneval"),
        ({"tasks": "gsm8k", "problem_seed": 1}, "problem_seed=1: no task of chain, make, code"),
        ({"tasks": None, "prompts": "p.jsonl", "split": "train"}, "split='train': a file of prompts has no"),
        ({"prompt_kind": "math"}, "prompt_kind='math': chain has its own kind"),
        ({"split": "valid"}, "split='valid': not known"),
    ],
)
def test_unfit_settings_are_named_and_no_model_is_loaded(tmp_path, monkeypatch, fields, message):
    monkeypatch.setattr("t3d.models.loading.load_model", lambda *args, **kwargs: pytest.fail("loaded"))
    settings = {"model": "mini", "output": str(tmp_path / "e"), "tasks": "chain", "limit": 2} | fields
    with pytest.raises(InputError, match=message):
        Eval(**settings).run()
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("grader", ["math_verify", "exact"])
def test_the_grader_of_a_prompt_file_is_in_the_results(long_checkpoint, tmp_path, grader):
    (tmp_path / "own.jsonl").write_text('{"question": "half of one?", "answer": "0.5"}')
    arguments = ["eval", "--model", str(long_checkpoint), "--prompts", str(tmp_path / "own.jsonl"), *SHORT]
    flags = [] if grader == "math_verify" else ["--grader", grader]
    assert main([*arguments, *flags, "--output", str(tmp_path / "e")]) == 0
    (entry,) = results(tmp_path / "e")["results"]
    assert entry["grader"]["name"] == grader and ("versions" in entry["grader"]) == (grader != "exact")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--block-size", "-4"], "error: block_size=-4: not positive"),
        (["--prompt-style", "mine"], "error: prompt_style='mine': not known. Fix: use one of plain,"),
        (["--steps-per-block", "2"], "steps-per-block"),
    ],
)
def test_unfit_flags_end_in_one_line(tmp_path, capsys, flags, message):
    command = ["eval", "--model", "mini", "--tasks", "chain", "--output", str(tmp_path / "e")]
    assert re.search(message, run_failing([*command, *flags], capsys))


def test_data_of_the_hub_are_downloaded_by_name(gsm8k, tmp_path, long_checkpoint, monkeypatch):
    asked = []
    monkeypatch.setattr("t3d.problems.hub.benchmark_folder", lambda name: asked.append(name) or gsm8k)
    arguments = ["eval", "--model", str(long_checkpoint), "--tasks", "gsm8k,chain", "--data", "hub"]
    assert main([*arguments, "--limit", "1", "--output", str(tmp_path / "e"), *SHORT]) == 0
    assert asked == ["gsm8k"]


@pytest.mark.parametrize(
    ("style", "kind"),
    [
        ("plain", None),
        ("paper", "completion"),
        ("released", "function"),
        ("sdar", "stdio"),
        ("sdar", "math"),
    ],
)
def test_rollout_solutions_and_evaluation_put_the_same_prompt(
    long_checkpoint, tiny_tokenizer, tmp_path, monkeypatch, style, kind
):
    """Token for token, as the commands record or decode it."""
    questions = ["how many?", "a\n{b} é"]
    file = tmp_path / "set.jsonl"
    rows = [{"question": question, "answer": "1", "solution": "so the"} for question in questions]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    shared = ["--model", str(long_checkpoint), "--prompts", str(file)]
    shared += ["--prompt-style", style, *([] if kind is None else ["--prompt-kind", kind])]
    decoded = []
    real = LLM.decode

    def decode(self, requests, *args, **kwargs):
        decoded.append([request.prompt_ids for request in requests])
        return real(self, requests, *args, **kwargs)

    monkeypatch.setattr(LLM, "decode", decode)
    commands = {
        "rollout": ["rollout", *shared, "--output", str(tmp_path / "rolled"), "--max-new-tokens", "1"],
        "data": ["data", "solutions", *shared, "--output", str(tmp_path / "solved")],
        "eval": ["eval", *shared, "--output", str(tmp_path / "e"), "--max-new-tokens", "1"],
    }
    statuses = {main(command) for command in commands.values()}
    if (style, kind) == ("sdar", "stdio"):
        assert statuses == {2}
        return
    assert statuses == {0}
    expected = [
        tuple(problem_ids(tiny_tokenizer, Problem(id="", question=question), style=style, kind=kind))
        for question in questions
    ]
    for name in ("rolled", "solved"):
        assert [record.prompt_ids for record in read_trajectories(tmp_path / name)] == expected
    assert decoded == [expected, expected[:1], expected]  # rollout, warm-up, evaluation


def test_benchmarks_are_rolled_out_with_the_prompts_of_their_evaluation(
    long_checkpoint, gsm8k, tiny_tokenizer, tmp_path
):
    output = tmp_path / "rolled"
    arguments = ["rollout", "--model", str(long_checkpoint), "--task", "gsm8k", "--data", str(gsm8k)]
    assert main([*arguments, "--limit", "2", "--max-new-tokens", "1", "--output", str(output)]) == 0
    records = read_trajectories(output)
    assert [record.id for record in records] == ["gsm8k/train/0", "gsm8k/train/1"]
    asked = Problem(id="", question="Two and 0?")
    assert list(records[0].prompt_ids) == problem_ids(tiny_tokenizer, asked, style="sdar", kind="math")
    assert yaml.safe_load(output.with_name("rolled.yaml").read_text())["data"] == str(gsm8k)


def test_generate_takes_a_prompt_style(long_checkpoint, tiny_tokenizer, monkeypatch):
    asked = []
    monkeypatch.setattr(LLM, "decode", lambda self, requests, params: asked.extend(requests) or [])
    command = ["generate", "--model", str(long_checkpoint), "--prompt", "how?", *SHORT]
    assert main([*command, "--prompt-style", "released", "--prompt-kind", "stdio"]) == 0
    expected = problem_ids(tiny_tokenizer, Problem(id="", question="how?"), style="released", kind="stdio")
    assert list(asked[0].prompt_ids) == expected


@needs_data
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
@pytest.mark.parametrize("task", ["gsm8k", "humaneval"])
def test_an_evaluation_killed_half_way_ends_like_one_that_was_not(
    long_checkpoint, tmp_path, monkeypatch, task
):
    """50 problems of GSM8K, 20 of HumanEval, killed in the first of two cells."""
    limit = {"gsm8k": 50, "humaneval": 20}[task]
    command = ["eval", "--model", str(long_checkpoint), "--data", str(DATA), "--tasks", task]
    command += ["--limit", str(limit), "--batch-size", "4", "--tokens-per-step", "2", "--dynamic", "0.9"]
    command += ["--temperature", "1", "--max-new-tokens", "24", "--device", "cpu"]
    command += ["--unsafe-no-sandbox"] if task == "humaneval" else []
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*command, "--output", str(whole)]) == 0
    kept = kill_when(
        [*command, "--output", str(cut)], cut / "unfinished" / f"{task}.B4-T2.chunk-00000.jsonl", limit // 2
    )
    assert limit // 2 <= len(kept) < 2 * limit  # responses, then verdicts
    assert [path.name for path in cut.iterdir() if not path.name.startswith(".")] == ["unfinished"]
    decoded = []
    real = LLM.decode

    def decode(self, requests, *args, **kwargs):
        decoded.extend(requests)
        return real(self, requests, *args, **kwargs)

    monkeypatch.setattr(LLM, "decode", decode)
    assert main([*command, "--output", str(cut)]) == 0
    finished = {json.loads(line.rpartition(b"\t")[0])["id"] for line in kept}  # a checksum follows
    assert len(decoded) == 1 + 2 * limit - len(finished)  # the first warms up
    assert (cut / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    assert numbers(cut) == numbers(whole)


def kill_when(command: list[str], file: Path, num_lines: int) -> list[bytes]:
    """Kill a command as soon as the file has so many lines; what it has then, whole lines only."""
    process = subprocess.Popen([sys.executable, "-m", "t3d", *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    try:
        while not file.is_file() or file.read_bytes().count(b"\n") < num_lines:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

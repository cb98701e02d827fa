"""The command line: the road from rollout to evaluation, and one-screen errors for bad input."""

import json
import re
import shutil

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from command_helpers import run_failing

from t3d.cli.main import main
from t3d.decoding import rollout
from t3d.models.loading import load_model
from t3d.trajectory import read_trajectories, write_trajectories
from t3d.work import kept

SHORT = ["--max-new-tokens", "12", "--device", "cpu"]


@pytest.fixture
def rolled(checkpoint, prompts, tmp_path):
    path = tmp_path / "rollout.parquet"
    assert (
        main(
            ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--output", str(path), *SHORT]
        )
        == 0
    )
    return path


def test_rollout_train_eval_generate_and_rerun_from_the_written_config(
    checkpoint, prompts, rolled, tmp_path, capsys
):
    model = ["--model", str(checkpoint), "--device", "cpu"]
    run = tmp_path / "run"
    sizes = ["--num-optimizer-steps", "2", "--batch-size", "4", "--warmup-steps", "0"]
    assert main(["train", *model, "--trajectories", str(rolled), "--output", str(run), *sizes]) == 0
    student = ["--model", str(run / "student"), "--prompts", str(prompts)]
    assert main(["eval", *student, "--output", str(tmp_path / "eval"), "--limit", "4", *SHORT]) == 0
    report = json.loads((tmp_path / "eval" / "results.json").read_text())
    samples = [json.loads(line) for line in (tmp_path / "eval" / "samples.jsonl").read_text().splitlines()]
    assert report["results"][0]["n"] == len(samples) == 4
    assert report["config"]["seed"] == 0
    assert report["results"][0]["accuracy"] == 25.0 * sum(sample["correct"] for sample in samples)
    again = tmp_path / "again"
    assert main(["eval", "--config", str(tmp_path / "eval" / "config.yaml"), "--output", str(again)]) == 0
    assert (again / "samples.jsonl").read_text() == (tmp_path / "eval" / "samples.jsonl").read_text()
    capsys.readouterr()
    assert main(["generate", *student, "--limit", "1", "--show-steps", *SHORT]) == 0
    assert "steps" in capsys.readouterr().out


def test_same_command_writes_identical_trajectories(checkpoint, prompts, rolled, tmp_path):
    other = tmp_path / "other.parquet"
    assert (
        main(
            ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--output", str(other), *SHORT]
        )
        == 0
    )
    assert other.read_bytes() == rolled.read_bytes()


def test_killed_rollout_continues_from_its_finished_chunks(
    checkpoint, prompts, rolled, tmp_path, monkeypatch
):
    command = ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--chunk-size", "2", *SHORT]
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    assert main([*command, "--output", str(whole)]) == 0
    calls = []
    real = rollout.roll_out_answered

    def dies_in_the_second_chunk(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise SystemExit("killed")
        return real(*args, **kwargs)

    monkeypatch.setattr(rollout, "roll_out_answered", dies_in_the_second_chunk)
    with pytest.raises(SystemExit):
        main([*command, "--output", str(cut)])
    assert not cut.exists()
    assert main([*command, "--output", str(cut)]) == 0
    assert len(calls) == 4  # first chunk, the killed one, then only the two missing chunks
    assert cut.read_bytes() == whole.read_bytes()
    assert [t.id for t in read_trajectories(cut)] == [t.id for t in read_trajectories(rolled)]
    assert not cut.with_name("cut.parquet.chunks").exists()


def test_a_finished_rollout_is_kept(checkpoint, prompts, rolled, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rollout, "roll_out_answered", None)
    content = rolled.read_bytes()
    command = [
        "rollout",
        "--model",
        str(checkpoint),
        "--prompts",
        str(prompts),
        "--output",
        str(rolled),
        *SHORT,
    ]
    assert main(command) == 0
    text = run_failing([*command, "--temperature", "0.2"], capsys)
    assert "the finished work of another run: decode.temperature was 0.1, now 0.2" in text
    other = tmp_path / "other.parquet"
    write_trajectories(other, read_trajectories(rolled))
    command[command.index(str(rolled))] = str(other)
    assert "nothing in it tells how it was made" in run_failing(command, capsys)
    assert rolled.read_bytes() == content


def test_the_settings_of_a_finished_rollout_are_not_written_again(checkpoint, prompts, rolled):
    """Nothing is, so that the disk may be read-only."""
    command = ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--output", str(rolled)]
    assert main([*command, *SHORT]) == 0
    before = {path: path.stat().st_mtime_ns for path in rolled.parent.iterdir()}
    assert rolled.with_name(f"{rolled.name}.yaml") in before
    assert main([*command, *SHORT]) == 0
    assert {path: path.stat().st_mtime_ns for path in rolled.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("command", "written"),
    [
        (["rollout", "--prompts", "out.yaml", "--output", "out"], "out.yaml"),
        (["rollout", "--prompts", "out", "--output", "out"], "out"),
        (["grade", "--task", "gsm8k", "--samples", "out.yaml", "--output", "out"], "out.yaml"),
        (["grade", "--task", "gsm8k", "--samples", "x.summary.json", "--output", "x"], "x.summary.json"),
        *(
            (["eval", "--prompts", f"out/{name}", "--output", "out"], f"out/{name}")
            for name in ("samples.jsonl", "results.json", "config.yaml")
        ),
    ],
)
def test_no_output_is_written_over_an_input(checkpoint, tmp_path, monkeypatch, capsys, command, written):
    monkeypatch.chdir(tmp_path)
    text = '{"id": "a", "question": "1+1?", "answer": "2", "output": "2", "reference": "2"}\n'
    (tmp_path / written).parent.mkdir(exist_ok=True)
    (tmp_path / written).write_text(text)
    model = [] if command[0] == "grade" else ["--model", str(checkpoint)]
    assert "is a file to read" in run_failing([*command, *model], capsys)
    assert (tmp_path / written).read_text() == text


def test_chunks_of_another_run_are_refused(checkpoint, prompts, tmp_path, capsys, monkeypatch):
    arguments = [
        "rollout",
        "--model",
        str(checkpoint),
        "--prompts",
        str(prompts),
        "--chunk-size",
        "2",
        *SHORT,
    ]
    arguments += ["--output", str(tmp_path / "out.parquet")]
    monkeypatch.setattr(kept, "discard", lambda folder: None)  # as if killed just before the end
    assert main(arguments) == 0
    (tmp_path / "out.parquet").unlink()
    text = run_failing([*arguments, "--temperature", "0.2", "--chunk-size", "3"], capsys)
    assert "decode.temperature was 0.1, now 0.2" in text
    assert "chunk_size was 2, now 3" in text
    assert "out.parquet.chunks" in text


def test_missing_model_folder(tmp_path, prompts, capsys):
    out = tmp_path / "out.parquet"
    missing = str(tmp_path / "nowhere")
    text = run_failing(
        ["rollout", "--model", missing, "--prompts", str(prompts), "--output", str(out)], capsys
    )
    assert "model=" in text
    assert "nowhere" in text
    assert "Fix:" in text
    assert not out.exists()


def test_checkpoint_of_another_architecture(checkpoint, tmp_path, prompts, capsys):
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "mistral"}))
    arguments = ["eval", "--model", str(other), "--prompts", str(prompts), "--output", str(tmp_path / "e")]
    text = run_failing([*arguments, *SHORT], capsys)
    assert "its architecture is" in text
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("flags", "field", "fix"),
    [
        (["--block-size", "4", "--tokens-per-step", "5"], "tokens_per_step", "use divisors of 4"),
        (["--block-size", "0"], "block_size", "positive"),
        (["--block-size", "-4"], "block_size", "positive"),
        (["--temperature", "-1"], "temperature", "0 or more"),
        (["--limit", "0"], "limit", "1 or more"),
    ],
)
def test_bad_decoding_settings(checkpoint, prompts, tmp_path, capsys, flags, field, fix):
    arguments = [
        "eval",
        "--model",
        str(checkpoint),
        "--prompts",
        str(prompts),
        "--output",
        str(tmp_path / "e"),
    ]
    text = run_failing([*arguments, *flags], capsys)
    assert field in text
    assert fix in text
    assert not (tmp_path / "e").exists()


def test_unknown_config_key_names_the_nearest_one(checkpoint, tmp_path, prompts, capsys):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"model": str(checkpoint), "tokens_per_stp": 2}))
    text = run_failing(["eval", "--config", str(file), "--output", str(tmp_path / "e")], capsys)
    assert "tokens_per_stp" in text
    assert "did you mean 'tokens_per_step'" in text


def test_flags_win_over_the_config_file(checkpoint, tmp_path, prompts):
    file = tmp_path / "config.yaml"
    settings = {"model": str(checkpoint), "prompts": str(prompts), "max_new_tokens": 12, "tokens_per_step": 2}
    file.write_text(yaml.safe_dump(settings))
    output = tmp_path / "e"
    assert main(["eval", "--config", str(file), "--output", str(output), "--tokens-per-step", "4"]) == 0
    assert yaml.safe_load((output / "config.yaml").read_text())["tokens_per_step"] == "4"


def test_corrupt_trajectories(checkpoint, rolled, tmp_path, capsys):
    rolled.write_bytes(rolled.read_bytes()[:-40])
    output = tmp_path / "run"
    arguments = ["train", "--model", str(checkpoint), "--trajectories", str(rolled), "--output", str(output)]
    text = run_failing([*arguments, "--device", "cpu"], capsys)
    assert "not a readable Parquet file" in text
    assert not output.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no prompt"),
        ("not json", "not JSON"),
        ('{"question": " "}', "question"),
        ('{"q": 1}', "question"),
    ],
)
def test_unusable_prompt_file(checkpoint, tmp_path, capsys, content, message):
    file = tmp_path / "prompts.jsonl"
    file.write_text(content)
    out = tmp_path / "out.parquet"
    text = run_failing(
        ["rollout", "--model", str(checkpoint), "--prompts", str(file), "--output", str(out), *SHORT], capsys
    )
    assert message in text
    assert not out.exists()


@pytest.mark.parametrize("flag", ["--num-optimizer-steps", "--gradient-accumulation-steps", "--limit"])
def test_counts_of_training_must_be_positive(checkpoint, rolled, tmp_path, capsys, flag):
    output = tmp_path / "run"
    arguments = ["train", "--model", str(checkpoint), "--trajectories", str(rolled), "--output", str(output)]
    assert "not positive" in run_failing([*arguments, "--device", "cpu", flag, "0"], capsys)
    assert not output.exists()


def test_bfloat16_training_moves_the_float32_weights_and_exports_bfloat16(checkpoint, rolled, tmp_path):
    """At learning rate 1e-5 pure bfloat16 weights of 0.3 would not move at all."""
    output = tmp_path / "run"
    arguments = ["train", "--model", str(checkpoint), "--trajectories", str(rolled), "--output", str(output)]
    sizes = ["--num-optimizer-steps", "40", "--batch-size", "4", "--warmup-steps", "1"]
    assert main([*arguments, *sizes, "--device", "cpu", "--dtype", "bfloat16"]) == 0
    student = load_model(output / "student", device="cpu", dtype="bfloat16").model
    assert json.loads((output / "student" / "config.json").read_text())["dtype"] == "bfloat16"
    teacher = load_model(checkpoint, device="cpu", dtype="bfloat16").model
    pairs = zip(student.parameters(), teacher.parameters(), strict=True)
    moved = torch.cat([(ours != theirs).flatten() for ours, theirs in pairs]).double().mean()
    assert moved > 0.1


def test_unknown_split_is_named(checkpoint, tmp_path, capsys):
    arguments = ["eval", "--model", str(checkpoint), "--tasks", "chain", "--output", str(tmp_path / "e")]
    assert "use train" in run_failing([*arguments, "--split", "valid"], capsys)


def test_missing_gold_answer_is_found_before_decoding(checkpoint, tmp_path, capsys, monkeypatch):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"question": "a"}')
    monkeypatch.setattr("t3d.decoding.llm.LLM.decode", lambda *args, **kwargs: pytest.fail("decoded"))
    arguments = ["eval", "--model", str(checkpoint), "--prompts", str(file), "--output", str(tmp_path / "e")]
    assert "no gold answer" in run_failing([*arguments, *SHORT], capsys)


def test_unknown_command_and_version(capsys):
    run_failing(["destil"], capsys)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("t3d ")


def test_env_prints_versions(capsys):
    assert main(["env"]) == 0
    assert "torch" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--max-new-tokens", "5000", "max_new_tokens=5000: request 'prompt' has .* but the model has"),
        ("--batch-size", "0", "batch_size=0: not positive"),
    ],
)
def test_generate_names_what_cannot_be_decoded(checkpoint, capsys, flag, value, message):
    command = ["generate", "--model", str(checkpoint), "--prompt", "hi", "--device", "cpu", flag, value]
    assert re.search(message, run_failing(command, capsys))


def test_a_prompt_that_is_too_long_is_left_out_and_counted_on_request(checkpoint, tmp_path, capsys):
    """Default: an error. The finished file is that of the other prompts alone."""
    rows = [
        {"id": "a", "question": "so?"},
        {"id": "long", "question": "now " * 3000},
        {"id": "b", "question": "7"},
    ]
    prompts, out = tmp_path / "long.jsonl", tmp_path / "out.parquet"
    prompts.write_text("\n".join(json.dumps(row) for row in rows))
    command = ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--output", str(out), *SHORT]
    assert "request 'long' has" in run_failing(command, capsys)
    assert not out.exists()
    assert main([*command, "--on-long-prompt", "skip"]) == 0
    printed = capsys.readouterr().out
    assert "left out of 3 prompts: 1 too long (long)" in printed
    assert "2 trajectories in" in printed
    assert [trajectory.id for trajectory in read_trajectories(out)] == ["a", "b"]
    prompts.write_text(json.dumps(rows[1]))
    other = [*command[: -len(SHORT) - 1], str(tmp_path / "none.parquet"), *SHORT, "--on-long-prompt", "skip"]
    assert "every prompt is too long" in run_failing(other, capsys)


@pytest.mark.parametrize("column", ["prompt_ids.list.element", "response_ids.list.element"])
def test_a_flipped_bit_in_a_finished_chunk_is_named(
    checkpoint, prompts, tmp_path, capsys, monkeypatch, column
):
    out = tmp_path / "out.parquet"
    command = ["rollout", "--model", str(checkpoint), "--prompts", str(prompts), "--output", str(out), *SHORT]
    monkeypatch.setattr(kept, "discard", lambda folder: None)
    assert main([*command, "--chunk-size", "2"]) == 0
    out.unlink()
    chunk = sorted((tmp_path / "out.parquet.chunks").glob("chunk-*.parquet"))[0]
    content = bytearray(chunk.read_bytes())
    columns = pq.read_metadata(chunk).row_group(0)
    places = {found.path_in_schema: found for found in map(columns.column, range(columns.num_columns))}
    end = places[column].dictionary_page_offset or places[column].data_page_offset
    content[end + places[column].total_compressed_size - 3] ^= 4
    chunk.write_bytes(content)
    text = run_failing([*command, "--chunk-size", "2"], capsys)
    assert "damaged" in text and "delete it; the same command then rolls it out again" in text

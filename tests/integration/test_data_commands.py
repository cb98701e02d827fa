"""``t3d data``: trajectories are described, checked and converted; bad input ends on one screen."""

import json
import re
import shlex
from pathlib import Path

import pytest
import tyro
from command_helpers import run_failing
from format_helpers import PROMPT, make, visible_part
from strategies import TOKENIZER

from t3d.cli.main import COMMANDS, main
from t3d.interchange.formats.assemble import DropReason
from t3d.models.loading import load_tokenizer
from t3d.trajectory import read_trajectories, write_trajectories

RECORD = {"prompt": PROMPT, "response": " 7 apples<|im_end|>", "step_map": [1, 2, 2]}


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "good.parquet"
    write_trajectories(path, [make(), make(id="b", task="chain [a]")])
    return path


@pytest.fixture
def model(checkpoint, tmp_path):
    """A checkpoint with the tokenizer of the examples, so that ``im_end`` is one of its stop tokens."""
    stops = list(map(int, TOKENIZER.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])))
    folder = tmp_path / "model"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
    TOKENIZER.save_pretrained(folder)
    return str(folder)


def write_records(path, *records):
    path.write_text(json.dumps(records))
    return str(path)


# --- stats ---------------------------------------------------------------------------------------


def test_stats_print_a_table_and_the_same_as_json(parquet, capsys):
    assert main(["data", "stats", "--trajectories", str(parquet)]) == 0
    table = capsys.readouterr().out
    assert "chain [a]: 1 records" in table
    assert "2 ids, 1 prompts" in table
    assert main(["data", "stats", "--trajectories", str(parquet), "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert (stats["num_records"], stats["num_response_tokens"]) == (2, 10)
    assert stats["tokens_per_step"] == 10 / 8


def test_stats_of_something_else(tmp_path, capsys):
    (tmp_path / "x.parquet").write_text("x")
    text = run_failing(["data", "stats", "--trajectories", str(tmp_path / "x.parquet")], capsys)
    assert "not a readable Parquet file" in text


# --- validate ------------------------------------------------------------------------------------


def test_good_trajectories_are_valid_with_and_without_their_model(parquet, model, capsys):
    assert main(["data", "validate", "--trajectories", str(parquet)]) == 0
    assert "2 records, no problem" in capsys.readouterr().out
    assert main(["data", "validate", "--trajectories", str(parquet), "--model", model]) == 0


def test_validate_lists_the_first_problems_and_counts_all(tmp_path, capsys):
    path = tmp_path / "bad.parquet"
    write_trajectories(path, [make(id=f"r{index}", mask_token_id=-1) for index in range(30)])
    arguments = ["data", "validate", "--trajectories", str(path)]
    assert main(arguments) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "r0: ids: -1 is negative"
    assert len(lines) == 21
    assert lines[-1] == "and 10 more"
    assert "30 problems under 30 ids in 30 records" in run_failing(arguments, capsys)


def test_validate_finds_another_models_trajectories(tmp_path, model, capsys):
    path = tmp_path / "other.parquet"
    write_trajectories(path, [make(mask_token_id=3, tokenizer_hash="0" * 64)])
    assert main(["data", "validate", "--trajectories", str(path)]) == 0
    assert "2 problems" in run_failing(
        ["data", "validate", "--trajectories", str(path), "--model", model], capsys
    )


# --- convert -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"),
    [("authors", "x.json"), ("dllm_rl", "x.json"), ("d3llm", "x.jsonl"), ("d3llm", "folder")],
)
def test_trajectories_go_out_and_come_back(parquet, model, tmp_path, capsys, name, file):
    away, back = str(tmp_path / file), str(tmp_path / "back.parquet")
    common = ["--model", model]
    assert (
        main(["data", "convert", "--input", str(parquet), "--output", away, "--to-format", name, *common])
        == 0
    )
    assert "2 records, 0 dropped" in capsys.readouterr().out
    known = ["--from-format", name, "--block-size", "4", "--task", "math", "--steps-per-block", "2"]
    assert main(["data", "convert", "--input", away, "--output", back, *known, *common, "--strict"]) == 0
    found = read_trajectories(back)
    source = read_trajectories(parquet)
    held = source if name == "d3llm" else [visible_part(one) for one in source]
    assert [(one.id, one.response_ids, one.step_map) for one in found] == [
        (one.id, one.response_ids, one.step_map) for one in held
    ]
    assert {one.task for one in found} == {"math"}
    assert found[0].decode_params == {"steps_per_block": 2}
    assert found[0].tokenizer_hash == load_tokenizer(model).tokenizer_hash
    assert main(["data", "validate", "--trajectories", back, "--model", model]) == 0


def test_drops_are_counted_by_reason_and_strict_makes_them_an_error(model, tmp_path, capsys):
    empty, long = RECORD | {"response": ""}, RECORD | {"step_map": [1, 2, 3, 4]}
    source = write_records(tmp_path / "math.json", RECORD, empty, long, empty)
    output = tmp_path / "out.parquet"
    arguments = ["data", "convert", "--input", source, "--output", str(output), "--model", model]
    arguments += ["--from-format", "dllm_rl", "--block-size", "4"]
    text = run_failing([*arguments, "--strict"], capsys)
    assert "3 records were dropped" in text
    assert not output.exists()
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "4 records, 3 dropped" in printed
    assert "2: the response is empty (math/1, math/3)" in printed
    assert "1: the response has another length than its step map or states (math/2)" in printed
    assert [trajectory.id for trajectory in read_trajectories(output)] == ["math/0"]


def test_nothing_is_written_when_nothing_is_left(model, tmp_path, capsys):
    source = write_records(tmp_path / "x.json", RECORD | {"response": ""})
    output = tmp_path / "out.parquet"
    arguments = ["data", "convert", "--input", source, "--output", str(output), "--model", model]
    text = run_failing([*arguments, "--from-format", "dllm_rl", "--block-size", "4"], capsys)
    assert "every record was dropped" in text
    assert not output.exists()


def test_states_of_token_ids_need_no_model(tmp_path, capsys):
    states = [[1, 2, 9, 6], [1, 2, 5, 6]]
    source = tmp_path / "x.jsonl"
    source.write_text(json.dumps({"prompt_ids": [1, 2], "trajectory": states, "final_output": states[-1]}))
    output = tmp_path / "out.parquet"
    arguments = ["data", "convert", "--input", str(source), "--output", str(output), "--block-size", "2"]
    arguments += ["--from-format", "d3llm"]
    assert "set model, or mask_token_id" in run_failing(arguments, capsys)
    assert main([*arguments, "--mask-token-id", "9", "--stop-token-ids", "6", "7"]) == 0
    (trajectory,) = read_trajectories(output)
    assert (trajectory.step_map, trajectory.finish_reason) == ((2, 1), "stop")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--from-format", "dllm_rl"], "does not record it"),
        (["--from-format", "dllm_rl", "--block-size", "0"], "not positive"),
        (["--from-format", "dllm_rl", "--block-size", "4", "--steps-per-block", "5"], "steps_per_block"),
        (["--from-format", "authors", "--block-size", "4"], "full_output"),
        (["--from-format", "jetengine"], "jetengine"),
        (["--from-format", "authors", "--block-size", "4", "--mask-token-id", "999"], "mask_token_id=999"),
        (["--from-format", "t3d"], "not a readable Parquet file"),
        (["--from-format", "t3d", "--block-size", "4"], "say this themselves"),
    ],
)
def test_wrong_flags_of_convert(model, tmp_path, capsys, flags, message):
    source = write_records(tmp_path / "x.json", RECORD)
    output = tmp_path / "out.parquet"
    arguments = ["data", "convert", "--input", source, "--output", str(output), "--model", model]
    assert message in run_failing([*arguments, *flags], capsys)
    assert not output.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--first-step", "0"], "first_step=0"), (["--mask-token-id", str(2**31)], "mask_token_id=2147483648")],
)
def test_flags_that_states_of_token_ids_cannot_have(tmp_path, capsys, flags, message):
    source, output = tmp_path / "x.jsonl", tmp_path / "out.parquet"
    source.write_text(json.dumps({"prompt_ids": [1], "trajectory": [[1, 5]], "final_output": [1, 5]}))
    arguments = ["data", "convert", "--input", str(source), "--output", str(output), "--block-size", "2"]
    arguments += ["--from-format", "d3llm", "--mask-token-id", "9", "--stop-token-ids", "6"]
    assert message in run_failing([*arguments, *flags], capsys)
    assert not output.exists()


def test_text_formats_ask_for_a_model(parquet, tmp_path, capsys):
    arguments = ["data", "convert", "--input", str(parquet), "--output", str(tmp_path / "x.json")]
    assert "needs a tokenizer" in run_failing([*arguments, "--to-format", "authors"], capsys)


def test_a_folder_is_no_output_file(parquet, tmp_path, capsys):
    arguments = ["data", "convert", "--input", str(parquet), "--output", str(tmp_path)]
    assert "is a folder" in run_failing(arguments, capsys)


# --- documentation -------------------------------------------------------------------------------


def test_no_command_writes_over_what_it_reads(parquet, prompts, capsys):
    read = {path: path.read_bytes() for path in (Path(parquet), prompts)}
    for command in (
        ["data", "solutions", "--prompts", str(prompts), "--model", "mini", "--output", str(prompts)],
        ["data", "prompts", "--source", str(prompts), "--output", str(prompts)],
        ["data", "convert", "--input", str(parquet), "--output", str(parquet)],
    ):
        assert "is a file to read" in run_failing(command, capsys)
    assert {path: path.read_bytes() for path in read} == read


def test_benchmarks_have_no_solutions_to_learn_from(tmp_path, capsys):
    command = ["data", "solutions", "--task", "gsm8k", "--model", "mini", "--output", str(tmp_path / "x")]
    assert "--source gsm8k_train" in run_failing(command, capsys)


def test_every_command_of_the_data_page_parses():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    block = "".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL))
    lines = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    of_data = [line for line in lines if line[1] == "data"]
    assert {tuple(line[1:3]) for line in of_data} == {name for name in COMMANDS if name[0] == "data"}
    for line in of_data:
        tyro.cli(COMMANDS[tuple(line[1:3])], args=line[3:])
    for line in lines:
        if "rollout" in line:
            tyro.cli(COMMANDS["rollout",], args=line[line.index("rollout") + 1 :])


def test_the_data_page_names_every_drop_reason():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert [reason for reason in DropReason if f"| {reason} |" not in text] == []


# --- names of commands ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [["data", "stats"], ["data-stats"]])
def test_commands_of_two_words_have_two_spellings(parquet, capsys, name):
    assert main([*name, "--trajectories", str(parquet)]) == 0


@pytest.mark.parametrize("arguments", [["data"], ["data", "zzz"]])
def test_an_unknown_command_of_two_words_lists_the_known_ones(arguments, capsys):
    assert "data convert" in run_failing(arguments, capsys)


def test_settings_can_come_from_a_config_file(parquet, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(f"trajectories: {parquet}\njson: true\n")
    assert main(["data", "stats", "--config", str(tmp_path / "c.yaml")]) == 0
    assert json.loads(capsys.readouterr().out)["num_records"] == 2

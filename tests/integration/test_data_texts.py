"""``t3d data texts``, and training on what it writes."""

import json

from command_helpers import run_failing

from t3d.cli.main import main
from t3d.trajectory import read_trajectories

CHAT = [{"role": "user", "content": "how many"}, {"role": "assistant", "content": "9"}]


def command(folder, *inputs, **flags):
    named = [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    files = [str(folder / name) for name in inputs]
    return [
        "data",
        "texts",
        "--input",
        *files,
        "--model",
        "mini",
        "--output",
        f"{folder}/out.parquet",
        *named,
    ]


def test_texts_and_chats_become_records_that_a_model_is_trained_on(tmp_path, capsys):
    lines = [{"text": "how many apples are left now? " * 6}, {"messages": CHAT}, {"messages": CHAT * 9}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "b.txt").write_text("so the answer is 9")
    assert main(command(tmp_path, "a.jsonl", "b.txt", max_length=32)) == 0
    records = read_trajectories(tmp_path / "out.parquet")
    said = capsys.readouterr().out
    assert f"{len(records)} records of 4 texts and chats" in said
    num_turns = sum(record.task == "chats" for record in records)
    assert 1 < num_turns < 10 and said.endswith(f", {10 - num_turns} turns of chats left out as too long\n")
    assert {record.task for record in records} == {"texts", "chats"}
    run = [
        "train",
        "--model",
        "mini",
        "--trajectories",
        f"{tmp_path}/out.parquet",
        "--output",
        f"{tmp_path}/run",
    ]
    few = [
        "--num-optimizer-steps",
        "2",
        "--warmup-steps",
        "0",
        "--batch-size",
        "4",
        "--max-length",
        "64",
        "--device",
        "cpu",
    ]
    assert main([*run, "--preset", "sft", *few]) == 0
    assert (tmp_path / "run" / "student" / "config.json").is_file()
    error = run_failing([*run[:-1], f"{tmp_path}/other", "--preset", "t3d", *few], capsys)
    assert "is a solution or text that nobody decoded" in error


def test_what_cannot_be_records_is_one_line_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": CHAT * 9}))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.txt").write_text("so")
    (tmp_path / "mine.parquet").write_text("mine")
    first = command(tmp_path, "a.jsonl", max_length=64)
    for output in ("mine.parquet", "a.jsonl"):
        assert run_failing([*first, "--output", f"{tmp_path}/{output}"], capsys).startswith("error: output=")
    assert (tmp_path / "mine.parquet").read_text() == "mine"
    assert "input=None: names no file" in run_failing([*first[:3], *first[4:]], capsys)
    for flags, problem in (
        ({"max_length": 12}, "fewer tokens than two blocks of 8"),
        ({"max_length": 16, "block_size": 0}, "block_size=0"),
        ({"max_length": 8, "block_size": 4}, "nothing is left of 1 texts"),
        ({"limit": 0}, "limit=0"),
    ):
        assert problem in run_failing(command(tmp_path, "a.jsonl", **flags), capsys)
    assert "two files of one name" in run_failing(command(tmp_path, "a.jsonl", "b/a.txt"), capsys)
    assert "no such file" in run_failing(command(tmp_path, "c.txt"), capsys)
    assert not (tmp_path / "out.parquet").exists()


def test_the_first_texts_are_taken_up_to_the_limit(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": f"{number} apples"}) for number in range(5))
    )
    assert main(command(tmp_path, "a.jsonl", limit=2)) == 0
    assert [one.id for one in read_trajectories(tmp_path / "out.parquet")] == ["a/1.0", "a/2.0"]

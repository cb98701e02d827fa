"""Prompt files of conversations, from the file to the student: the model reads what a chat template makes."""

import json

import pytest
from command_helpers import run_failing

from t3d.cli.main import main
from t3d.models.loading import load_model
from t3d.problems.prompts import chat_ids
from t3d.trajectory import read_trajectories

SHORT = ["--max-new-tokens", "8", "--device", "cpu"]
SYSTEM = {"role": "system", "content": "answer with a number"}
ASKED = {"role": "user", "content": "how many apples are left now?"}
ANSWERED = {"role": "assistant", "content": "1"}
AGAIN = {"role": "user", "content": "so how many apples?"}
CONVERSATIONS = [[SYSTEM, ASKED], [ASKED, ANSWERED, AGAIN], [SYSTEM, ASKED, ANSWERED, AGAIN]]


@pytest.fixture
def chats(tmp_path):
    return write(tmp_path / "chats.jsonl", CONVERSATIONS)


def write(path, conversations):
    rows = [
        {"id": str(number), "messages": messages, "answer": "1"}
        for number, messages in enumerate(conversations)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def prompts_of(checkpoint):
    tokenizer = load_model(checkpoint, device="cpu").tokenizer
    return lambda conversations: [tuple(chat_ids(tokenizer, messages)) for messages in conversations]


def test_a_student_learns_behind_the_conversations_of_the_file(checkpoint, chats, prompts_of, tmp_path):
    """Rollout, training, evaluation and generation; what the model read is told beside its answers."""
    model, output = ["--model", str(checkpoint), *SHORT], tmp_path / "rollout.parquet"
    assert main(["rollout", *model, "--prompts", str(chats), "--output", str(output)]) == 0
    rolled = read_trajectories(output)
    assert [one.prompt_ids for one in rolled] == prompts_of(CONVERSATIONS)
    sizes = ["--num-optimizer-steps", "1", "--batch-size", "2", "--warmup-steps", "0", "--device", "cpu"]
    train = ["train", "--model", str(checkpoint), "--trajectories", str(output), "--output", str(tmp_path)]
    assert main([*train, *sizes]) == 0
    student = ["--model", str(tmp_path / "student"), *SHORT, "--prompts", str(chats)]
    record = tmp_path / "record.jsonl"
    assert main(["generate", *student, "--record", str(record)]) == 0
    told = [json.loads(line) for line in record.read_text().splitlines()]
    assert [tuple(row["prompt_ids"]) for row in told] == prompts_of(CONVERSATIONS)
    assert main(["eval", *student, "--output", str(tmp_path / "eval")]) == 0
    samples = [json.loads(line) for line in (tmp_path / "eval" / "samples.jsonl").read_text().splitlines()]
    for row in (told[1], samples[1]):
        assert row["question"] == (
            "user: how many apples are left now?\n\nassistant: 1\n\nuser: so how many apples?"
        )


def test_a_distillation_rolls_conversations_out(checkpoint, chats, prompts_of, tmp_path):
    sizes = ["--num-rounds", "1", "--num-prompts", "3", "--num-optimizer-steps", "1", "--warmup-steps", "0"]
    command = ["distil", "--model", str(checkpoint), "--prompts", str(chats), "--output", str(tmp_path / "d")]
    assert main([*command, *sizes, "--train-batch-size", "2", *SHORT]) == 0
    rolled = read_trajectories(tmp_path / "d" / "round-1" / "trajectories.parquet")
    assert [one.prompt_ids for one in rolled] == prompts_of(CONVERSATIONS)


def test_what_answers_the_last_question_is_a_solution_behind_all_turns(checkpoint, prompts_of, tmp_path):
    chats = write(tmp_path / "solved.jsonl", [[*messages, ANSWERED] for messages in CONVERSATIONS])
    output = tmp_path / "solutions.parquet"
    flags = ["--prompts", str(chats), "--model", str(checkpoint), "--output", str(output)]
    assert main(["data", "solutions", *flags]) == 0
    assert [one.prompt_ids for one in read_trajectories(output)] == prompts_of(CONVERSATIONS)


def test_another_system_message_is_another_rollout(checkpoint, chats, tmp_path, capsys):
    output = str(tmp_path / "rollout.parquet")
    command = ["rollout", "--model", str(checkpoint), "--prompts", str(chats), "--output", output, *SHORT]
    assert main(command) == 0
    other = [[{**SYSTEM, "content": "say nothing"}, ASKED], *CONVERSATIONS[1:]]
    write(chats, other)
    assert "prompts" in run_failing(command, capsys)

"""Any text, and chats, as training records: for ``t3d train --preset sft`` as continued pretraining."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.interchange.solutions import check_plain, given_trajectory, turn_stop_id
from t3d.models.token_ids import LoadedTokenizer
from t3d.problems.fields import Record, is_text
from t3d.problems.files import read_objects, read_text_file
from t3d.problems.problem import ROLES
from t3d.problems.prompts import chat_ids, said_ids
from t3d.trajectory import Trajectory

KIND = 'a .jsonl file with "text" or "messages" in each line, or a .txt file'


def read_texts(path: str | Path) -> list[tuple[str, Record]]:
    """What a file holds, each with its id, ``NAME/NUMBER``: of ``.jsonl`` every line, of ``.txt`` one text.

    A line has ``text`` or ``messages`` (a list of ``role`` and ``content``); further keys are left alone.
    Raises InputError for another ending, a missing or empty file, what is not UTF-8 or JSON, and a line with
    neither or both.
    """
    path = Path(path)
    if path.suffix not in (".jsonl", ".txt"):
        raise InputError("input", str(path), "neither .jsonl nor .txt", f"give {KIND}")
    if path.suffix == ".txt":
        text = read_text_file(path, "input", KIND)
        rows = [("the file", {"text": text})] if text.strip() else []
    else:
        rows = list(read_objects(path, "input", KIND))
    if not rows:
        raise InputError("input", str(path), "the file holds no text", f"give {KIND}")
    for where, row in rows:
        _check(where, row)
    return [(f"{path.stem}/{number}", row) for number, (_, row) in enumerate(rows, start=1)]


def text_trajectories(
    identity: str, row: Mapping[str, Any], loaded: LoadedTokenizer, block_size: int, max_length: int
) -> list[Trajectory]:
    """Records of one text or chat, of ``max_length`` tokens at most (prompt, answer and last block).

    A text is cut into pieces; of each the first token is given, its own first or the last of the piece
    before, so that all others are learnt. A chat is a record for every turn of the assistant, behind all
    turns before it; turns that are too long are left out. A special token's name is text in both.

    Raises InputError where the tokenizer cannot write such a name as text.
    """
    if "messages" in row:
        records = _turns(identity, row["messages"], loaded, block_size)
        return [one for one in records if len(one.prompt_ids) + len(one.response_ids) <= max_length]
    ids = _plain_ids(row["text"], loaded, "text", identity)
    end = loaded.tokenizer.eos_token_id
    ids.append(end if end in loaded.stop_token_ids else turn_stop_id(loaded))
    size = max_length // block_size * block_size
    starts = range(0, max(1, len(ids) - 1), size - 1)
    pieces = [ids[start : start + size] for start in starts]
    return [
        given_trajectory(
            f"{identity}.{number}", piece[:1], piece[1:], loaded, block_size, task="texts", source="texts"
        )
        for number, piece in enumerate(pieces)
        if len(piece) > 1
    ]


def _turns(
    identity: str, messages: Sequence[Mapping[str, str]], loaded: LoadedTokenizer, block_size: int
) -> Iterator[Trajectory]:
    stop = turn_stop_id(loaded)
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            prompt = chat_ids(loaded.tokenizer, messages[:number])
            answer = [*_plain_ids(message["content"], loaded, "messages", identity), stop]
            yield given_trajectory(
                f"{identity}.{number}", prompt, answer, loaded, block_size, task="chats", source="texts"
            )


def _plain_ids(text: str, loaded: LoadedTokenizer, field: str, where: str) -> list[int]:
    ids = said_ids(loaded.tokenizer, text)
    check_plain(ids, loaded, field, text, where)
    return ids


def _check(where: str, row: Record) -> None:
    if ("text" in row) == ("messages" in row):
        found = "both" if "text" in row else "neither"
        raise InputError("input", where, f'has {found} of "text" and "messages"', "give one of them")
    messages = row.get("messages", [])
    if "text" in row and not (isinstance(row["text"], str) and row["text"] and is_text(row["text"])):
        raise InputError("text", where, "empty, or no text", "give each line a text")
    if not isinstance(messages, list) or not all(map(_is_message, messages)):
        problem = f"not a list of messages with role ({', '.join(ROLES)}) and content (text)"
        raise InputError("messages", where, problem, "write [{'role': 'user', 'content': '...'}, ...]")
    roles = [message["role"] for message in messages]
    if "messages" in row and ("assistant" not in roles or roles[0] == "assistant"):
        problem = "begins with the assistant" if "assistant" in roles else "no turn of the assistant"
        raise InputError("messages", where, problem, "give chats in which the assistant answers")


def _is_message(message: object) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") in ROLES
        and isinstance(message.get("content"), str)
        and is_text(message["content"])
    )

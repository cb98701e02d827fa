"""What the page shows of a response, whichever file it came from."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from t3d.decoding.origins import Origin
from t3d.errors import InputError
from t3d.evaluation.samples import row_of
from t3d.problems.files import read_lines
from t3d.trajectory import Trajectory
from t3d.work.kept import Row

_FIX = "use the file as t3d generate --record wrote it"
_LINE_FIX = "give answers of t3d eval or t3d grade, or responses of t3d generate --record"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A response. Without ``response_ids`` there is only its text, and nothing to play."""

    id: str
    task: str = ""
    question: str | None = None
    answer: str | None = None
    text: str | None = None
    """The visible answer, where the record has it as text."""
    prompt_ids: tuple[int, ...] = ()
    response_ids: tuple[int, ...] = ()
    step_map: tuple[int, ...] = ()
    visible_length: int = 0
    block_size: int = 0
    logprobs: tuple[float, ...] = ()
    origins: tuple[Origin, ...] = ()
    correct: bool | None = None
    extracted: str | None = None
    reason: str | None = None
    finish_reason: str = ""
    num_denoising_steps: int | None = None
    num_forwards: int | None = None
    model: str = ""
    tokenizer_hash: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Responses that stand together: a file, or one setting of an evaluation. No two have one id."""

    name: str
    shown: tuple[Shown, ...]
    num_records: int
    """Of the file, those beyond the limit included."""


def source_of(name: str, shown: Sequence[Shown]) -> Source:
    """Ids that come again are numbered, ``a``, ``a (2)``: nothing that a file has is left out."""
    seen: Counter[str] = Counter()
    named = []
    for one in shown:
        seen[one.id] += 1
        number = seen[one.id]
        named.append(one if number == 1 else replace(one, id=f"{one.id} ({number})"))
    return Source(name=name, shown=tuple(named), num_records=len(named))


def of_trajectory(trajectory: Trajectory) -> Shown:
    """A record of ``t3d rollout``: it has the order of commits, and neither text nor verdict nor forwards."""
    return Shown(
        id=trajectory.id,
        task=trajectory.task,
        prompt_ids=trajectory.prompt_ids,
        response_ids=trajectory.response_ids,
        step_map=trajectory.step_map,
        visible_length=trajectory.visible_length,
        block_size=trajectory.block_size,
        finish_reason=trajectory.finish_reason,
        num_denoising_steps=trajectory.num_denoising_steps,
        model=trajectory.teacher,
        tokenizer_hash=trajectory.tokenizer_hash,
    )


def read_responses(file: Path) -> list[Shown]:
    """Lines of ``t3d generate --record``, or any with an ``id`` and a text as ``response`` or ``output``.

    Raises InputError for a line that is not so.
    """
    lines = read_lines(file, "source", "a JSONL file of responses")
    return [of_row(row_of(line, where, "source"), where) for where, line in lines]


def of_row(row: Row, where: str) -> Shown:
    """A graded answer, or a response with the order of its commits (``response_ids``, ``step_map``)."""
    text = row.get("response", row.get("output"))
    if not isinstance(text, str):
        raise InputError("source", where, "has no text as response or output", _LINE_FIX)
    costs = {name: row[name] for name in ("num_denoising_steps", "num_forwards") if name in row}
    for name, value in costs.items():
        if type(value) is not int or value < 0:
            raise InputError(name, where, "not a count", _FIX)
    correct = row.get("correct")
    if correct is not None and type(correct) is not bool:
        raise InputError("correct", where, "not true or false", "grade the file with t3d grade")
    return Shown(
        id=str(row["id"]),
        task=_text(row.get("task")) or "",
        question=_text(row.get("question")),
        answer=_text(row.get("answer", row.get("reference"))),
        text=text,
        correct=correct,
        extracted=_text(row.get("extracted")),
        reason=_text(row.get("reason")),
        finish_reason=_text(row.get("finish_reason")) or "",
        model=_text(row.get("model")) or "",
        tokenizer_hash=_text(row.get("tokenizer_hash")) or "",
        **costs,
        **(_commits(row, where) if "response_ids" in row else {}),
    )


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _commits(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a response that can be played, checked."""
    count = len(row["response_ids"]) if isinstance(row["response_ids"], list) else 0
    visible, size = row.get("visible_length", count), row.get("block_size", 0)
    for name, holds, problem in (
        ("response_ids", _are_counts(row["response_ids"], 0) and count > 0, "not a list of token ids"),
        ("prompt_ids", _are_counts(row.get("prompt_ids", []), 0), "not a list of token ids"),
        ("step_map", _are_counts(row.get("step_map"), 1, count), f"not {count} steps from 1 on"),
        ("visible_length", type(visible) is int and 0 < visible <= count, f"not in 1..{count}"),
        ("block_size", type(size) is int and size >= 0, "not a count"),
        ("logprobs", _are_numbers(row.get("logprobs", []), count), f"not {count} numbers"),
        ("origins", _are_origins(row.get("origins", []), count), f"not {count} of {get_args(Origin)}"),
    ):
        if not holds:
            raise InputError(name, where, problem, _FIX)
    lists = {name: tuple(row.get(name, ())) for name in ("prompt_ids", "response_ids", "step_map")}
    lists |= {name: tuple(row.get(name, ())) for name in ("logprobs", "origins")}
    return {**lists, "visible_length": visible, "block_size": size}


def _are_counts(values: Any, least: int, count: int | None = None) -> bool:
    is_list = isinstance(values, list) and count in (None, len(values))
    return is_list and all(type(value) is int and least <= value < 2**53 for value in values)


def _are_numbers(values: Any, count: int) -> bool:
    is_list = isinstance(values, list) and len(values) in (0, count)
    return is_list and all(type(value) in (int, float) and math.isfinite(value) for value in values)


def _are_origins(values: Any, count: int) -> bool:
    is_list = isinstance(values, list) and len(values) in (0, count)
    return is_list and all(value in get_args(Origin) for value in values)

"""One task under one decoding setting: decoded, graded, measured.

Every response and verdict is kept as soon as it is there (:class:`~t3d.work.kept.KeptLines`), so that a
measurement that was cut repeats nothing.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t3d.decoding.completion import Completion, DecodeRequest
from t3d.decoding.params import DecodeParams
from t3d.evaluation.cost import decoding_cost, keep_rows
from t3d.evaluation.intervals import wilson_interval
from t3d.evaluation.samples import ERROR, failed_row, sample_row
from t3d.grading.verdict import OTHER_RULES
from t3d.problems.problem import Problem
from t3d.tasks.task import Task, verdicts_of
from t3d.work.kept import KeptLines, Row

Asked = tuple[Problem, DecodeRequest]
"""A problem and one request for an answer to it."""
Decode = Callable[[Sequence[DecodeRequest], Callable[[Completion], None]], object]
"""Answers requests, and calls back with each answer when it is finished."""
LATE = ("time limit", "timeout")
"""Reasons of verdicts on answers that took too long to grade."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One task under one decoding setting."""

    task: str
    params: DecodeParams
    samples: tuple[Row, ...]
    """Rows of ``samples.jsonl``, in the order of the requests."""
    problem_ids: tuple[str, ...]
    """Of each sample; answers to one problem share it."""
    cost: Mapping[str, float]
    batch1_seconds: tuple[float, ...]
    """Seconds of each response that was decoded alone."""

    @property
    def num_correct(self) -> int:
        """Right responses."""
        return sum(sample["correct"] for sample in self.samples)

    @property
    def num_errors(self) -> int:
        """Responses that are missing since decoding failed."""
        return sum(sample["finish_reason"] == ERROR for sample in self.samples)

    def summary(self) -> dict[str, Any]:
        """The numbers, JSON-ready; accuracies in percent.

        ``verdicts``: a character per response, ``1`` for right. ``distinct_answers_per_prompt``: mean number
        of different responses to one prompt. ``num_errors``: responses missing since decoding failed;
        they count as wrong, and no cost counts them. ``latency``: seconds of wall time per response, all
        decoded together; ``batch1_latency``: of those decoded alone.
        """
        num_prompts, num_errors = len(set(self.problem_ids)), self.num_errors
        pairs = zip(self.problem_ids, self.samples, strict=True)
        distinct = {(name, s["response"]) for name, s in pairs if s["finish_reason"] != ERROR}
        alone = self.batch1_seconds
        return {
            "task": self.task,
            **summarise(self.samples, num_prompts),
            "num_errors": num_errors,
            "verdicts": "".join("01"[sample["correct"]] for sample in self.samples),
            "distinct_answers_per_prompt": len(distinct) / len({name for name, _ in distinct}),
            **self.cost,
            "latency": self.cost["seconds"] / (len(self.samples) - num_errors),
            "finish_reasons": dict(Counter(sample["finish_reason"] for sample in self.samples).most_common()),
            "decode_params": self.params.record(),
            **(
                {
                    "batch1_latency": {
                        "n": len(alone),
                        "mean": statistics.fmean(alone),
                        "median": statistics.median(alone),
                    }
                }
                if alone
                else {}
            ),
        }


def endings(finish_reasons: Mapping[str, int]) -> str:
    """How responses ended, by the count of each reason: what commands say of a rollout or an evaluation."""
    num_stopped, num_cut = finish_reasons.get("stop", 0), finish_reasons.get("length", 0)
    return f"{num_stopped} ended with a stop token, {num_cut} hit the length limit (max_new_tokens)"


def summarise(rows: Sequence[Mapping[str, Any]], num_prompts: int) -> dict[str, Any]:
    """Accuracy of graded rows (percent), its 95 % interval, verdicts by other rules, counts of reasons.

    The interval counts prompts: several answers to one are not independent.
    """
    count, num_correct = len(rows), sum(row["correct"] for row in rows)
    low, high = wilson_interval(num_correct / count * num_prompts, num_prompts)
    reasons = Counter(row["reason"] for row in rows)
    return {
        "accuracy": 100 * num_correct / count,
        "ci95": [100 * low, 100 * high],
        "n": count,
        "num_correct": num_correct,
        "num_prompts": num_prompts,
        **{rule: 100 * sum(row[rule] for row in rows) / count for rule in OTHER_RULES if rule in rows[0]},
        "reasons": dict(reasons.most_common()),
        "num_timeouts": sum(reasons[name] for name in LATE),
        "num_unparsed": reasons["unparsed"],
    }


def measure(
    task: Task,
    asked: Sequence[Asked],
    params: DecodeParams,
    decode: Decode,
    lines: KeptLines,
    **how: Any,
) -> Measurement:
    """Decode and grade what ``lines`` do not have yet, as :func:`answer` does, and sum up."""
    answer(task, asked, decode, lines, **how)
    return summed_up(task, asked, params, lines)


def summed_up(
    task: Task,
    asked: Sequence[Asked],
    params: DecodeParams,
    lines: KeptLines,
    failed: Collection[str] = (),
) -> Measurement:
    """What graded answers come to. At least one of the requests must not have ``failed``."""
    rows = [lines.rows[request.id] for _, request in asked if request.id not in failed]
    return Measurement(
        task=task.name,
        params=params,
        samples=_samples(task.name, asked, rows, failed),
        problem_ids=tuple(problem.id for problem, _ in asked),
        cost=decoding_cost(rows),
        batch1_seconds=tuple(row["batch1_seconds"] for row in rows if "batch1_seconds" in row),
    )


def answer(
    task: Task,
    asked: Sequence[Asked],
    decode: Decode,
    lines: KeptLines,
    *,
    chunk_size: int | None = None,
    num_alone: int = 0,
    on_response: Callable[[int], object] = lambda _: None,
    failed: Callable[[], Collection[str]] = tuple,
    again: Collection[str] = (),
) -> None:
    """Decode what ``lines`` do not have yet, and grade what is not graded.

    ``num_alone`` problems are decoded once more, one by one, for their seconds. ``on_response`` is told how
    many responses have come, kept ones at once. With ``chunk_size`` requests are decoded in chunks of that
    many, of which a cut one is decoded again as a whole: where rounding depends on what is decoded beside a
    response, the cut then leaves no trace.

    ``failed`` says which requests have failed up to now, with those of earlier runs; ``decode`` fails by
    adding to them. They are not decoded, but for those that are to be tried ``again``.
    """
    size = len(asked) if chunk_size is None else chunk_size
    for first in range(0, len(asked), size):
        part = [request for _, request in asked[first : first + size]]
        missing = _missing(part, lines, chunk_size is not None, failed(), again)
        on_response(len(part) - len(missing))
        waiting = {request.id for request in missing}

        def keep(row: Row, waiting: set[str] = waiting) -> None:
            lines.append(row)
            on_response(int(row["id"] in waiting))  # what is decoded again is told again
            waiting.discard(row["id"])

        decode(missing, keep_rows(keep))
        on_response(len(waiting))
    without = failed()
    answered = [(problem, request.id) for problem, request in asked if request.id not in without]
    grade_lines(task, answered, lines)
    _decode_alone(asked, without, decode, lines, num_alone, on_response)


def _missing(
    part: Sequence[DecodeRequest],
    lines: KeptLines,
    as_a_whole: bool,
    failed: Collection[str],
    again: Collection[str],
) -> list[DecodeRequest]:
    """Requests of a chunk that are to be decoded."""
    left = [request for request in part if request.id in again or request.id not in failed]
    missing = [request for request in left if request.id in again or request.id not in lines.rows]
    is_cut = any(request.id not in again for request in missing)
    return left if as_a_whole and is_cut else missing


def _samples(
    task: str, asked: Sequence[Asked], rows: Sequence[Row], failed: Collection[str]
) -> tuple[Row, ...]:
    """A line for every request; ``rows`` are those of the answered ones, in order."""
    rules = [rule for rule in OTHER_RULES if rows and rule in rows[0]]
    answers = iter(rows)
    return tuple(
        failed_row(task, problem, request.id, rules)
        if request.id in failed
        else sample_row(task, problem, next(answers))
        for problem, request in asked
    )


def grade_lines(
    task: Task,
    responses: Sequence[tuple[Problem, str]],
    lines: KeptLines,
    *,
    num_threads: int | None = None,
    on_verdict: Callable[[], object] = lambda: None,
) -> None:
    """Grade the responses that have no verdict yet, named by the ids of their lines; keep each verdict."""
    ungraded = [(problem, name) for problem, name in responses if "correct" not in lines.rows[name]]
    texts = [(problem, lines.rows[name]["response"]) for problem, name in ungraded]
    for (_, name), verdict in zip(ungraded, verdicts_of(task, texts, num_threads), strict=True):
        lines.append({"id": name, **verdict.row()})
        on_verdict()


def _decode_alone(
    asked: Sequence[Asked],
    failed: Collection[str],
    decode: Decode,
    lines: KeptLines,
    count: int,
    on_response: Callable[[int], object],
) -> None:
    """Decode the first answer to each of the first problems once more, by itself, and keep its seconds.

    Without those that have failed.
    """
    firsts: dict[str, DecodeRequest] = {}
    for problem, request in asked:
        firsts.setdefault(problem.id, request)
    for request in list(firsts.values())[:count]:
        if request.id not in failed and "batch1_seconds" not in lines.rows[request.id]:
            started = time.perf_counter()
            decode([request], lambda _: None)
            lines.append({"id": request.id, "batch1_seconds": time.perf_counter() - started})
        on_response(1)

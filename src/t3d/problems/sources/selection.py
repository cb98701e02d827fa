"""Which problems of the sources become prompts, in which order, and the file that holds them."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from t3d.counter_rng import counter_hash, stable_key
from t3d.errors import InputError, require_positive, require_unique_ids
from t3d.problems.problem import Problem
from t3d.problems.prompt_file import MESSAGES, PROMPT_FIELDS
from t3d.problems.sources.registry import SourceData
from t3d.problems.sources.rows import DroppedProblem
from t3d.work.files import write_text
from t3d.work.plan import file_sha256


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """How problems are chosen."""

    limits: tuple[int, ...] | None = None
    """At most this many problems of each source: one number for all, or one per source."""
    seed: int | None = None
    """Draw and shuffle with this seed; None keeps the first, source after source, in the files' order."""
    max_solution_tokens: int | None = None
    """Drop problems whose solution is longer; those without a solution stay."""

    def __post_init__(self) -> None:
        require_positive(self, "max_solution_tokens")
        for limit in self.limits or ():
            if limit < 1:
                raise InputError("limit", limit, "not positive", "use 1 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """The chosen problems, and per source what became of its rows."""

    problems: tuple[Problem, ...]
    counts: tuple[dict[str, Any], ...]


def same_question(question: str) -> str:
    """Equal for questions that differ in white space and case only."""
    return " ".join(question.split()).casefold()


def select_problems(
    sources: Sequence[SourceData],
    config: SelectionConfig,
    *,
    test_questions: Collection[str] = (),
    count_tokens: Callable[[str], int] | None = None,
) -> Selected:
    """Drop what repeats a benchmark's or an earlier question or is too long, then draw and order the rest.

    A problem's place in the order depends on the seed and its id alone, so that another source or a smaller
    limit does not change which of the others are drawn first. Raises InputError for limits that do not fit
    the sources, an id used twice, or if nothing is left.
    """
    limits = _limits(config.limits, len(sources))
    tests = {same_question(question) for question in test_questions}
    seen: set[str] = set()
    chosen: list[Problem] = []
    counts = []
    for source, limit in zip(sources, limits, strict=True):
        dropped, kept = Counter(source.dropped), []
        for problem in source.problems:
            reason = _reason(problem, config, tests, seen, count_tokens)
            if reason is None:
                kept.append(problem)
                seen.add(same_question(problem.conversation))
            else:
                dropped[reason] += 1
        drawn = _ordered(kept, config.seed)[:limit]
        chosen += drawn
        counts.append(_count(source, dropped, num_fit=len(kept), num_kept=len(drawn)))
    if not chosen:
        reasons = ", ".join(f"{n} {reason}" for one in counts for reason, n in one["dropped"].items())
        names = ", ".join(source.name for source in sources)
        raise InputError("source", names, f"no problem is left ({reasons or 'nothing read'})", "see the data")
    require_unique_ids((problem.id for problem in chosen), "problems")
    return Selected(problems=tuple(_ordered(chosen, config.seed)), counts=tuple(counts))


def _limits(limits: tuple[int, ...] | None, num_sources: int) -> Sequence[int | None]:
    if not limits:
        return [None] * num_sources
    if len(limits) not in (1, num_sources):
        problem = f"{len(limits)} limits for {num_sources} sources"
        raise InputError("limit", limits, problem, "give one number for all, or one per source")
    return limits if len(limits) == num_sources else limits * num_sources


def _reason(
    problem: Problem,
    config: SelectionConfig,
    tests: Collection[str],
    seen: Collection[str],
    count_tokens: Callable[[str], int] | None,
) -> DroppedProblem | None:
    asked = [problem.question, *(text for role, text in problem.turns if role == "user")]
    if any(same_question(question) in tests for question in asked):
        return DroppedProblem.TEST_QUESTION
    if same_question(problem.conversation) in seen:
        return DroppedProblem.DUPLICATE
    if config.max_solution_tokens is None or problem.solution is None:
        return None
    if count_tokens is None:
        problem_text = "solutions are counted in tokens of a tokenizer"
        raise InputError("tokenizer", None, problem_text, "give the checkpoint that will learn them")
    if count_tokens(problem.solution) > config.max_solution_tokens:
        return DroppedProblem.TOO_LONG
    return None


def _ordered(problems: Sequence[Problem], seed: int | None) -> list[Problem]:
    if seed is None or not problems:
        return list(problems)
    keys = counter_hash(seed, torch.tensor([stable_key(problem.id) for problem in problems])).tolist()
    ranked = sorted(zip(keys, problems, strict=True), key=lambda pair: (pair[0], pair[1].id))
    return [problem for _, problem in ranked]


def _count(
    source: SourceData, dropped: Counter[DroppedProblem], *, num_fit: int, num_kept: int
) -> dict[str, Any]:
    return {
        "source": source.name,
        "revision": source.revision,
        "num_files": source.num_files,
        "sha256": source.sha256,
        "num_read": source.num_read,
        "num_kept": num_kept,
        "num_over_limit": num_fit - num_kept,
        "dropped": {reason.value: count for reason, count in dropped.most_common()},
    }


def write_prompt_file(path: str | Path, problems: Sequence[Problem]) -> str:
    """Write what :func:`t3d.problems.prompt_file.read_prompt_file` reads; returns the file's SHA-256.

    The file is ASCII, so that no character in a text can be taken for the end of a line.
    """
    lines = []
    for problem in problems:
        fields = {name: getattr(problem, name) for name in PROMPT_FIELDS}
        if problem.turns:
            said = [*problem.turns, ("user", fields.pop("question"))]
            if (solution := fields.pop("solution")) is not None:
                said.append(("assistant", solution))
            fields[MESSAGES] = [{"role": role, "content": text} for role, text in said]
        lines.append(json.dumps({name: value for name, value in fields.items() if value is not None}) + "\n")
    write_text(path, "".join(lines))
    return file_sha256(Path(path))

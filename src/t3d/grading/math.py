"""Answers to math problems: whether what a response holds in its box equals the gold answer.

Equality is decided by math-verify, or by a reproduction of the released code (``legacy``), in worker
processes that are killed when they are late, or by the texts (``exact``).
"""

import queue
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from t3d.errors import InputError, require_above_zero, require_positive
from t3d.grading.boxed import last_answer, last_opened_box, last_opened_box_verbatim
from t3d.grading.math_text import aligned, contradict, plain
from t3d.grading.math_worker import TIME_LIMIT_S, GraderName, MathReason, MathWorker, usable_cores
from t3d.grading.verdict import Verdict

MAX_ANSWER_LENGTH = 2000
"""Longer answers are not read at all; the longest gold answer of MATH has about 160 characters."""
INSTALL = "python -m pip install 't3d[eval]'"
TEXT_RULES = 2
"""Counts changes of :mod:`t3d.grading.math_text` and of the box's rule, so that results tell them apart."""
_PACKAGES: dict[GraderName, tuple[str, ...]] = {
    "math_verify": ("math-verify", "latex2sympy2_extended", "sympy", "antlr4-python3-runtime"),
    "legacy": ("sympy", "antlr4-python3-runtime"),
    "exact": (),
}
"""What decides, by grader."""
LEGACY_RUNTIME = "4.11"
"""The version of antlr4-python3-runtime for which sympy's LaTeX parser was made."""

_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


def gsm8k_gold(answer: str) -> str:
    """The number after the last ``####`` of a solution, or the whole text, without thousands separators."""
    return answer.rpartition("####")[2].strip().replace(",", "")


def strict_match(text: str) -> str | None:
    """lm-eval's ``strict-match`` of GSM8K: the first number that follows ``#### ``."""
    found = _STRICT.search(text)
    return None if found is None else found[1]


def flexible_extract(text: str) -> str | None:
    """lm-eval's ``flexible-extract`` of GSM8K: the last number of the text."""
    found = None
    for found in _FLEXIBLE.finditer(text):  # noqa: B007 - only the last one counts
        pass
    return None if found is None else found.group()


def exact_match(extracted: str | None, gold: str) -> bool:
    """lm-eval's comparison for GSM8K: equal texts without commas, dollars and a final full stop."""
    return extracted is not None and _exact_form(extracted) == _exact_form(gold)


def _exact_form(text: str) -> str:
    text = re.sub(r"(?s)^.*#### ", "", re.sub(r"[,$]", "", text))
    return re.sub(r"\.$", "", text).lower()


class MathGrader:
    """Compares boxed answers with gold answers. Threads may share it; its workers start when needed.

    ``math_verify`` compares the last box by value. ``legacy`` is the released code's grader, but its
    time limit is per answer. ``exact`` compares texts. Raises InputError if the grader's packages are not
    there.
    """

    def __init__(
        self,
        name: GraderName = "math_verify",
        *,
        time_limit_s: float = TIME_LIMIT_S,
        num_workers: int | None = None,
    ) -> None:
        self.versions = grader_versions(name)
        self.name, self.time_limit_s = name, time_limit_s
        self.num_workers = min(4, usable_cores()) if num_workers is None else num_workers
        require_above_zero(self, "time_limit_s")
        require_positive(self, "num_workers")
        self.workers = [MathWorker(name, time_limit_s=time_limit_s) for _ in range(self.num_workers)]
        self._idle: queue.LifoQueue[MathWorker] = queue.LifoQueue()
        for worker in self.workers:
            self._idle.put(worker)

    def extract(self, response: str) -> str | None:
        """The answer in a response, or None: where this grader looks for it."""
        rules = {"legacy": last_opened_box_verbatim, "exact": last_opened_box}
        return rules.get(self.name, last_answer)(response)

    def grade(self, response: str, gold: str) -> Verdict:
        """Extract the answer from a response and compare it."""
        extracted = self.extract(response)
        reason = "no answer" if extracted is None else self._compare(extracted, gold)
        return Verdict(correct=reason == "equal", extracted=extracted, reason=reason, grader=self.name)

    def settings(self) -> dict[str, Any]:
        """What verdicts depend on, JSON-ready."""
        if self.name == "exact":
            return {"name": self.name}
        settings = {"name": self.name, "time_limit_s": self.time_limit_s, "versions": self.versions}
        return settings | ({"texts": TEXT_RULES} if self.name == "math_verify" else {})

    def close(self) -> None:
        """End all workers; the next comparison starts them again."""
        for worker in self.workers:
            worker.close()

    def _compare(self, answer: str, gold: str) -> MathReason:
        if self.name == "exact":
            return "equal" if answer == gold.strip() else "different"
        if len(answer) > MAX_ANSWER_LENGTH:
            return "unparsed"
        if self.name == "math_verify":
            answer, gold = plain(answer), plain(gold)
            if contradict(answer, gold):
                return "different"
            answer, gold = aligned(answer, gold)
        worker = self._idle.get()  # waits for one
        try:
            return worker.compare(answer, gold)
        finally:
            self._idle.put(worker)


def grader_versions(name: GraderName) -> dict[str, str]:
    """Versions of the packages that decide. Raises InputError if one is missing or does not fit."""
    packages = _PACKAGES[name]
    versions: dict[str, str] = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError as error:
            fix = f"{INSTALL}, or compare texts: --grader exact"
            raise InputError("grader", name, f"needs {package}, which is not installed", fix) from error
    found = versions.get("antlr4-python3-runtime", "")
    if name == "legacy" and not found.startswith(f"{LEGACY_RUNTIME}."):
        # With another version sympy refuses to parse, and the released code silently compares texts only.
        problem = f"sympy's parse_latex needs antlr4-python3-runtime {LEGACY_RUNTIME}, found {found}"
        fix = f"python -m pip install 'antlr4-python3-runtime=={LEGACY_RUNTIME}.*'"
        raise InputError("grader", name, problem, fix)
    return versions

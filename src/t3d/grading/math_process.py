"""The process in which :mod:`t3d.grading.math_worker` compares answers. Run by path, never imported.

Standard library and the graders' own dependencies only, so that it starts in a second. Arguments: the grader,
the CPU seconds that one comparison may use, and the bytes of memory. It writes ``ready`` once it has loaded
the grader; then each line of standard input is a request ``{"answer", "gold"}`` and gets one line back, the
reason. All lines are JSON but the first.
"""

import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DECIMALS = 12
"""Decimals, and digits, to which numbers are compared: 0.3333333 is not a third."""
Compare = Callable[[str, str], str]
"""The reason of a verdict on (answer, gold): ``equal``, ``different`` or ``unparsed``."""


def main() -> None:
    """Answer requests until standard input ends."""
    grader, cpu_seconds, max_memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    _close_standard_streams()
    try:
        compare = _legacy() if grader == "legacy" else _math_verify()
    except ImportError as error:
        replies.write(f"cannot start: {error}\n".encode())
        return
    _limit_memory(max_memory)
    replies.write(b"ready\n")
    replies.flush()
    for line in requests:
        request = json.loads(line)
        _allow_cpu_seconds(cpu_seconds)
        reason = compare(request["answer"], request["gold"])
        replies.write(json.dumps(reason).encode() + b"\n")
        replies.flush()


def _math_verify() -> Compare:
    """Compare by math-verify, as LaTeX; its own time limits need signals and stay off."""
    import logging  # noqa: PLC0415

    from math_verify import LatexExtractionConfig, parse, verify  # noqa: PLC0415

    logging.disable(logging.CRITICAL)
    extraction = [LatexExtractionConfig()]

    def compare(answer: str, gold: str) -> str:
        expected, found = (parse(f"${text}$", extraction, parsing_timeout=0) for text in (gold, answer))
        # The order matters to math-verify: an answer may say more than the gold answer, such as x = 5 for 5.
        is_equal = verify(expected, found, timeout_seconds=0, float_rounding=DECIMALS)
        if answer == gold or (is_equal and not _is_other_number(expected[0], found[0])):
            return "equal"
        is_read = all(any(not isinstance(item, str) for item in items) for items in (expected, found))
        return "different" if is_read else "unparsed"

    compare("1", "1")
    return compare


def _is_other_number(one: Any, other: Any) -> bool:
    """Whether both are numbers and differ: to math-verify what is below 1e-15 is 0.

    Where one of them is a single number, it compares exactly.
    """
    from sympy import Expr, Number, simplify  # noqa: PLC0415

    if one == other or not all(
        isinstance(item, Expr) and not isinstance(item, Number) for item in (one, other)
    ):
        return False
    values = [item.doit().evalf(2 * DECIMALS) for item in (one, other)]
    if not all(value.is_number and value.is_finite for value in values):
        return False
    size = max(abs(value) for value in values)
    return abs(values[0] - values[1]) > size / 10**DECIMALS and simplify(one - other).is_zero is not True


def _legacy() -> Compare:
    """Compare as the released code does."""
    file = Path(__file__).with_name("legacy_math.py")
    spec = importlib.util.spec_from_file_location("legacy_math", file)
    assert spec is not None and spec.loader is not None
    legacy_math = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(legacy_math)
    if not legacy_math.latex_equal("\\frac{2}{4}", "\\frac{1}{2}"):
        raise ImportError("sympy's parse_latex does not work here")
    return lambda answer, gold: "equal" if legacy_math.legacy_equal(answer, gold) else "different"


def _close_standard_streams() -> None:
    """Point descriptors 0, 1 and 2 at the null device: parsers complain there about what they cannot read."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _limit_memory(max_memory: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = max_memory if hard == resource.RLIM_INFINITY else min(max_memory, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except ValueError:  # macOS refuses values below what is mapped already
        return


def _allow_cpu_seconds(seconds: int) -> None:
    """End this process if it uses that much CPU time from now on: for when the parent is no longer there."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, hard))


if __name__ == "__main__":
    main()

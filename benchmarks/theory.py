"""Search random instances for violations of the paper's Section 4, and draw docs/theory.md's figures.

python benchmarks/theory.py [--output docs/results/theory]

Writes ``searches.json`` and five pictures; a minute of CPU time. Everything is seeded.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import theory_figures
import torch

from t3d.theory.searches import (
    ORDERS,
    Count,
    search_bound,
    search_decoded_students,
    search_families,
    search_families_of_two,
    search_optimality,
)
from t3d.work.files import atomic_file

FEW, MANY = 60, 2000


Search = Callable[[], Count | tuple[Count, float]]


def searches() -> list[tuple[dict[str, Any], Search]]:
    """What each search looks for, and the search; each has its own seed 0."""
    found: list[tuple[dict[str, Any], Search]] = []
    for order in ORDERS:
        for direction in ("forward", "reverse"):
            for shares in (True, False):
                search = partial(search_optimality, order, direction, shares_marginal=shares, number=FEW)
                names = {"order": order, "direction": direction, "assumption_4_2": shares}
                found.append(({"statement": "Proposition 4.3", **names}, search))
    for family, search in (
        ("log-convex, with the product", partial(search_families, number=MANY // 5)),
        ("the product and one other", partial(search_families_of_two, number=MANY)),
    ):
        found.append(({"statement": "Theorem 4.5", "family": family}, search))
    for teacher in ("random", "low_confidence_static"):
        for student in ("random", "low_confidence_static"):
            for tokens in (1, 2):
                search = partial(search_decoded_students, teacher, student, tokens, number=FEW)
                names = {"teacher": teacher, "student": student, "tokens_per_step": tokens}
                found.append(({"statement": "Theorem 4.5, decoded", **names}, search))
    for is_teachers in (True, False):
        states = "teacher" if is_teachers else "reference"
        search = partial(search_bound, is_on_teacher_states=is_teachers, number=MANY)
        found.append(({"statement": "Eq. 23", "states": states}, search))
    return found


def row(names: dict[str, Any], search: Search) -> dict[str, Any]:
    """One line of searches.json, printed as it is found."""
    match search():
        case (Count() as count, mean):
            line = {**names, "mean": mean, **asdict(count)}
        case count:
            line = {**names, **asdict(count)}
    print(json.dumps(line), flush=True)
    return line


def main() -> None:
    """Search, draw, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/results/theory"))
    folder = parser.parse_args().output
    torch.set_num_threads(1)
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps([row(*one) for one in searches()], indent=1) + "\n"
    with atomic_file(folder / "searches.json") as partial:
        partial.write_text(text, encoding="utf-8")
    theory_figures.draw_all(folder)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()

"""Search random instances for violations of the paper's Section 4, and draw docs/theory.md's figures.

python benchmarks/theory.py [--output docs/results/theory]

Writes ``searches.json`` and five pictures; a minute of CPU time. Everything is seeded.
"""

import argparse
import json
import time
from dataclasses import asdict
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


def row(statement: str, found: Count, **more: Any) -> dict[str, Any]:
    """One line of searches.json, printed as it is found."""
    line = {"statement": statement, **more, **asdict(found)}
    print(json.dumps(line), flush=True)
    return line


def searches() -> list[dict[str, Any]]:
    """All searches, each with its own seed 0."""
    rows = []
    for order in ORDERS:
        for direction in ("forward", "reverse"):
            for shares in (True, False):
                found = search_optimality(order, direction, shares_marginal=shares, number=FEW)
                rows.append(
                    row("Proposition 4.3", found, order=order, direction=direction, assumption_4_2=shares)
                )
    rows.append(row("Theorem 4.5", search_families(number=MANY // 5), family="log-convex, with the product"))
    rows.append(row("Theorem 4.5", search_families_of_two(number=MANY), family="the product and one other"))
    for teacher in ("random", "low_confidence_static"):
        for student in ("random", "low_confidence_static"):
            for tokens in (1, 2):
                found, mean = search_decoded_students(teacher, student, tokens, number=FEW)
                names = {"teacher": teacher, "student": student, "tokens_per_step": tokens}
                rows.append(row("Theorem 4.5, decoded", found, **names, mean=mean))
    for is_teachers in (True, False):
        found = search_bound(is_on_teacher_states=is_teachers, number=MANY)
        rows.append(row("Eq. 23", found, states="teacher" if is_teachers else "reference"))
    return rows


def main() -> None:
    """Search, draw, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/results/theory"))
    folder = parser.parse_args().output
    torch.set_num_threads(1)
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(searches(), indent=1) + "\n"
    with atomic_file(folder / "searches.json") as partial:
        partial.write_text(text, encoding="utf-8")
    theory_figures.draw_all(folder)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()

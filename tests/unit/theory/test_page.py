"""docs/theory.md: whatever it says points to a test that exists, and what it takes from elsewhere is so."""

import ast
import json
import re
from itertools import pairwise
from pathlib import Path
from statistics import mean

import pytest

HERE = Path(__file__).parent
DOCS = HERE.parents[2] / "docs"
PAGE = (DOCS / "theory.md").read_text(encoding="utf-8")
READING = "*A reading"
NEEDS_NO_TEST = ("#", ">", "![")
"""What begins a heading, a quote of the paper (or its statement), and a picture."""


NAMED = r"(Eq\.|Theorem|Prop\.|Proposition|Def\.|Section|Assumption|Lemma|arXiv) ?[\dB.v-]+|`[^`]*`"
"""What has a number as its name."""
DECIMAL = r"(?<![\w.])\d*\.\d+"


def defined() -> dict[str, str]:
    """The source of every test of the theory, with its parameters."""
    return {
        node.name: "\n".join(ast.unparse(part) for part in (*node.decorator_list, node))
        for text in (file.read_text(encoding="utf-8") for file in HERE.glob("test_*.py"))
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def claims(page: str) -> list[str]:
    """Paragraphs, items and tables, a table with what introduces it; no code, and no section of readings."""
    without_code = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    sections = re.split(r"^(?=## )", without_code, flags=re.MULTILINE)
    kept = "".join(section for section in sections if not section.startswith("## A reading"))
    blocks = [block.strip() for block in re.split(r"\n\n|\n(?=- )", kept) if block.strip()]
    found = []
    for before, block in pairwise(["", *blocks]):
        is_introduced = block.startswith("|") and before.endswith(":")
        if is_introduced:
            found[-1] += block
        elif not block.startswith(NEEDS_NO_TEST):
            found.append(block)
    return found


def named_in(claim: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", claim))


def test_whatever_the_page_says_points_to_a_test():
    found = claims(PAGE)
    assert len(found) > 40
    for claim in found:
        told, _, _ = claim.partition(READING)
        assert named_in(told), claim
    assert set().union(*map(named_in, found)) <= defined().keys()


def test_every_decimal_of_the_page_stands_in_a_test_that_its_claim_names():
    """Rounded as the page has it; where all tests of a claim read the page, they compare them themselves."""
    sources = defined()
    for claim in claims(PAGE):
        of_claim = [sources[name] for name in named_in(claim)]
        if not all("PAGE" in source for source in of_claim):
            known = [float(found) for source in of_claim for found in re.findall(rf"{DECIMAL}|\b\d+", source)]
            for told in re.findall(DECIMAL, re.sub(NAMED, "", claim)):
                _, _, digits = told.partition(".")
                assert float(told) in [round(number, len(digits)) for number in known], (told, claim)


@pytest.mark.parametrize(
    "line",
    [
        "- Rounds always converge.",
        "Rounds always converge.",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "As measured:\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        "- *A reading:* rounds converge.",
    ],
)
def test_a_new_claim_without_a_test_is_found(line):
    for place in ("## What few steps lose", "## Measured on networks"):
        head, heading, tail = PAGE.partition(place)
        (new,) = set(claims(f"{head}{heading}\n\n{line}{tail}")) - set(claims(PAGE))
        assert not named_in(new)


def test_in_short_leads_to_the_headings():
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    }
    (table,) = (claim for claim in claims(PAGE) if "| statement | found |" in claim)
    _, _, rows = table.partition("---|---|\n")
    assert len(rows.splitlines()) > 10
    for row in rows.splitlines():
        (anchor,) = re.findall(r"^\| \[[^]]+\]\(#([^)]+)\)", row)
        assert anchor in headings


def test_the_pictures_are_those_that_are_drawn():
    drawn = (HERE.parents[2] / "benchmarks" / "theory_figures.py").read_text(encoding="utf-8")
    names = re.findall(r"^def (\w+)\(path: Path\)", drawn, flags=re.MULTILINE)
    shown = re.findall(r"\]\(results/theory/(\w+)\.png\)", PAGE)
    assert sorted(shown) == sorted(names) and len(names) == 5
    assert all((DOCS / "results" / "theory" / f"{name}.png").is_file() for name in names)


def accuracy(name: str) -> float:
    """Of a committed cell of the tables' regime at four tokens per step in blocks of 8."""
    (path,) = (DOCS / "results" / "studies").glob(f"mini.{name}.json")
    rows = json.loads(path.read_text())["results"]
    return 100 * mean(row["num_correct"] / row["n"] for row in rows if row["setting"] == "B8-T4")


def test_students_with_argmax_fakes_are_below_those_without():
    argmax, cross_entropy = accuracy("ddo.seed0.grid.*"), accuracy("naive_td.seed0.grid.cc2d399c149de87f")
    others = [
        accuracy(f"ddo-{name}.seed0.grid.*")
        for name in ("fake_source-sample", "fake_source-expectation-log_ratio-state_sum", "ddo_alpha-0.0")
    ]
    assert argmax < min(others) and max(others) < cross_entropy
    told = (
        f"DDO has {argmax:.1f} % at four tokens per step, with sampled, exact or no fakes {min(others):.1f}"
    )
    told += f" to {max(others):.1f}, cross-entropy {cross_entropy:.1f}"
    assert told in " ".join(PAGE.split())

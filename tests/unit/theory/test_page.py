"""docs/theory.md: every claim names a test that exists."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")


def test_every_item_of_the_page_points_to_a_test_that_exists():
    defined = {
        name
        for file in HERE.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    items = re.findall(r"^- .*?(?=^- |^$|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    named = [set(re.findall(r"`(test_\w+)`", item)) for item in items]
    assert len(items) > 25 and all(named)
    assert set().union(*named) <= defined

"""The studies of the repository: every cell is there, and pages have the tables that these cells make."""

from pathlib import Path

import pytest

from t3d.reproduce.study import read_study
from t3d.reproduce.study_report import write_study
from t3d.reproduce.study_run import StudyRun

ROOT = Path(__file__).parents[2]
CELLS = ROOT / "docs" / "results" / "studies"
PAGES = {"regimes": "regimes.md", "t3d-plus": "t3d-plus.md"}


@pytest.mark.slow  # some seconds each: problems of three seeds are drawn again, to pair prompts
@pytest.mark.parametrize("name", PAGES)
def test_the_page_of_a_study_has_the_tables_that_its_cells_make(name, tmp_path):
    run = StudyRun(read_study(ROOT / "recipes" / "studies" / f"{name}.yaml"), tmp_path, CELLS)
    assert run.missing() == []
    tables, _ = write_study(run, "")
    text = tables.read_text()
    page = (ROOT / "docs" / "results" / PAGES[name]).read_text()
    assert text[text.index("## ") :] in page


def test_every_study_can_be_read():
    found = sorted((ROOT / "recipes" / "studies").glob("*.yaml"))
    assert [path.stem for path in found] == sorted(PAGES)
    for path in found:
        assert read_study(path).groups

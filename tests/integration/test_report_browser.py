"""report.html in headless Chromium: content, both themes, hostile text, contrast, phone."""

from typing import Any

import pytest
from browser_helpers import DESKTOP, PHONE, Open, assert_readable, keep
from report_helpers import entry, write_demo_like, write_evaluation
from viewer_helpers import TITLES, graded, write_lines

from t3d.report.html.page import write_report

pytestmark = pytest.mark.slow


@pytest.fixture
def show(open_page, tmp_path) -> Open:
    """Writes the report of a run and opens it."""

    def opened(run: Any, **how: Any) -> Any:
        return open_page(write_report(run).as_uri(), **how)

    return opened


def test_a_report_shows_plots_tables_curves_answers_and_settings(show, tmp_path):
    tab = show(write_demo_like(tmp_path / "demo"))
    assert tab.title() == "demo · t3d report" and tab.inner_text("h1") == "demo"
    headings = tab.locator("h2").all_inner_texts()
    shown = ["Accuracy and cost", "Tables", "Training", "Answers", "Configuration", "Environment of student"]
    assert headings == shown
    assert tab.locator("figure svg[role=img]").count() == 2 + 2 * 5
    assert (
        tab.locator("svg[role=img] .mark title")
        .first.text_content()
        .startswith("teacher, blocks of 4, B4-T1")
    )
    boxes = [tab.locator("svg[role=img]").nth(place).bounding_box() for place in range(12)]
    assert all(box["width"] > 300 and box["height"] > 150 for box in boxes)
    assert not tab.is_visible("text=task by task >> nth=0 >> xpath=../.. >> table")
    tab.click("summary >> nth=0")
    assert tab.is_visible("details[open] table")
    tab.click("summary:has-text('wrong') >> nth=0")
    assert tab.inner_text("details[open] .text >> nth=1") == "so 7"


def test_labels_of_points_lie_inside_the_drawing_and_apart(show, tmp_path):
    tab = show(write_demo_like(tmp_path))
    boxes = tab.eval_on_selector_all(
        "body > figure:first-of-type .label", "all => all.map((one) => one.getBoundingClientRect().toJSON())"
    )
    frame = tab.locator("svg[role=img]").first.bounding_box()
    assert len(boxes) == 4
    for number, box in enumerate(boxes):
        assert frame["x"] <= box["left"] and box["right"] <= frame["x"] + frame["width"]
        for other in boxes[:number]:
            assert (
                min(box["right"], other["right"]) - max(box["left"], other["left"]) < 2
                or min(box["bottom"], other["bottom"]) - max(box["top"], other["top"]) < 4
            )


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_aa_in_both_themes(show, tmp_path, size, scheme):
    tab = show(write_demo_like(tmp_path), size=size, scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    back = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert_readable(tab)
    other = "dark" if scheme == "light" else "light"
    tab.check(f"#{other}")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != back
    assert_readable(tab)
    keep(tab, f"report-{size[0]}-{other}")


@pytest.mark.parametrize("text", [*TITLES, "</style><svg onload=alert(1)>"], ids=range(len(TITLES) + 1))
def test_hostile_text_is_shown_as_it_is(show, tmp_path, text):
    rows = [graded(text, correct=False, question=text, answer=text, response=text, reason=text, task=text)]
    run = write_evaluation(tmp_path, entry(text, text), rows=rows, config={"model": text, text: text})
    write_lines(tmp_path / "student.log.jsonl", {"step": 1, f"loss/{text}": 1.0})
    tab = show(run)
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    shown = text.replace("\ud800", "\ufffd")
    assert set(tab.locator(".sample .text").all_text_contents()) == {shown}
    assert tab.locator("td.name").all_text_contents().count(shown) >= 2
    assert tab.locator("script").count() == 0 and tab.locator("svg[onload]").count() == 0
    assert_readable(tab)


def test_a_megabyte_of_text_is_clipped_and_nothing_runs_over(show, tmp_path):
    rows = [graded("a", correct=True, response="x" * 1_000_000)]
    tab = show(write_evaluation(tmp_path, entry(), rows=rows), size=PHONE)
    tab.click("summary >> nth=0")
    assert tab.inner_text(".sample .text >> nth=1").endswith("… (998,500 more characters)")
    assert_readable(tab)

"""What tests of pages in headless Chromium share; the fixtures are in integration/conftest.py.

Such tests are skipped without Playwright or Chromium; where T3D_BROWSER is set, as in continuous integration,
they fail.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    expect = sync_playwright = None

DESKTOP, PHONE = (1280, 800), (390, 844)
PATIENCE_MS = 120_000.0
"""Playwright's 5 and 30 seconds are too few where other work has the cores."""
Open = Callable[..., Any]

CONTRASTS = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const linear = [r, g, b].map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const has = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const seen = [...document.body.querySelectorAll("*")].filter((element) => has(element)
    && !element.matches("script, .masked, option, :disabled") && element.getClientRects().length);
  return seen.map((element) => {
    const style = getComputedStyle(element);
    const text = parse(element.ownerSVGElement ? style.fill : style.color);
    const pair = [text, behind(element)].map(light).sort((a, b) => b - a);
    return [(pair[0] + 0.05) / (pair[1] + 0.05), `${element.tagName}.${element.getAttribute("class")}`];
  });
}"""
"""The contrast of every text that is seen, with its element; WCAG 2.2."""


def missing(reason: str) -> None:
    """Skip, or fail where a browser is promised."""
    if os.environ.get("T3D_BROWSER"):
        pytest.fail(f"T3D_BROWSER is set, but {reason}; .ci/run leaves these tests out by T3D_NO_BROWSER=1")
    pytest.skip(reason)


def started_browser() -> Iterator[Any]:
    """The system's Chromium, without a window."""
    if sync_playwright is None:
        missing("Playwright is not installed (pip install playwright)")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        missing("there is no Chromium (apt-get install chromium)")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # As root, and in a container with little shared memory, it needs these two.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        started = playwright.chromium.launch(executable_path=program, args=options)
        yield started
        started.close()


def page_opener(browser: Any, allowed: tuple[str, ...] = ("file:", "data:")) -> Iterator[Open]:
    """Opens an address; whatever a page logs, throws or asks for beyond ``allowed`` fails the test."""
    faults: list[str] = []
    contexts = []

    def opened(address: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Any:
        width, height = size
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(PATIENCE_MS)
        tab.on("console", lambda message: faults.append(message.text))
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
        tab.on("request", lambda asked: None if asked.url.startswith(allowed) else faults.append(asked.url))
        tab.goto(address)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def keep(tab: Any, name: str) -> None:
    """A picture to look at, where T3D_SCREENSHOTS names a folder."""
    folder = os.environ.get("T3D_SCREENSHOTS")
    if folder:
        tab.screenshot(path=Path(folder) / f"{name}.png")


def assert_readable(tab: Any) -> None:
    """Every text has the contrast of AA, and nothing runs over the right edge."""
    found = tab.evaluate(CONTRASTS)
    assert found
    assert [one for one in found if one[0] < 4.5] == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")

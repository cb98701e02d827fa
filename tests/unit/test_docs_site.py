"""The site has a page for every room, the help of every command, and links between pages of the site."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import t3d
from t3d.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site():
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "scripts" / "docs_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pages(dict):
    """In the place of mkdocs' files: what is looked up by its place in the site."""

    def get_file_from_path(self, path):
        return self.get(path)


def linked(site, uri, text, *pages):
    page = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
    return site.on_page_markdown(text, page, {}, Pages.fromkeys(pages, True))


def test_every_command_is_there_with_all_of_its_help(site):
    text = site.commands_page()
    titles = re.findall(r"^## t3d (.+)$", text, flags=re.MULTILINE)
    assert titles == [" ".join(name) for name in COMMANDS]
    parts = dict(zip(titles, re.split(r"^## .+$", text, flags=re.MULTILINE)[1:], strict=True))
    for title, part in parts.items():
        assert title == "lm-eval" or f"usage: t3d {title} [-h]" in part
    assert "--tokens-per-step" in parts["eval"] and "--output STR" in parts["rollout"]
    assert "\x1b" not in text


def test_every_room_has_a_page_in_the_navigation(site):
    config = SimpleNamespace(nav=[{"Start": ["index.md"]}, {"Reference": []}])
    (_, reference) = site.on_config(config).nav
    listed = {name for entry in reference["Reference"] for name in entry}
    folders = {path.parent.name for path in (ROOT / "src" / "t3d").glob("*/__init__.py")}
    assert folders | {"trajectory", "errors", "Python"} <= listed
    assert "::: t3d.decoding\n" in site.room_page("decoding")


def test_every_name_that_t3d_offers_leads_to_its_definition(site):
    assert {name for name in t3d.__all__ if f"[`{name}`][t3d." in site.python_page()} == set(t3d.__all__)


def test_links_out_of_the_documents_lead_to_pages_of_the_site(site):
    assert linked(site, "checkpoint.md", "[a](../README.md#ten-seconds)") == "[a](index.md#ten-seconds)"
    text = "[a](docs/results/tables.md) ![b](docs/results/demo.png)"
    pages = ("results/tables.md", "results/demo.png")
    assert linked(site, "index.md", text, *pages) == "[a](results/tables.md) ![b](results/demo.png)"
    deep = "recipes/smollm2_drafter/README.md"
    assert linked(site, "results/smollm2.md", f"[a](../../{deep})") == f"[a](../{deep})"


def test_links_to_files_that_are_no_pages_keep_their_text(site):
    assert (
        linked(site, "results/tables.md", "in [cells/](cells) and [plots](tables).") == "in cells/ and plots."
    )
    assert linked(site, "index.md", "[Notice](NOTICE)") == "Notice"


def test_links_that_lead_nowhere_are_left_for_mkdocs_to_name(site):
    assert linked(site, "checkpoint.md", "[a](nowhere.md)") == "[a](nowhere.md)"


def test_the_navigation_names_every_document():
    text = (ROOT / "mkdocs.yml").read_text()
    documents = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {
        name for name in documents if not re.search(rf"[ :]{re.escape(name)}$", text, re.MULTILINE)
    } == set()

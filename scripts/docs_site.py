"""Pages of the documentation's site that are made and not written; mkdocs calls the ``on_...`` functions.

Files outside of docs/ (the README is the first page), the help of every command, the docstrings of all rooms.
Their links lead to pages of the site; a link to another file of the repository keeps its text alone.
"""

import ast
import contextlib
import io
import os
import posixpath
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import t3d
from t3d.cli.arguments import parsed
from t3d.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "AGENTS.md": "AGENTS.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "recipes/smollm2_drafter/README.md": "recipes/smollm2_drafter/README.md",
    "recipes/smollm2_t3d/README.md": "recipes/smollm2_t3d/README.md",
}
"""Files outside of docs/ that are pages: where they lie in the repository, and in the site."""
_HELP_WIDTH = "100"
_LINK = re.compile(
    r"(?P<before>!?\[[^\]]*\])\((?P<target>(?!https?:|mailto:|#)[^)#\s]+)(?P<anchor>#[^)\s]*)?\)"
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of the rooms to the section Reference."""
    sections = [section for item in config.nav or [] for name, section in item.items() if name == "Reference"]
    (reference,) = sections
    reference += [{"Python": "reference/python.md"}, *({name: _room_page(name)} for name in rooms())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    pages = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in OUTSIDE.items()}
    pages["reference/commands.md"] = commands_page()
    pages["reference/python.md"] = python_page()
    pages |= {_room_page(name): room_page(name) for name in rooms()}
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    del config
    uri = page.file.src_uri
    of_outside = {name: source for source, name in OUTSIDE.items()}
    source = of_outside.get(uri, f"docs/{uri}")
    return _LINK.sub(partial(_linked, source, uri, files), markdown)


def _linked(source: str, uri: str, files: Files, link: re.Match[str]) -> str:
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["target"]))
    if not (ROOT / target).exists():
        return link[0]  # mkdocs names it
    there = OUTSIDE.get(target, target.removeprefix("docs/"))
    if target not in OUTSIDE and (target == there or files.get_file_from_path(there) is None):
        return link["before"].strip("![]")
    way = posixpath.relpath(there, posixpath.dirname(uri) or ".")
    return f"{link['before']}({way}{link['anchor'] or ''})"


def rooms() -> dict[str, Path]:
    """Packages and modules of t3d by name, each with the file of its docstring."""
    source = ROOT / "src" / "t3d"
    found = {path.parent.name: path for path in source.glob("*/__init__.py")}
    found |= {path.stem: path for path in source.glob("*.py") if not path.stem.startswith("__")}
    return dict(sorted(found.items()))


def _room_page(name: str) -> str:
    return f"reference/modules/{name}.md"


def room_page(name: str) -> str:
    """All modules of a room, which mkdocstrings reads."""
    return f"# {name}\n\n::: t3d.{name}\n"


def python_page() -> str:
    """The names that ``import t3d`` offers, and the rooms."""
    names = sorted((name, module) for module, names in t3d._MODULES.items() for name in names)
    lines = [f"| [`{name}`][t3d.{module}.{name}] | `t3d.{module}` |" for name, module in names]
    told = [f"| [{name}](modules/{name}.md) | {_first_line(path)} |" for name, path in rooms().items()]
    return "\n".join(
        [
            "# Python\n",
            "`import t3d` is quick and imports nothing else; these names are imported when they are used:\n",
            "| name | defined in |\n|---|---|",
            *lines,
            "\nThe rest is imported from its module:\n",
            "| module | what it is |\n|---|---|",
            *told,
            "",
        ]
    )


def _first_line(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0].replace("``", "`")


def commands_page() -> str:
    """``t3d COMMAND --help`` of every command, as the parser prints it."""
    parts = ["# Commands\n", "What `t3d COMMAND --help` prints, of the code that this site was built from.\n"]
    for name, text in helps():
        parts.append(f"## t3d {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def helps() -> Iterator[tuple[str, str]]:
    """Every command with its help; of lm-eval, whose flags are another program's, the first line alone."""
    for name, command in COMMANDS.items():
        words = " ".join(name)
        if words == "lm-eval":
            yield words, (command.__doc__ or "").strip()
        else:
            yield words, _help(partial(parsed, command, f"t3d {words}", ["--help"], {}))


def _help(parse: Any) -> str:
    printed, width = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _HELP_WIDTH
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            parse()
    finally:
        os.environ.pop("COLUMNS")
        if width is not None:
            os.environ["COLUMNS"] = width
    return printed.getvalue().strip()

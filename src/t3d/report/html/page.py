"""The report of a run as one HTML file: no script, no network, and every text of the run escaped."""

import base64
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from t3d.report.html.chart import legend, svg
from t3d.report.html.content import Chart, Content, Sample, Table
from t3d.report.html.escaped import escaped, isolated
from t3d.report.html.name import BEGINNING, NAME, check_report
from t3d.report.html.run import content_of
from t3d.report.html.shorten import LEFT_OUT, MOST_BYTES, Part, clipped, without
from t3d.work.files import write_text

_FOLDER = Path(__file__).parent
_logger = logging.getLogger(__name__)
_COSTS_NOTE = "Whiskers are 95 % intervals of the accuracy; costs are of one run."
_SAMPLES_NOTE = "The first right and the first wrong one of each setting; t3d view shows all."


def write_report(folder: Path, path: Path | None = None) -> Path:
    """Write the report of a run, by default into its folder; one that says the same stays as it is.

    Raises InputError for a folder without results, for damaged ones, and where nothing can be written.
    """
    path = folder / NAME if path is None else path
    check_report(path)
    text = report_page(content_of(folder))
    if not (path.is_file() and path.read_bytes() == text.encode()):
        write_text(path, text)
    return path


def add_report(folder: Path) -> None:
    """The same at the end of a command, whose results are there: what hinders the report is only said."""
    try:
        write_report(folder)
    # Of everything: the folder may hold anybody's files, and no fault in them, or in drawing them, may take
    # the exit status 0 from work of hours that is done. t3d report ends with the same error.
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        _logger.warning("no %s is written: %s: %s", NAME, type(error).__name__, first)


def report_page(content: Content) -> str:
    """The whole page, of at most ``MOST_BYTES``: a note says where something is left out for that."""
    parts = list(_parts(content))
    text = _page(content, parts)
    num_bytes = len(text.encode())
    if num_bytes <= MOST_BYTES:
        return text
    content = replace(content, notes=[*content.notes, LEFT_OUT])
    excess = num_bytes + len("".join(_notes([LEFT_OUT])).encode()) - MOST_BYTES
    return _page(content, without(parts, excess))


def _parts(content: Content) -> Iterator[Part]:
    """Each drawn once, however many of them the page then has room for."""
    for chart in content.charts:
        yield Part("charts", _figure(chart))
    for table in content.tables:
        yield Part("folded" if table.is_folded else "tables", _table(table))
    for name, charts in content.training:
        kind = "pair" if charts[0].is_small else "single"
        drawn = f'<div class="{kind}">{"".join(map(_figure, charts))}</div>'
        yield Part("training", f"<h3>{isolated(name)}</h3>{drawn}")
    for sample in content.samples:
        yield Part("samples", _sample(sample))
    if content.config:
        yield Part("config", _settings(content.config))
    if content.environment:
        yield Part("environment", _settings(content.environment))


def _page(content: Content, parts: Sequence[Part]) -> str:
    style = (_FOLDER.parent / "colours.css").read_text("utf-8") + (_FOLDER / "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    title = escaped(content.title)
    return f"""{BEGINNING}<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title} · t3d report</title>
<style>{style}</style>
</head>
<body>
<header><h1 dir="auto">{title}</h1>{_themes()}</header>
{"".join(_body(content, parts))}
</body>
</html>
"""


def _theme(name: str) -> str:
    chosen = " checked" if name == "system" else ""
    return f'<label><input type="radio" name="theme" id="{name}"{chosen}>{name}</label>'


def _themes() -> str:
    """Chosen by the style alone."""
    choices = "".join(map(_theme, ("system", "light", "dark")))
    return f'<fieldset aria-label="colours">{choices}</fieldset>'


def _body(content: Content, parts: Sequence[Part]) -> Iterator[str]:
    if content.finding:
        yield f'<p class="finding">{escaped(clipped(content.finding))}</p>'
    if content.facts:
        facts = "".join(
            f"<div><dt>{escaped(name)}</dt><dd>{isolated(clipped(value))}</dd></div>"
            for name, value in content.facts
        )
        yield f'<dl class="facts">{facts}</dl>'
    yield from _notes(content.notes)
    for kinds, name, title in (
        (("charts",), "accuracy", "Accuracy and cost"),
        (("tables", "folded"), "tables", "Tables"),
        (("training",), "training", "Training"),
        (("samples",), "samples", "Answers"),
        (("config",), "configuration", f"Configuration{_of(content.config_of)}"),
        (("environment",), "environment", f"Environment{_of(content.environment_of)}"),
    ):
        found = [part.html for part in parts if part.kind in kinds]
        if found:
            yield f'<h2 id="{name}">{title}</h2>'
            yield from _notes([_SAMPLES_NOTE] if name == "samples" else [])
            yield from found
            yield from _notes([_COSTS_NOTE] if name == "accuracy" else [])


def _of(name: str) -> str:
    return f" of {isolated(clipped(name))}" if name else ""


def _notes(notes: Sequence[str]) -> Iterator[str]:
    return (f'<p class="note">{escaped(note)}</p>' for note in notes)


def _figure(chart: Chart) -> str:
    caption = f"<figcaption>{escaped(chart.title)}</figcaption>"
    reached = f'tabindex="0" role="group" aria-label="{escaped(chart.title)}"'  # to scroll it by keys
    drawing = f'<div class="drawing" {reached}>{svg(chart)}</div>'
    return f"<figure>{caption}{drawing}{legend(chart.lines)}</figure>"


def _table(table: Table) -> str:
    def row(texts: Sequence[str], tag: str) -> str:
        kinds = [' class="name"' if place < table.num_names else "" for place in range(len(texts))]
        cells = (f"<{tag}{kind}>{isolated(text)}</{tag}>" for kind, text in zip(kinds, texts, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    title = isolated(table.title)
    head, body = row(table.header, "th"), "".join(row(texts, "td") for texts in table.rows)
    note = f'<p class="note">{escaped(table.note)}</p>' if table.note else ""
    drawn = f'<div class="wide" tabindex="0" role="group" aria-label="{escaped(table.title)}">'
    drawn += f"<table><thead>{head}</thead><tbody>{body}</tbody></table></div>{note}"
    return (
        f"<details><summary>{title}</summary>{drawn}</details>"
        if table.is_folded
        else f"<h3>{title}</h3>{drawn}"
    )


def _sample(sample: Sample) -> str:
    kind, said = ("right", "✓ right") if sample.is_right else ("wrong", "✗ wrong")
    head = f'<span class="badge {kind}">{said}</span> {isolated(sample.source)} · {isolated(sample.id)}'
    parts = [("Question", sample.question), ("Answer", sample.response), ("Reference", sample.reference)]
    parts = [
        f'<h4>{name}</h4><div class="text" dir="auto">{escaped(clipped(text))}</div>' for name, text in parts
    ]
    reason = f'<p class="reason">verdict: {isolated(sample.reason)}</p>'
    return f'<details><summary>{head}</summary><div class="sample">{"".join(parts)}{reason}</div></details>'


def _settings(found: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td class="name">{isolated(str(name))}</td><td>{isolated(clipped(_said(value)))}</td></tr>'
        for name, value in found.items()
    )
    return f'<div class="wide"><table class="settings"><tbody>{rows}</tbody></table></div>'


def _said(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_said(one)}" for name, one in value.items())
    return ", ".join(map(_said, value)) if isinstance(value, list) else str(value)

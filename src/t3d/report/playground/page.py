"""The playground as one text; it speaks to its own server alone, and brings all else with it."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path

_FOLDER = Path(__file__).parent


def playground_page(model_names: Sequence[str]) -> str:
    """The whole page, of a server that calls its models so; an answer of each stands beside the others."""
    style = (_FOLDER.parent / "colours.css").read_text("utf-8") + (_FOLDER / "playground.css").read_text(
        "utf-8"
    )
    script = (_FOLDER / "playground.js").read_text("utf-8")
    policy = "default-src 'none'; img-src data:; connect-src 'self'; form-action 'none'; base-uri 'none'"
    policy += f"; style-src {_hash(style)}; script-src {_hash(script)}"
    parts = {"policy": policy, "style": style, "script": script}
    parts |= {"models": escape(" · ".join(model_names)), "panes": _panes(model_names)}
    parts["budgets"] = "".join(_budget(name, len(model_names) > 1) for name in model_names)
    page = (_FOLDER / "playground.html").read_text("utf-8")
    before, *pieces = page.split("{{")  # in one pass: no text is taken for a place to fill
    filled = [parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces)]
    return before + "".join(filled)


def _budget(name: str, is_one_of_several: bool) -> str:
    """The field of a model's tokens per step: a student has fewer steps than its teacher."""
    whose = f" of {escape(name)}" if is_one_of_several else ""
    field = '<input class="budget" type="number" min="1" placeholder="own">'
    return f'<label><span dir="auto">tokens per step{whose}</span> {field}</label>'


def _panes(names: Sequence[str]) -> str:
    """Where the script puts the answer of each model."""
    is_one = len(names) == 1  # which the page's heading names
    level = "h2" if is_one else "h3"
    return "".join(
        f"""<section class="pane" data-model="{escape(name)}">
{"" if is_one else f'<h2 dir="auto">{escape(name)}</h2>'}
<p class="status" role="status"></p>
<div class="tokens text" dir="auto"></div>
<{level}>Answer</{level}>
<div class="answer text" dir="auto"></div>
</section>
"""
        for name in names
    )


def _hash(text: str) -> str:
    """As a content security policy names a script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""The playground as one text; it speaks to its own server alone, and brings all else with it."""

import base64
import hashlib
from html import escape
from pathlib import Path

_FOLDER = Path(__file__).parent


def playground_page(model_name: str) -> str:
    """The whole page, of a server that calls its model so."""
    style = (_FOLDER.parent / "colours.css").read_text("utf-8") + (_FOLDER / "playground.css").read_text(
        "utf-8"
    )
    script = (_FOLDER / "playground.js").read_text("utf-8")
    policy = "default-src 'none'; img-src data:; connect-src 'self'; form-action 'none'; base-uri 'none'"
    policy += f"; style-src {_hash(style)}; script-src {_hash(script)}"
    parts = {"policy": policy, "style": style, "script": script, "model": escape(model_name)}
    page = (_FOLDER / "playground.html").read_text("utf-8")
    before, *pieces = page.split("{{")  # in one pass: no text is taken for a place to fill
    filled = [parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces)]
    return before + "".join(filled)


def _hash(text: str) -> str:
    """As a content security policy names a script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

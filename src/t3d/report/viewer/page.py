"""The page as one text: the files beside this one, and the data as JSON that no text can end."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t3d.problems.prompts import token_text
from t3d.report.viewer.name import BEGINNING
from t3d.report.viewer.shown import Shown, Source
from t3d.report.viewer.token_texts import Tokenizers, TokenTable

"""Of every page, by which an older one is known."""
_FOLDER = Path(__file__).parent
SCRIPTS = ("model.js", "pane.js", "list.js", "viewer.js", "controls.js")
"""Put together in this order."""
_MARKS = {"accepted": "a", "correction": "c", "bonus": "b", "undrafted": "u", "drawn": "d"}


def page(data: dict[str, Any]) -> str:
    """The whole page. It asks for nothing: its policy allows its own script and style, and no address."""
    style = _read("../colours.css") + _read("viewer.css")
    script = '"use strict";\n' + "".join(_read(name) for name in SCRIPTS)
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        "style": style,
        "script": script,
        "data": embedded(data),
    }
    # In one pass, so that a text of the data is never taken for a place to fill.
    return BEGINNING + re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))


def embedded(data: Any) -> str:
    r"""JSON in ASCII without ``<``, so that neither ``</script>`` nor ``<!--`` can be in it."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def page_data(
    sources: Sequence[Source], tokenizers: Tokenizers, *, right: int | None = None, title: str
) -> dict[str, Any]:
    """What the page shows, JSON-ready: a table of tokens, and sources, of which the first stands on the left.

    ``right``: the number of the source that stands beside it, if any.
    """
    table = TokenTable()
    told = [_source_data(source, tokenizers, table) for source in sources]
    tokens = {"texts": table.texts, "ids": table.ids}
    notes = list(dict.fromkeys(tokenizers.notes))
    return {"title": title, "tokens": tokens, "sources": told, "right": right, "notes": notes}


def _source_data(source: Source, tokenizers: Tokenizers, table: TokenTable) -> dict[str, Any]:
    records = [_record(one, tokenizers, table) for one in source.shown]
    return {"name": source.name, "total": source.num_records, "records": records}


def _record(one: Shown, tokenizers: Tokenizers, table: TokenTable) -> dict[str, Any]:
    """Without what it does not have; the names are those of viewer.js."""
    found: dict[str, Any] = {
        "id": one.id,
        "task": one.task or None,
        "question": one.question,
        "answer": one.answer,
        "text": one.text,
        "correct": one.correct,
        "extracted": one.extracted,
        "reason": one.reason,
        "finish": one.finish_reason or None,
        "steps": one.num_denoising_steps,
        "forwards": one.num_forwards,
    }
    if one.response_ids:
        tokenizer = tokenizers.of(one)
        if one.question is None:
            found["prompt"] = _prompt(tokenizer, one.prompt_ids)
        found |= {
            "row": table.row(tokenizer, one.response_ids),
            "map": one.step_map,
            "visible": one.visible_length,
            "block": one.block_size or None,
            "offset": len(one.prompt_ids) % one.block_size if one.block_size else None,
            "logprobs": [round(value, 4) for value in one.logprobs] or None,
            "origins": "".join(_MARKS[origin] for origin in one.origins) or None,
        }
        if tokenizer is not None:
            found["text"] = None  # the tokens are the text
    return {name: value for name, value in found.items() if value is not None}


def _prompt(tokenizer: Any, ids: Sequence[int]) -> str | None:
    if not ids:
        return None
    if tokenizer is None:
        return " ".join(map(str, ids))
    return token_text(tokenizer, ids, skip_special_tokens=False)


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names a script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

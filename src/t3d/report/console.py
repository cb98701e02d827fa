"""What commands print."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from t3d.decoding.completion import Completion
from t3d.decoding.origins import Origin, origins
from t3d.problems.prompts import token_text

_STEP_COLOURS = ("red", "dark_orange", "yellow", "green", "cyan", "blue", "magenta", "bright_black")
_MARKS: dict[Origin, str] = {"accepted": "=", "correction": "x", "bonus": "+", "undrafted": "o", "drawn": "x"}


COLUMNS_TEXT = (
    "TokPS, TPF: tokens per denoising step, per forward; tok/s: visible tokens by wall time; s: wall time by "
    "responses; steps, length: mean of a response; end %: ended by a stop token"
)
"""What the columns of an evaluation mean."""


def accuracy_text(accuracy: float, interval: Sequence[float]) -> str:
    """``73.2 [69.2, 76.9]``, percent."""
    return f"{accuracy:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"


def _errors_text(count: int) -> str:
    """Responses that are missing, which count as wrong."""
    return f", {count} error{'s' * (count > 1)}" if count else ""


RESULT_NAMES = ("task", "setting")
RESULT_NUMBERS = ("accuracy % [95 %]", "TokPS", "TPF", "tok/s", "s", "steps", "length", "end %")
"""Columns of an evaluation."""


def results_rows(entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Header, and a row per task and setting, from the entries of ``results.json``."""
    rows = [[*RESULT_NAMES, *RESULT_NUMBERS]]
    for entry in entries:
        rows.append(
            [
                entry["task"],
                entry["setting"],
                accuracy_text(entry["accuracy"], entry["ci95"]) + _errors_text(entry.get("num_errors", 0)),
                f"{entry['tokens_per_step']:.2f}",
                f"{entry['tokens_per_forward']:.2f}",
                f"{entry['tokens_per_second']:.0f}",
                f"{entry['latency']:.3g}",
                f"{entry['mean_denoising_steps']:.1f}",
                f"{entry['mean_length']:.1f}",
                f"{100 * entry['stopped']:.0f}",
            ]
        )
    return rows


def results_table(entries: Sequence[Mapping[str, Any]], title: str) -> Table:
    """The same on a terminal; about 80 columns wide."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for name in RESULT_NAMES:
        table.add_column(name)
    for name in RESULT_NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in results_rows(entries)[1:]:
        table.add_row(*row)
    table.caption, table.caption_justify = COLUMNS_TEXT, "left"
    return table


def coloured_steps(tokenizer: PreTrainedTokenizerBase, completion: Completion, width: int = 80) -> Text:
    """The visible response in rows of at most ``width`` columns, with the steps in a row of their own below.

    The denoising step that committed a token stands under its first character, in the same colour; with
    ``self_speculative``, in a third row, the mark of how it came (:func:`draft_legend`). Tokens are set apart
    where a step has as many digits as its token has columns; a line break is shown as ``↵``.
    """
    marks = [_MARKS[origin] for origin in origins(completion)] if _drafts(completion) else None
    groups: list[list[Text]] = []
    is_full = True
    for place, (token, number) in enumerate(zip(completion.visible_ids, completion.step_map, strict=False)):
        colour = _STEP_COLOURS[(number - 1) % len(_STEP_COLOURS)]
        text = token_text(tokenizer, [token], skip_special_tokens=False).replace("\n", "↵")
        below = [str(number)] if marks is None else [str(number), marks[place]]
        indent = " " * (len(text) - len(text.lstrip()))
        columns = max(cell_len(text), len(indent) + len(below[0]) + 1)
        if is_full or groups[-1][0].cell_len + columns > width:
            groups.append([Text() for _ in (text, *below)])
        parts = [(text, colour), *((indent + mark, f"dim {colour}") for mark in below)]
        for line, (part, style) in zip(groups[-1], parts, strict=True):
            line.append(part, style=style).append(" " * (columns - cell_len(part)))
        is_full = "↵" in text
    lines = [line for group in groups for line in group]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def draft_legend(completion: Completion) -> str:
    """What the marks of :func:`coloured_steps` mean, and how often each stands there; empty without marks."""
    if not _drafts(completion):
        return ""
    counts = Counter(origins(completion))
    beyond = completion.num_accepted - counts["accepted"]
    more = f", {beyond} more behind the end" if beyond else ""
    meanings: dict[Origin, str] = {
        "accepted": f"accepted draft ({counts['accepted']} of {completion.num_drafted}{more})",
        "correction": f"correction ({counts['correction']})",
        "bonus": f"bonus ({counts['bonus']})",
        "undrafted": f"no draft ({counts['undrafted']})",
        "drawn": f"drawn ({counts['drawn']})",
    }
    is_auto = completion.params.draft_groups == "auto"  # which tells less
    told = ("accepted", "drawn") if is_auto else ("accepted", "correction", "bonus", "undrafted")
    return ", ".join(f"{_MARKS[origin]} {meanings[origin]}" for origin in told)


def _drafts(completion: Completion) -> bool:
    return completion.params.remasking == "self_speculative"

"""What commands print."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from t3d.decoding.completion import Completion
from t3d.problems.prompts import token_text

_STEP_COLOURS = ("red", "dark_orange", "yellow", "green", "cyan", "blue", "magenta", "bright_black")


def accuracy_text(accuracy: float, interval: Sequence[float]) -> str:
    """``73.2 [69.2, 76.9]``, percent."""
    return f"{accuracy:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"


def results_table(entries: Sequence[Mapping[str, Any]], title: str) -> Table:
    """One row per task and setting, from the entries of ``results.json``; about 80 columns wide.

    ``s``: seconds of wall time per response, all decoded together. ``end %``: responses with a stop token.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for name in ("task", "setting"):
        table.add_column(name)
    for name in ("accuracy % [95 %]", "TokPS", "TPF", "tok/s", "s", "steps", "length", "end %"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in entries:
        table.add_row(
            entry["task"],
            entry["setting"],
            accuracy_text(entry["accuracy"], entry["ci95"]),
            f"{entry['tokens_per_step']:.2f}",
            f"{entry['tokens_per_forward']:.2f}",
            f"{entry['tokens_per_second']:.0f}",
            f"{entry['latency']:.3g}",
            f"{entry['mean_denoising_steps']:.1f}",
            f"{entry['mean_length']:.1f}",
            f"{100 * entry['stopped']:.0f}",
        )
    return table


def coloured_steps(tokenizer: PreTrainedTokenizerBase, completion: Completion, width: int = 80) -> Text:
    """The visible response in rows of at most ``width`` columns, with the steps in a row of their own below.

    The denoising step that committed a token stands under its first character, in the same colour. Tokens
    are set apart where a step has as many digits as its token has columns; a line break is shown as ``↵``.
    """
    rows = [(Text(), Text())]
    for token, denoising_step in zip(completion.visible_ids, completion.step_map, strict=False):
        colour = _STEP_COLOURS[(denoising_step - 1) % len(_STEP_COLOURS)]
        text = token_text(tokenizer, [token], skip_special_tokens=False).replace("\n", "↵")
        step = " " * (len(text) - len(text.lstrip())) + str(denoising_step)
        columns = max(cell_len(text), len(step) + 1)
        if rows[-1][0].cell_len + columns > width and rows[-1][0]:
            rows.append((Text(), Text()))
        for row, part, style in zip(rows[-1], (text, step), (colour, f"dim {colour}"), strict=True):
            row.append(part, style=style).append(" " * (columns - cell_len(part)))
        if "↵" in text:
            rows.append((Text(), Text()))
    lines = [line for row in rows if row[0] for line in row]
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)

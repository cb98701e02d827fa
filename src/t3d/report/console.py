"""What commands print."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from t3d.data.prompts import token_text
from t3d.decoding.completion import Completion

_STEP_COLOURS = ("red", "dark_orange", "yellow", "green", "cyan", "blue", "magenta", "bright_black")


def accuracy_cell(accuracy: float, interval: Sequence[float]) -> str:
    """``73.2 [69.2, 76.9]``, percent."""
    return f"{accuracy:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"


def results_table(summaries: Sequence[Mapping[str, Any]], title: str) -> Table:
    """One row per evaluated setting, from EvalResult.summary(); 80 columns wide."""
    table = Table(title=title)
    for name in ("task", "block/steps", "accuracy % [95 %]", "TokPS", "TPF", "tokens/s", "length"):
        table.add_column(name, justify="left" if name == "task" else "right", no_wrap=name != "task")
    for summary in summaries:
        params = summary["decode_params"]
        table.add_row(
            summary["task"],
            f"{params['block_size']}/{params['steps_per_block']}",
            accuracy_cell(summary["accuracy"], summary["ci95"]),
            f"{summary['tokens_per_step']:.2f}",
            f"{summary['tokens_per_forward']:.2f}",
            f"{summary['tokens_per_second']:.0f}",
            f"{summary['mean_length']:.1f}",
        )
    return table


def coloured_steps(tokenizer: PreTrainedTokenizerBase, completion: Completion) -> Text:
    """The visible response, each token coloured by the denoising step that committed it."""
    text = Text()
    visible = zip(completion.visible_ids, completion.step_map, strict=False)
    for token, denoising_step in visible:
        colour = _STEP_COLOURS[(denoising_step - 1) % len(_STEP_COLOURS)]
        text.append(token_text(tokenizer, [token], skip_special_tokens=False), style=colour)
        text.append(f"{denoising_step}", style=f"dim {colour}")
    return text

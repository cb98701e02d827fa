"""The table that ``t3d data stats`` prints."""

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from t3d.interchange.stats import Spread, TrajectoryStats

MAX_VALUES = 8
"""Values of one kind that the table names."""


def stats_table(stats: TrajectoryStats, title: str) -> Table:
    """Two columns: what, and how much."""
    table = Table(title=escape(title), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("records", f"{stats.num_records} ({stats.num_cut_records} end inside their last block)")
    table.add_row("distinct", f"{stats.num_distinct_ids} ids, {stats.num_distinct_prompts} prompts")
    tokens = f"{stats.num_response_tokens} response ({stats.num_visible_tokens} visible)"
    table.add_row("tokens", f"{stats.num_prompt_tokens} prompt, {tokens}")
    table.add_row("tokens per step", f"{stats.tokens_per_step:.3f}")
    table.add_row("prompt length", _spread(stats.prompt_length))
    table.add_row("response length", _spread(stats.response_length))
    table.add_row("visible length", _spread(stats.visible_length))
    table.add_row("denoising steps", _spread(stats.denoising_steps))
    table.add_row("steps per block", _counts(stats.steps_per_block, "blocks"))
    table.add_row("finish reason", _counts(stats.finish_reasons))
    table.add_row("block size", _counts(stats.block_sizes))
    table.add_row("mask token id", _counts(stats.mask_token_ids))
    table.add_row("task", _counts(stats.tasks))
    table.add_row("teacher", _counts(stats.teachers))
    table.add_row("tokenizer", _counts(stats.tokenizers))
    table.add_row("decoding settings", _counts(stats.decode_params))
    return table


def _spread(spread: Spread) -> str:
    ends = f"{spread.smallest} to {spread.largest}"
    return f"{ends}, median {spread.median:g}, mean {spread.mean:.1f}"


def _counts(counts: Mapping[str, int], unit: str = "records") -> str:
    lines = [escape(f"{value or 'unknown'}: {count} {unit}") for value, count in counts.items()]
    rest = len(lines) - MAX_VALUES
    return "\n".join(lines[:MAX_VALUES] + ([f"and {rest} other values"] if rest > 0 else []))

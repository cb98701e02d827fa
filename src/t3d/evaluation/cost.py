"""What decoding took, from the rows of its responses."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from t3d.decoding.completion import Completion
from t3d.evaluation.samples import DRAFTS
from t3d.work.kept import Row


def response_row(completion: Completion, seconds: float) -> Row:
    """What is kept of a completion: its text and what it took; with ``self_speculative`` its drafts, too."""
    drafts = DRAFTS if completion.params.remasking == "self_speculative" else ()
    return {
        "id": completion.id,
        "response": completion.text,
        "num_tokens": completion.visible_length,
        "num_denoising_steps": completion.num_denoising_steps,
        "num_forwards": completion.num_forwards,
        "finish_reason": completion.finish_reason,
        "num_committed": len(completion.response_ids),
        "seconds": seconds,
        **{name: getattr(completion, name) for name in drafts},
    }


def keep_rows(keep: Callable[[Row], None]) -> Callable[[Completion], None]:
    """A callback for finished completions: keeps the row of each.

    Its seconds are those since the one before, so that they add up to the wall time.
    """
    last = time.perf_counter()

    def on_finish(completion: Completion) -> None:
        nonlocal last
        now = time.perf_counter()
        keep(response_row(completion, now - last))
        last = now

    return on_finish


def decoding_cost(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What decoding took.

    ``tokens_per_step``: committed tokens per denoising step (TokPS). ``tokens_per_forward``: committed
    tokens per forward of a request, separate commit forwards counted (TPF). Committed tokens include the
    filler of a terminal block; ``tokens_per_second`` and ``mean_length`` count visible tokens only.
    Where drafts were checked, their counts, and ``acceptance``: which share of them was right.
    """
    committed, visible, steps, forwards, seconds = (
        sum(row[name] for row in rows)
        for name in ("num_committed", "num_tokens", "num_denoising_steps", "num_forwards", "seconds")
    )
    drafts = {name: sum(row[name] for row in rows if name in row) for name in DRAFTS}
    share = {"acceptance": drafts["num_accepted"] / drafts["num_drafted"]} if drafts["num_drafted"] else {}
    return {
        "tokens_per_step": committed / steps,
        "tokens_per_forward": committed / forwards,
        "tokens_per_second": visible / seconds,
        "seconds": seconds,
        "mean_denoising_steps": steps / len(rows),
        "mean_length": visible / len(rows),
        "stopped": sum(row["finish_reason"] == "stop" for row in rows) / len(rows),
        **(drafts | share if share else {}),
    }

"""What the engine did, counted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from t3d.attention.slots import Spans
from t3d.decoding.committed import Committed
from t3d.decoding.completion import Completion
from t3d.decoding.drafting import Checked
from t3d.decoding.forward import Forward


@dataclass(kw_only=True)
class EngineStats:
    """Sums over an engine's forwards. ``summary`` has the measures that are made of them."""

    max_batch_size: int
    forwards: int = 0
    prefill_forwards: int = 0
    """Forwards in which a prompt was written."""
    row_steps: int = 0
    """Denoising steps, summed over the requests."""
    row_commits: int = 0
    """Separate commit forwards of requests."""
    drafted_tokens: int = 0
    """Draft tokens that forwards checked; the sum over completions, but for requests without a response."""
    accepted_tokens: int = 0
    """Those of them that were right, together with all before them in their drafts; behind a stop too."""
    drafted_at: list[int] = field(default_factory=list)
    """Drafts by offset: how many had a first token, a second, ..."""
    accepted_at: list[int] = field(default_factory=list)
    """In how many it was accepted."""
    committed_tokens: int = 0
    visible_tokens: int = 0
    blocks: int = 0
    """Blocks that were finished, those that a response begins or ends in included."""
    requests: int = 0
    query_tokens: int = 0
    logit_rows: int = 0
    head_forwards: int = 0
    """Forwards with any logits."""
    attended_pairs: int = 0
    """Pairs of a query and a key that it may see."""
    key_positions: int = 0
    """Positions whose keys and values were read."""
    kv_bytes: int = 0
    """Most memory that keys and values took."""
    seconds: float = 0.0
    prefill_seconds: float = 0.0
    """Time of the forwards in which a prompt was written; decode time is the rest."""

    def count_forward(
        self,
        forward: Forward,
        left: Committed,
        *,
        completions: Sequence[Completion],
        kv_bytes: int,
        seconds: float,
    ) -> None:
        """Add a forward, what it left and finished, and its time, the host's included."""
        self.kv_bytes = max(self.kv_bytes, kv_bytes)
        self.forwards += 1
        self.prefill_forwards += forward.writes_prompt
        self.row_steps += int(forward.denoises_R.sum())
        self.row_commits += int(forward.is_commit_R.sum())
        self.query_tokens += int(forward.spans.length_R.sum())
        self.logit_rows += len(forward.row_M)
        self.head_forwards += len(forward.row_M) > 0
        self.attended_pairs += _attended_pairs(forward.spans)
        self.key_positions += int(forward.spans.end_R.sum()) + sum(
            span.sees_QN.shape[1] for span in forward.spans.scratch.values()
        )
        self.blocks += left.num_finished_blocks
        for checked in left.checked:
            self._count_draft(checked)
        self.requests += len(completions)
        self.visible_tokens += sum(completion.visible_length for completion in completions)
        self.committed_tokens += sum(len(completion.response_ids) for completion in completions)
        self.seconds += seconds
        self.prefill_seconds += seconds if forward.writes_prompt else 0.0

    def _count_draft(self, checked: Checked) -> None:
        self.drafted_tokens += checked.num_drafted
        self.accepted_tokens += checked.num_accepted
        missing = [0] * (checked.num_drafted - len(self.drafted_at))
        self.drafted_at += missing
        self.accepted_at += missing
        for offset in range(checked.num_drafted):
            self.drafted_at[offset] += 1
            self.accepted_at[offset] += offset < checked.num_accepted

    @property
    def acceptance_by_offset(self) -> list[float]:
        """Share of drafts that were right up to their first token, their second, ..., where they had one."""
        return [right / all for right, all in zip(self.accepted_at, self.drafted_at, strict=True)]

    def summary(self) -> dict[str, Any]:
        """The measures, JSON-ready."""
        row_forwards = self.row_steps + self.row_commits
        return {
            "requests": self.requests,
            "visible_tokens": self.visible_tokens,
            "seconds": self.seconds,
            "prefill_seconds": self.prefill_seconds,
            "decode_seconds": self.seconds - self.prefill_seconds,
            "visible_tokens_per_second": self.visible_tokens / max(self.seconds, 1e-9),
            "forwards": self.forwards,
            "tokens_per_step": self.committed_tokens / max(1, self.row_steps),
            "tokens_per_forward": self.committed_tokens / max(1, row_forwards),
            "positions_per_token": self.query_tokens / max(1, self.committed_tokens),
            "acceptance": self.accepted_tokens / max(1, self.drafted_tokens),
            "forwards_per_block": row_forwards / max(1, self.blocks),
            "row_utilisation": row_forwards / max(1, self.forwards * self.max_batch_size),
            "kv_bytes": self.kv_bytes,
        }


def _attended_pairs(spans: Spans) -> int:
    """Sum over all queries of the keys they see: up to the end of their own block, or what a scratch says."""
    # Blocks of a row end at start + B, ..., end; a block has B queries that see all up to its end.
    size_R, start_R, end_R = spans.block_size_R, spans.start_R, spans.end_R
    num_blocks_R = (end_R - start_R) // size_R
    # sum_{k=1..n} B * (start + k B) = B * (n start + B n (n + 1) / 2)
    pairs_R = size_R * (num_blocks_R * start_R + size_R * num_blocks_R * (num_blocks_R + 1) // 2)
    scratch = sum(
        len(span.sees_QN) * int(end_R[row]) + span.sees_QN.sum() for row, span in spans.scratch.items()
    )
    return int(pairs_R.sum() + scratch)

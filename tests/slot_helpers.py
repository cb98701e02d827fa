"""Forwards that extend slots by hand, for tests."""

import numpy as np
import torch

from t3d.attention.extend_plan import plan_extend
from t3d.attention.forward import extend_forward
from t3d.attention.slots import Spans


@torch.no_grad()
def extend(model, cache, rows, block_size=4, scratch=None, num_padding=0):
    """Logits of all tokens, one tensor per row; a row is (slot, first position, token ids).

    The last tokens of a row (by its place) that is in ``scratch`` are those of its ScratchSpan. As many
    tokens as ``num_padding`` follow all rows'.
    """
    slot, start, ids = zip(*rows, strict=True)
    scratch = scratch or {}
    num_scratch = [len(scratch[row].column_Q) if row in scratch else 0 for row in range(len(rows))]
    spans = Spans(
        slot_R=np.array(slot),
        start_R=np.array(start),
        end_R=np.array(
            [first + len(own) - count for first, own, count in zip(start, ids, num_scratch, strict=True)]
        ),
        block_size_R=np.full(len(rows), block_size),
        scratch=scratch,
    )
    plan = plan_extend(cache, spans, model.config, dtype=model.dtype, device=torch.device("cpu"))
    num_tokens = len(spans.position_T)
    flat = torch.tensor([token for tokens in ids for token in tokens] + [0] * num_padding)
    position = torch.from_numpy(np.pad(spans.position_T, (0, num_padding)))
    logits = extend_forward(model, flat, position, plan, logit_positions=torch.arange(num_tokens))
    return list(logits.split([len(tokens) for tokens in ids]))

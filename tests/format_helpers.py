"""Settings, examples and comparisons that the tests of every trajectory format share."""

import dataclasses

from strategies import MASK_ID, STOP_IDS, TOKENIZER, encode

from t3d.interchange.formats.assemble import Drop, DropReason, ImportSettings
from t3d.trajectory import Trajectory

PROMPT = "<|im_start|>user\nhow many?<|im_end|>\n<|im_start|>assistant\n"


def settings(block_size: int = 4, **changes) -> ImportSettings:
    fields = {"mask_token_id": MASK_ID, "stop_token_ids": STOP_IDS, "tokenizer": TOKENIZER}
    return ImportSettings(block_size=block_size, **(fields | changes))


def make(**changes) -> Trajectory:
    """Answer " 7 apples<|im_end|>" and filler, blocks of one and four tokens with steps 1 | 2 3 3 4."""
    prompt = encode(PROMPT)
    visible = encode(" 7 apples<|im_end|>")
    response = visible + encode(" so") * (-(len(prompt) + len(visible)) % 4)
    fields = {
        "id": "a",
        "prompt_ids": prompt,
        "response_ids": response,
        "step_map": (1, 2, 3, 3, 4),
        "visible_length": len(visible),
        "finish_reason": "stop",
        "block_size": 4,
        "mask_token_id": MASK_ID,
    }
    return Trajectory(**(fields | changes))


def reasons(outcomes) -> list[DropReason | None]:
    """The drop reason of each outcome, None for a trajectory."""
    return [outcome.reason if isinstance(outcome, Drop) else None for outcome in outcomes]


def visible_part(trajectory: Trajectory) -> Trajectory:
    """What a text format holds: the answer without its filler, its steps, and whether it ends on the grid."""
    length = trajectory.visible_length
    return dataclasses.replace(
        trajectory,
        response_ids=trajectory.response_ids[:length],
        step_map=trajectory.step_map[:length],
        terminal_complete=(len(trajectory.prompt_ids) + length) % trajectory.block_size == 0,
    )

"""The decoding settings that demo, oracle and tables go by, and which of them each table takes."""

import dataclasses

from t3d.decoding.params import DecodeParams
from t3d.decoding.settings import decoding_settings

MAX_NEW_TOKENS = 56
"""Of the mini tasks; suite ``sdar`` has its own limit."""
_SHARED = DecodeParams(max_new_tokens=MAX_NEW_TOKENS)

SETTINGS = {
    **decoding_settings(block_sizes=(4,), tokens_per_step=(1, 2, 4), shared=_SHARED),
    **decoding_settings(block_sizes=(8,), tokens_per_step=(1, 2, 4, 8), shared=_SHARED),
    **decoding_settings(block_sizes=(4,), dynamic=(0.9,), shared=_SHARED),
}
"""Of demo and oracle, by name: block size and tokens per step; dynamic commits above confidence 0.9."""

LEFT_TO_RIGHT = decoding_settings(
    block_sizes=(8,), left_to_right=("left_to_right", "self_speculative"), shared=_SHARED
)
"""Of the demo's teacher besides: the same text token by token, and in fewer forwards."""
DRAFTED = "B8-self-speculative"
"""That of them in which a drafter drafts."""

STATIC_SETTINGS = tuple(name for name in SETTINGS if "-T" in name)
FEW_STEPS = ("B4-T2", "B8-T2", "B4-T4", "B8-T4")
"""Of Table 1."""
DYNAMIC = ("B4-dynamic", "B4-dynamic-sampled")
"""Confidence of the model itself, and of the tempered distribution, as the paper's engine takes it."""
LAMBDA_SETTINGS = ("B4-T1", "B8-T1", "B8-T2", "B4-T4", "B8-T4", "B8-T8")
"""Rows of Table 4."""
GRID_SETTINGS = ("B4-T1", "B8-T2", "B8-T4")
"""Of Tables 5 to 7; their mean accuracy on validation problems chooses a learning rate."""
DIVERSITY = "B4-T1-temperature-1"
"""Full steps at temperature 1, for distinct answers per prompt."""

TABLE_SETTINGS = SETTINGS | {
    DYNAMIC[1]: dataclasses.replace(SETTINGS[DYNAMIC[0]], confidence="sampled"),
    DIVERSITY: dataclasses.replace(SETTINGS["B4-T1"], temperature=1.0),
}
"""All that a table takes."""

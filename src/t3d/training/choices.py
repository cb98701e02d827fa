"""What settings of a distillation run may be; those of one module's own stand there."""

from typing import Literal

Objective = Literal["t3d", "cross_entropy", "certainty_forcing", "prefix_acceptance"]
LossWeighting = Literal["uniform", "inverse_mask_prob"]
LossNormaliser = Literal["masked_tokens", "response_tokens"]
FakeSource = Literal["argmax", "sample", "expectation"]
LogRatio = Literal["mean", "sum", "state_sum"]
NoiseRefresh = Literal["epoch", "once"]
PathScope = Literal["block", "response"]
PathPositions = Literal["masked", "all"]
StateSource = Literal["trajectory", "on_policy", "random_mask", "draft"]
SoftTargetContext = Literal["before", "state", "later_state"]
SoftTargetSource = Literal["teacher", "student"]
DraftTargets = Literal["tokens", "distribution", "rollout"]
Placement = Literal["device", "cpu", "adapter"]
"""Where the reference is."""
RoundStart = Literal["student", "teacher"]
"""Whose weights the training of a round begins with: those of the round before, or the first model's."""
ReferenceChoice = Literal["latest", "best", "auto"]
"""Which student the reference is copied from; ``auto``: the best where there is an evaluator."""

"""Settings of a distillation run."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from transformers import TrainingArguments

from t3d.errors import InputError, require_positive
from t3d.noising import RandomTokenRule, StateOrder, StateScope
from t3d.objectives.logprobs import Reduction
from t3d.objectives.path_consistency import PathWeighting
from t3d.trajectory import GridOrigin

Objective = Literal["t3d", "cross_entropy"]
FakeSource = Literal["argmax", "sample"]
NoiseRefresh = Literal["epoch", "once"]
PathScope = Literal["block", "response"]
PathPositions = Literal["masked", "all"]


@dataclass
class T3DConfig(TrainingArguments):
    """transformers' TrainingArguments plus the distillation settings; the defaults are preset ``t3d``.

    The sentence of the paper behind each value, or "paper silent", stands in docs/paper_map.md;
    departures stand in docs/deviations.md.
    """

    # > What is learnt
    objective: Objective = "t3d"
    """``t3d``: DDO plus path consistency (Eq. 10). ``cross_entropy``: naive distillation (Eq. 5)."""
    ddo_alpha: float = 0.5
    """Weight of DDO's fake term (paper: 1; released: 0.5)."""
    ddo_beta: float = 0.1
    """Scale of the log-ratio (appendix C.2; released: 0.1)."""
    log_ratio: Reduction = "mean"
    """Sequence log-ratio over loss positions: ``sum`` (Eq. 7) or ``mean`` (released)."""
    fake_source: FakeSource = "argmax"
    """Fake tokens: the reference's likeliest (released), or a ``sample`` from it (Eq. 7)."""
    path_weight: float = 0.2
    """lambda of Eq. 10."""
    path_weighting: PathWeighting = "linear"
    """``linear`` is Eq. 9; ``nested_prefix`` the released code."""
    path_scope: PathScope = "block"
    """Whether pi of Eq. 9 counts inside a block or over the whole response."""
    path_positions: PathPositions = "masked"
    """Positions of the path term: the masked ones, or all decoded ones, visible too (released)."""
    path_reduction: Reduction = "mean"
    """``mean`` over loss tokens, or ``sum`` per trajectory (Eq. 8)."""
    path_tokens_per_level: int = 4
    """k of ``nested_prefix`` (released: path_k_steps)."""

    # > Which states it is learnt on
    block_size: int = 8
    """The student's block size."""
    grid_origin: GridOrigin = "prompt"
    """Absolute grid, as in decoding; ``response``: blocks start at the response (released)."""
    state_order: StateOrder = "trajectory"
    """Early commits visible (paper), or ``released``: late commits visible."""
    state_scope: StateScope = "block"
    """One mask ratio per block, or per ``response`` (released)."""
    mask_ratios: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """Fractions of a block that may be masked."""
    mask_ratio_power: float = 8.0
    """P(ratio) is proportional to ratio ** power."""
    random_token_prob: float = 0.1
    """Fraction of masks replaced by random tokens (Eq. 48-49; paper: 0.1)."""
    random_token_rule: RandomTokenRule = "bernoulli"
    noise_refresh: NoiseRefresh = "epoch"
    """Draw noise afresh each ``epoch``, or ``once`` for the whole run (released)."""
    terminal_filler_loss: bool = False
    """Whether tokens after the stop token take loss."""

    # > The reference
    refresh_every: int = 10
    """Optimizer steps between copies of the student into the reference (appendix C.2: 10)."""

    # > TrainingArguments with other defaults
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    lr_scheduler_type: str = "cosine_with_min_lr"
    """With ``cosine_with_min_lr`` the learning rate ends at a tenth of its peak unless told otherwise."""
    warmup_steps: float = 20
    logging_steps: float = 10
    remove_unused_columns: bool = False
    report_to: str | list[str] | None = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lr_scheduler_type == "cosine_with_min_lr" and not self.lr_scheduler_kwargs:
            self.lr_scheduler_kwargs = {"min_lr_rate": 0.1}
        super().__post_init__()
        # Nothing to pin for, and PyTorch warns.
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.accelerator.is_available()
        # One process drives one device: flat loss positions cannot be scattered by DataParallel.
        self._n_gpu = min(self.n_gpu, 1)
        choices = {
            "objective": Objective,
            "log_ratio": Reduction,
            "fake_source": FakeSource,
            "path_weighting": PathWeighting,
            "path_scope": PathScope,
            "path_positions": PathPositions,
            "path_reduction": Reduction,
            "grid_origin": GridOrigin,
            "state_order": StateOrder,
            "state_scope": StateScope,
            "random_token_rule": RandomTokenRule,
            "noise_refresh": NoiseRefresh,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                fix = f"use one of {', '.join(get_args(allowed))}"
                raise InputError(name, getattr(self, name), "not known", fix)
        require_positive(self, "block_size", "refresh_every", "path_tokens_per_level")
        self.mask_ratios = tuple(self.mask_ratios)
        if not self.mask_ratios or not all(0 < ratio <= 1 for ratio in self.mask_ratios):
            raise InputError("mask_ratios", self.mask_ratios, "not all in (0, 1]", "use for example 1.0 0.5")
        if not 0 <= self.random_token_prob < 1:
            raise InputError(
                "random_token_prob", self.random_token_prob, "not in [0, 1)", "use for example 0.1"
            )
        if self.path_reduction == "mean" and self.path_positions == "all":
            fix = "use path_reduction='sum'"
            raise InputError("path_reduction", "mean", "counts masked tokens, but path_positions='all'", fix)
        if self.path_reduction == "mean" and self.path_weighting == "nested_prefix":
            fix = "use path_reduction='sum'"
            raise InputError("path_reduction", "mean", "nested_prefix weights are means already", fix)
        for name in ("ddo_alpha", "ddo_beta", "path_weight"):
            if getattr(self, name) < 0:
                raise InputError(name, getattr(self, name), "negative", "use 0 or more")

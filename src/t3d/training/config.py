"""Settings of a distillation run."""

from dataclasses import dataclass

import torch
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from t3d.attention.packed_forward import PackedAttention
from t3d.errors import (
    InputError,
    require_above_zero,
    require_at_least_zero,
    require_below_one,
    require_choices,
    require_positive,
    require_seed,
)
from t3d.models.gated import ALPHA
from t3d.models.linear_layers import HEADS, TARGET_MODULES
from t3d.objectives.kl import Direction
from t3d.objectives.logprobs import Reduction
from t3d.objectives.path_consistency import PathWeighting
from t3d.training.choices import (
    DraftTargets,
    FakeSource,
    LogRatio,
    LossNormaliser,
    LossWeighting,
    NoiseRefresh,
    Objective,
    PathPositions,
    PathScope,
    Placement,
    ReferenceChoice,
    SoftTargetContext,
    SoftTargetSource,
    StateSource,
)
from t3d.training.config_checks import check_cross_entropy_terms, check_schedule, refusal
from t3d.training.noising import RandomTokenRule, StateOrder, StateScope
from t3d.trajectory import GridOrigin


@dataclass
class T3DConfig(TrainingArguments):
    """transformers' TrainingArguments plus the distillation settings; the defaults are preset ``t3d``.

    The sentence of the paper behind each value, or "paper silent", stands in docs/paper_map.md;
    departures stand in docs/deviations.md.
    """

    # > What is learnt
    objective: Objective = "t3d"
    """``t3d``: DDO (Eq. 7). ``cross_entropy``: Eq. 3, 5, 16, by the states. ``certainty_forcing``: dParallel.
    Each plus ``path_weight`` times path consistency, as in Eq. 10. ``prefix_acceptance``: a drafter, an
    adapter on drafts that learns what the base will accept."""
    loss_weighting: LossWeighting = "uniform"
    """Of the cross-entropy: ``inverse_mask_prob`` weighs each token by 1 / its masking probability (SDAR)."""
    loss_normaliser: LossNormaliser = "masked_tokens"
    """What the cross-entropy is divided by: ``response_tokens`` counts the visible ones too (SDAR)."""
    left_to_right_weight: float = 0.0
    """Of the cross-entropy: how much that of every response token, as ``left_to_right`` decoding draws it,
    counts beside it; per response token that takes loss. It costs a forward of its own; 0 leaves it out."""
    soft_target_weight: float = 0.0
    """Of the cross-entropy: the share that the divergence from soft targets takes of it, which are what a
    model says of a masked token. 0 leaves it out."""
    soft_target_source: SoftTargetSource = "teacher"
    """That model: a frozen ``teacher`` (T3DTrainer's ``soft_target_model``), or the ``student`` as it is."""
    soft_target_context: SoftTargetContext = "before"
    """What that model reads: all clean tokens ``before`` a masked one, the student's own ``state``, or the
    ``later_state`` of the trajectory, whose masks alone have soft targets."""
    soft_target_direction: Direction = "forward"
    """``forward``: KL(target || student); ``reverse``: KL(student || target)."""
    soft_target_top_k: int | None = None
    """Of the targets so many likeliest tokens, and all others as one; None: the whole distribution."""
    soft_target_below: float = 1.0
    """Soft targets only where their model gives the record's token less probability; 1: everywhere."""
    entropy_weight: float = 2.0
    """beta of certainty forcing (dParallel: 2 for LLaDA, 1 for Dream)."""
    entropy_temperature: float = 0.5
    """Temperature of the entropy of certainty forcing (dParallel: 0.5)."""
    draft_targets: DraftTargets = "tokens"
    """Of ``prefix_acceptance``: cross-entropy to the base's own likeliest ``tokens`` at its check masks; the
    divergence from its ``distribution`` there; or cross-entropy to the ``rollout``'s tokens, with no forward
    of the base: they are what it accepts where it wrote them left to right."""
    draft_rides: bool = True
    """Of ``prefix_acceptance``: a draft is made in the forward that checks the one before, whose draw is the
    token at its first mask; that one takes no loss. False: in a forward of its own, all masks are drafted."""
    first_error_weight: float = 0.0
    """Of ``prefix_acceptance``: how much more a position weighs by the chance that it is its draft's first
    error."""
    ddo_alpha: float = 0.5
    """Weight of DDO's fake term (paper: 1; released: 0.5)."""
    ddo_beta: float = 0.1
    """Scale of the log-ratio (appendix C.2; released: 0.1)."""
    log_ratio: LogRatio = "mean"
    """Log-ratio inside sigma: ``mean`` over a response's masked tokens (released), their ``sum``, or
    ``state_sum``, a sigma for each state x_t (Eq. 6-7): each block with what precedes it."""
    fake_source: FakeSource = "argmax"
    """Fake tokens: the reference's likeliest (released), a ``sample`` from it (Eq. 23's bound), or the
    ``expectation`` inside sigma (Eq. 7), -KL(p_ref || p_theta), without any sample."""
    path_weight: float = 0.2
    """lambda of Eq. 10; 0 leaves the path term out."""
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
    state_source: StateSource = "trajectory"
    """States by the recorded order of commits; ``on_policy``: only those at which a denoising step of the
    rollout began, for the student's own in few steps; ``random_mask``: each token masked independently;
    ``draft``: masks from some place to the block's end, what is before read causally (a drafter's)."""
    state_order: StateOrder = "trajectory"
    """Early commits visible (paper), or ``released``: late commits visible."""
    state_scope: StateScope = "block"
    """One mask ratio (``random_mask``: probability) per block, per ``response`` (released, SDAR), or,
    with ``random_mask``, per ``token`` (dLLM-RL)."""
    mask_ratios: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    """Fractions of a block that may be masked."""
    mask_ratio_power: float = 8.0
    """P(ratio) is proportional to ratio ** power; of ``on_policy``, of the ratios that were visited."""
    mask_prob_range: tuple[float, float] = (1e-3, 1.0)
    """Of ``random_mask``: where its probability is drawn from. (0.001, 1) is SDAR's, (1, 1) masks all."""
    complementary_states: bool = False
    """Of ``random_mask``: each response in two states; what one masks the other shows (dParallel)."""
    draft_open_prob: float = 0.5
    """Of ``draft``: share of blocks that are open up to a random token; of the others all is masked."""
    random_token_prob: float = 0.1
    """Fraction of masks replaced by random tokens (Eq. 48-49; paper: 0.1)."""
    random_token_rule: RandomTokenRule = "bernoulli"
    """Each mask by itself (paper), an ``exact_count`` (released), or ``start_state``: by itself, the same in
    every epoch (ReDi's stochastic start)."""
    noise_refresh: NoiseRefresh = "epoch"
    """Draw noise afresh each ``epoch``, or ``once`` for the whole run (released)."""
    terminal_filler_loss: bool = False
    """Whether tokens after the stop token take loss."""

    # > The reference
    refresh_every: int = 10
    """Optimizer steps between copies of the student into the reference (appendix C.2: 10)."""
    reference_choice: ReferenceChoice = "latest"
    """Copy the ``latest`` student (released), or only one that scores no worse than the ``best`` copied
    so far (appendix C.2), which takes an evaluator; ``auto``: best where there is one."""
    reference_placement: Placement | None = None
    """Where it is: a copy on the student's ``device``, a copy in ``cpu`` memory streamed to the device
    layer by layer, or, for a student with LoRA, an ``adapter`` beside the student's on the same base.
    None: the last with LoRA, the first without."""

    # > LoRA (``t3d[peft]``)
    lora_rank: int = 0
    """Train an adapter of this rank instead of all weights; 0: all weights."""
    lora_alpha: float = ALPHA
    """The adapter's product is scaled by ``lora_alpha / lora_rank``."""
    lora_dropout: float = 0.0
    """Of the adapter's inputs, in training."""
    lora_target_modules: tuple[str, ...] = TARGET_MODULES
    """Linear layers, by the end of their names; not the head. Of a drafter for a mixture: the attention's."""
    lora_mask_embedding: bool = False
    """Of a drafter: it learns the input embedding of its masks, too."""

    # > Packing
    max_length: int | None = None
    """Tokens of a packed row, clean and noisy copies together; None: a micro-batch is one row. A longer
    response has its noisy copy split over several rows, each with all the clean tokens it may see; one
    whose last block does not fit is left out, counted and logged."""
    attention: PackedAttention = "auto"
    """``documents`` (matrix products per trajectory), ``flex`` (FlexAttention), ``dense`` (SDPA under the
    whole mask), or ``auto``: flex on CUDA, documents elsewhere."""

    # > TrainingArguments with other defaults
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    lr_scheduler_type: str = "cosine_with_min_lr"
    """With ``cosine_with_min_lr`` the learning rate ends at a tenth of its peak unless told otherwise."""
    warmup_steps: float = 20
    logging_steps: float = 10
    remove_unused_columns: bool = False
    save_total_limit: int | None = 2
    """Checkpoints kept, the best one, if the student is evaluated, beside them."""
    metric_for_best_model: str | None = "few_step_accuracy"
    greater_is_better: bool | None = True
    logging_nan_inf_filter: bool = False
    """The trainer itself stops at a loss that is not finite."""
    report_to: str | list[str] | None = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InputError for a value that cannot be used, transformers' own refusals included."""
        self._check_numbers()
        if self.lr_scheduler_type == "cosine_with_min_lr" and not self.lr_scheduler_kwargs:
            self.lr_scheduler_kwargs = {"min_lr_rate": 0.1}
        try:
            super().__post_init__()
        except (TypeError, ValueError) as error:
            raise refusal(self, error) from error
        check_schedule(self)
        # Nothing to pin for, and PyTorch warns.
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.accelerator.is_available()
        # One process drives one device: flat loss positions cannot be scattered by DataParallel.
        self._n_gpu = min(self.n_gpu, 1)
        self.reference_placement = self.reference_placement or ("adapter" if self.lora_rank else "device")
        self._check()

    def _check_numbers(self) -> None:
        require_seed(self)
        require_above_zero(self, "learning_rate", "num_train_epochs", "entropy_temperature", "lora_alpha")
        require_at_least_zero(self, "warmup_steps", "weight_decay", "adam_epsilon", "max_grad_norm")
        require_at_least_zero(self, "ddo_alpha", "ddo_beta", "path_weight", "entropy_weight", "lora_rank")
        require_at_least_zero(self, "first_error_weight", "draft_open_prob", "left_to_right_weight")
        require_at_least_zero(self, "soft_target_weight")
        require_above_zero(self, "soft_target_below")
        require_below_one(self, "adam_beta1", "adam_beta2", "random_token_prob", "lora_dropout")
        require_positive(self, "per_device_train_batch_size", "gradient_accumulation_steps")
        require_positive(self, "block_size", "refresh_every", "path_tokens_per_level", "max_length")
        require_positive(self, "soft_target_top_k")

    def _check(self) -> None:
        require_choices(self)
        self.mask_ratios = tuple(self.mask_ratios)
        if not self.mask_ratios or not all(0 < ratio <= 1 for ratio in self.mask_ratios):
            raise InputError("mask_ratios", self.mask_ratios, "not all in (0, 1]", "use for example 1.0 0.5")
        if self.path_reduction == "mean" and self.path_positions == "all":
            fix = "use path_reduction='sum'"
            raise InputError("path_reduction", "mean", "counts masked tokens, but path_positions='all'", fix)
        if self.path_reduction == "mean" and self.path_weighting == "nested_prefix":
            fix = "use path_reduction='sum'"
            raise InputError("path_reduction", "mean", "nested_prefix weights are means already", fix)
        modules = self.lora_target_modules = tuple(self.lora_target_modules)
        if not modules or any(name.rpartition(".")[2] in HEADS for name in modules):
            problem = (
                f"empty, or names {' or '.join(HEADS)}, whose weights the loss reads without the adapter"
            )
            raise InputError("lora_target_modules", modules, problem, "name other layers, such as q_proj")
        if (self.reference_placement == "adapter") != bool(self.lora_rank):
            problem = f"does not go with lora_rank={self.lora_rank}"
            fix = "use 'adapter' with LoRA, and only then"
            raise InputError("reference_placement", self.reference_placement, problem, fix)
        trackers = [self.report_to] if isinstance(self.report_to, str) else self.report_to or []
        named = [name for name in trackers if name not in ("none", "all")]
        # Which are there is asked only where one is named: it searches the path for each of a dozen.
        missing = sorted(set(named) - set(get_available_reporting_integrations())) if named else []
        if missing:
            fix = "install it (t3d[trackers] has tensorboard and trackio), or leave it out"
            raise InputError("report_to", missing[0], "not installed, or unknown to transformers", fix)
        self._check_state_source()

    def _check_drafter(self) -> None:
        """A drafter has an objective, states and an adapter of its own, and each of them is for drafters."""
        is_drafter = self.objective == "prefix_acceptance"
        if (self.state_source == "draft") != is_drafter:
            problem = f"does not go with objective={self.objective!r}"
            fix = "use state_source='draft' with objective='prefix_acceptance', and only then"
            raise InputError("state_source", self.state_source, problem, fix)
        if is_drafter and not self.lora_rank:
            problem = "a drafter is an adapter on its base"
            raise InputError("lora_rank", self.lora_rank, problem, "use for example lora_rank=16")
        if self.draft_open_prob > 1:
            problem, fix = "no probability", "use a number between 0 and 1"
            raise InputError("draft_open_prob", self.draft_open_prob, problem, fix)
        for name in ("path_weight", "random_token_prob") if is_drafter else ():
            if getattr(self, name):
                raise InputError(name, getattr(self, name), "a drafter has no such term", f"use {name}=0")

    def _check_state_source(self) -> None:
        self._check_drafter()
        check_cross_entropy_terms(self)
        self.mask_prob_range = tuple(self.mask_prob_range)
        if len(self.mask_prob_range) != 2 or not 0 < self.mask_prob_range[0] <= self.mask_prob_range[1] <= 1:
            problem, fix = "not two increasing numbers in (0, 1]", "use for example 0.001 1"
            raise InputError("mask_prob_range", self.mask_prob_range, problem, fix)
        of_random_masks = {
            "state_scope": "token",
            "complementary_states": True,
            "loss_weighting": "inverse_mask_prob",
        }
        for name, value in of_random_masks.items():
            if self.state_source != "random_mask" and getattr(self, name) == value:
                problem = f"state_source={self.state_source!r} has no masking probabilities"
                raise InputError(name, value, problem, "use state_source='random_mask'")

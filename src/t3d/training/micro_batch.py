"""One micro-batch: the forwards that its objective takes, and what is minimised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from t3d.attention.packed_forward import Arrangement, arrange, packed_forward
from t3d.models.head import HeadScores
from t3d.objectives.logprobs import ObjectiveOutput
from t3d.training.config import T3DConfig
from t3d.training.lora import base_of
from t3d.training.loss import (
    BatchCounts,
    draft_objective,
    head_options,
    left_to_right_objective,
    student_objective,
    t3d_objective,
)
from t3d.training.reference import Reference
from t3d.training.scoring import prepare_drafts, reference_scores
from t3d.training.soft_targets import SoftTargets, ask_soft_targets


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """A batch of the collator, and what it is learnt with."""

    batch: Mapping[str, Any]
    counts: BatchCounts
    args: T3DConfig
    accelerator: Accelerator
    mask_token_id: int
    optimizer_step: int
    soft_target_model: torch.nn.Module | None = None
    """Frozen; None: of a batch that asks for soft targets the student itself gives them."""

    def minimise(
        self, model: torch.nn.Module, reference: Reference | None
    ) -> tuple[ObjectiveOutput, HeadScores]:
        """The loss, and what the student says at the loss positions."""
        arrangement = arrange(self.batch, self.args.attention)
        if self.args.objective == "prefix_acceptance":
            return self._drafter(model, arrangement)
        if reference is None:
            return self._student(model, arrangement)
        return self._student_and_reference(model, reference, arrangement)

    def _drafter(
        self, model: torch.nn.Module, arrangement: Arrangement
    ) -> tuple[ObjectiveOutput, HeadScores]:
        base = base_of(self.accelerator.unwrap_model(model))
        with self.accelerator.autocast():
            drafts = prepare_drafts(base, self.batch, arrangement, self.args, self.mask_token_id)
        scores = packed_forward(model, drafts.batch, drafts.arrangement, **drafts.head)
        return draft_objective(scores, drafts.checked, self.batch, self.counts, self.args), scores

    def _student(
        self, model: torch.nn.Module, arrangement: Arrangement
    ) -> tuple[ObjectiveOutput, HeadScores]:
        options = {"targets": self.batch["labels"][None], **head_options(self.args, self.mask_token_id)}
        soft = self._soft_targets(model, arrangement) if "soft_targets" in self.batch else None
        if soft is not None:
            options |= soft.asked_of_student(self.batch["labels"])
        positions = self.batch["loss_positions"]
        scores = packed_forward(model, self.batch, arrangement, loss_positions=positions, **options)
        output = student_objective(scores, self.batch, self.counts, self.args, soft)
        if self.args.left_to_right_weight == 0:
            return output, scores
        checks = self.batch["checks"]
        checked = packed_forward(
            model,
            checks,
            arrange(checks, self.args.attention),
            loss_positions=checks["loss_positions"],
            targets=checks["labels"][None],
        )
        return left_to_right_objective(output, checked, self.batch, self.counts, self.args), scores

    def _soft_targets(self, model: torch.nn.Module, arrangement: Arrangement) -> SoftTargets:
        """What the frozen model says, or the student as it is now, without its dropout."""
        told: Any = self.soft_target_model
        if told is None:
            told = base_of(self.accelerator.unwrap_model(model))
        was_training = told.training
        try:
            with self.accelerator.autocast():
                return ask_soft_targets(told.eval(), self.batch, arrangement, self.args)
        finally:
            told.train(was_training)

    def _student_and_reference(
        self, model: torch.nn.Module, reference: Reference, arrangement: Arrangement
    ) -> tuple[ObjectiveOutput, HeadScores]:
        labels, at = self.batch["labels"], {"mask_token_id": self.mask_token_id}
        at |= {"optimizer_step": self.optimizer_step}
        with self.accelerator.autocast():
            said = reference_scores(reference, self.batch, arrangement, self.args, **at)
        assert said.picked is not None
        if self.args.fake_source == "expectation":
            options = {"targets": labels[None], "against": reference.head(said.hidden)}
        else:
            options = {"targets": torch.stack([labels, said.picked])}
        positions = self.batch["loss_positions"]
        scores = packed_forward(model, self.batch, arrangement, loss_positions=positions, **options)
        return t3d_objective(scores, said, self.batch, self.counts, self.args), scores

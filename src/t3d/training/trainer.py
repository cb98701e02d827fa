"""One trainer for every method: a state source feeds it, an objective tells it what to minimise."""

import copy
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t3d.checkpoints import CheckpointingTrainer
from t3d.counter_rng import counter_uniform
from t3d.data.collate import loss_logits
from t3d.errors import InputError
from t3d.noising import Stream
from t3d.objectives.cross_entropy import cross_entropy_loss
from t3d.objectives.ddo import ddo_loss
from t3d.objectives.logprobs import ObjectiveOutput, reduce_by_sample, token_log_probs
from t3d.objectives.path_consistency import path_loss
from t3d.objectives.t3d import t3d_loss
from t3d.training.config import T3DConfig
from t3d.training.reference import Reference, RefreshReference
from t3d.training.states import EpochShuffle, TrajectoryCollator, TrajectoryDataset, check_trajectories
from t3d.trajectory import Trajectory

_CONFIG_FIELDS_OF_TRAINER = ("eos_token_id", "pad_token_id", "bos_token_id", "use_cache")


class T3DTrainer(CheckpointingTrainer):
    """Distil a student on a teacher's trajectories.

    Use it as any trainer of the field: ``T3DTrainer(model, args, train_dataset=trajectories,
    processing_class=tokenizer).train()``. The student starts from the weights it is given, which
    are the teacher's. One forward of the student and one of the reference per micro-batch.

    Raises InputError for an empty set of trajectories or one that does not fit the student.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by counts of the whole accumulated batch

    def __init__(
        self,
        model: PreTrainedModel,
        args: T3DConfig,
        train_dataset: Sequence[Trajectory],
        processing_class: PreTrainedTokenizerBase,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("eval_dataset") is not None:
            fix = "evaluate the student with t3d.evaluation"
            raise InputError("eval_dataset", "given", "there is no loss on held-out trajectories", fix)
        check_trajectories(train_dataset, processing_class, args.block_size)
        vocab_size = model.config.vocab_size
        collator = TrajectoryCollator(
            config=args,
            pad_token_id=processing_class.pad_token_id,
            mask_token_id=train_dataset[0].mask_token_id,
            vocab_size=min(vocab_size, len(processing_class)),
        )
        self.mask_token_id = collator.mask_token_id
        self._teacher_configs = {name: getattr(model.config, name) for name in _CONFIG_FIELDS_OF_TRAINER}
        self._teacher_generation_config = copy.deepcopy(model.generation_config)
        super().__init__(
            model=model,
            args=args,
            train_dataset=TrajectoryDataset(train_dataset, args, vocab_size),
            data_collator=collator,
            processing_class=processing_class,
            **kwargs,
        )
        self.reference: Reference | None = None
        if args.objective == "t3d":
            self.reference = Reference(model)
            self.add_callback(RefreshReference(self.reference, args.refresh_every))
        self._restore_teacher_configs()
        self._metric_sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        self._metrics_since: int | None = None
        """Optimizer step at which the metric sums began; None while they are empty."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trainer.train; what the Trainer changes in the model's configs is undone at the end."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self._restore_teacher_configs()

    def _restore_teacher_configs(self) -> None:
        """Undo the Trainer's changes, so that an export has the teacher's configs whether it trained or not.

        It turns the cache off (``block_forward`` says itself whether it wants one), and it aligns the
        special tokens with the tokenizer's, which may name fewer stop tokens than SDAR's configs.
        """
        model: Any = self.model
        model.generation_config = copy.deepcopy(self._teacher_generation_config)
        for name, value in self._teacher_configs.items():
            setattr(model.config, name, value)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The objective on one micro-batch, normalised over the whole accumulated batch."""
        if num_items_in_batch is None:
            num_items_in_batch = self._get_num_items_in_batch([inputs], inputs["labels"].device)
        num_trajectories, num_tokens = torch.as_tensor(num_items_in_batch).unbind()
        student_logits = loss_logits(model, inputs)
        if self.reference is None:
            is_masked = inputs["is_masked"]
            real = token_log_probs(student_logits, inputs["labels"])[is_masked]
            output = cross_entropy_loss(student_real_M=real, num_tokens=num_tokens)
        else:
            output = self._t3d_objective(student_logits, inputs, num_trajectories, num_tokens)
        self._add_metrics(output)
        # Gradients are averaged over processes, the counts are global: undo the average.
        loss = output.loss * self.accelerator.num_processes
        return (loss, {"logits": student_logits}) if return_outputs else loss

    def _t3d_objective(
        self, student_logits: Tensor, inputs: dict[str, Tensor], num_trajectories: Tensor, num_tokens: Tensor
    ) -> ObjectiveOutput:
        args = self.args
        assert isinstance(args, T3DConfig) and self.reference is not None
        with torch.no_grad(), self.accelerator.autocast():
            reference_logits = loss_logits(self.reference.model, inputs)
            fake = self._fake_tokens(reference_logits, inputs)
        is_masked, num_rows = inputs["is_masked"], len(inputs["sample_key"])
        row = inputs["loss_row"][is_masked]

        def sequence_log_prob(log_prob_M: Tensor) -> Tensor:
            return reduce_by_sample(log_prob_M[is_masked], row, num_rows, args.log_ratio)

        student_real_M = token_log_probs(student_logits, inputs["labels"])
        ddo = ddo_loss(
            student_real_N=sequence_log_prob(student_real_M),
            reference_real_N=sequence_log_prob(token_log_probs(reference_logits, inputs["labels"])),
            student_fake_N=sequence_log_prob(token_log_probs(student_logits, fake)),
            reference_fake_N=sequence_log_prob(token_log_probs(reference_logits, fake)),
            beta=args.ddo_beta,
            alpha=args.ddo_alpha,
            num_samples=num_trajectories,
        )
        path = path_loss(
            student_real_M=student_real_M,
            weight_M=inputs["token_weight"],
            normaliser=num_tokens if args.path_reduction == "mean" else num_trajectories,
        )
        output = t3d_loss(ddo, path, path_weight=args.path_weight)
        agrees = ((fake == inputs["labels"]) & is_masked).sum() / num_tokens
        return ObjectiveOutput(loss=output.loss, metrics={**output.metrics, "reference/agreement": agrees})

    def _fake_tokens(self, reference_logits: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        """The reference's guess at each loss position (the x0 of Eq. 7's second expectation)."""
        column = torch.arange(reference_logits.shape[-1], device=reference_logits.device)
        logits = reference_logits.float().masked_fill(column == self.mask_token_id, -torch.inf)
        assert isinstance(self.args, T3DConfig)
        if self.args.fake_source == "argmax":
            return logits.argmax(-1)
        key, epoch = (inputs[name][inputs["loss_row"]] for name in ("sample_key", "epoch"))
        # The reference changes between refreshes, so the optimizer step is one of the counters.
        counters = (self.args.seed, epoch, key, int(Stream.FAKE_TOKEN), inputs["loss_position_ids"])
        uniform = counter_uniform(*counters, self.state.global_step)
        cumulative = logits.softmax(-1).cumsum(-1)
        return torch.searchsorted(cumulative, (uniform.float()[:, None] * cumulative[:, -1:]))[:, 0]

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochShuffle:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        assert isinstance(dataset, TrajectoryDataset)
        return EpochShuffle(dataset, self.args.seed)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        """(trajectories, loss tokens) of the accumulated batch over all processes, float [2]."""
        if not batch_samples:
            return None
        counts = torch.zeros(2, device=device)
        for batch in batch_samples:
            counts += torch.tensor([len(batch["sample_key"]), int(batch["is_masked"].sum())], device=device)
        return self.accelerator.gather(counts[None]).sum(0).clamp(min=1)

    def _add_metrics(self, output: ObjectiveOutput) -> None:
        if self._metrics_since is None:
            self._metrics_since = self.state.global_step
        for name, value in {**output.metrics, "loss/total": output.loss}.items():
            self._metric_sums[name] = self._metric_sums[name].to(value.device) + value.detach()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the objective's parts, averaged over the optimizer steps since the last log."""
        if self._metrics_since is not None and "loss" in logs:
            num_steps = self.state.global_step - self._metrics_since
            for name, total in self._metric_sums.items():
                logs[name] = self.accelerator.gather(total[None]).sum().item() / num_steps
            self._metric_sums.clear()
            self._metrics_since = None
        super().log(logs, start_time)

    def save_further_files(self, folder: Path) -> None:
        """The reference belongs to a checkpoint."""
        if self.reference is not None:
            self.reference.save(folder)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.reference is not None:
            self.reference.load(resume_from_checkpoint)

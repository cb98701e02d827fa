"""One trainer for every method: a state source feeds it, an objective tells it what to minimise."""

import copy
import logging
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from t3d.counter_rng import stable_key
from t3d.errors import InputError
from t3d.models.gated import GatedAdapter
from t3d.models.head import HeadScores
from t3d.models.loading import LoadedModel
from t3d.models.own_settings import set_own_settings
from t3d.objectives.logprobs import ObjectiveOutput
from t3d.predicts import predicts_of
from t3d.training.config import T3DConfig
from t3d.training.config_checks import warn_of_small_set
from t3d.training.ignored import check_training_fields
from t3d.training.log import LogLineAndBar, LogLineAndStage, MetricLog
from t3d.training.lora import base_of, is_adapted
from t3d.training.loss import BatchCounts, count_batch, nll_by_mask_ratio
from t3d.training.micro_batch import MicroBatch
from t3d.training.reference import REFERENCE_ADAPTER, Reference, RefreshReference, build_reference
from t3d.training.scoring import refuse_sharding
from t3d.training.selection import as_trajectories, check_trajectories, select_trajectories
from t3d.training.sharding import is_sharded_model, keep_float32, let_cpus_shard, make_room, share_of
from t3d.training.soft_targets import check_soft_targets
from t3d.training.states import EpochShuffle, TrajectoryCollator, TrajectoryDataset
from t3d.training.student_settings import student_settings
from t3d.training.trained import check_trained
from t3d.trajectory import Trajectory
from t3d.work.checkpoints import CheckpointingTrainer

Evaluator = Callable[[PreTrainedModel], dict[str, float]]
"""Scores a student, in evaluation mode, during training; ``few_step_accuracy`` must be among the scores. Of a
drafter it is given the base that the drafter is attached to, and ``accepted_per_draft`` must be."""
ACCEPTED = "accepted_per_draft"

_logger = logging.getLogger(__name__)
_CONFIG_FIELDS_OF_TRAINER = ("eos_token_id", "pad_token_id", "bos_token_id", "use_cache")


class T3DTrainer(CheckpointingTrainer):
    """Distil a student on a teacher's trajectories.

    Use it as any trainer of the field: ``T3DTrainer(model, args, train_dataset=trajectories,
    processing_class=tokenizer).train()``. The student starts from the weights it is given, which
    are the teacher's; a PEFT model trains its adapter. One forward of the student and one of the
    reference per micro-batch (:class:`~t3d.training.micro_batch.MicroBatch`). ``evaluator`` scores the
    student every ``eval_steps``. Its configs say from now on how it decodes: by ``own_settings``, else by
    :func:`student_settings`.

    With objective ``prefix_acceptance`` the model is a :class:`~t3d.models.gated.GatedAdapter`, which becomes
    a drafter; its base, best frozen, is not changed, nor are its configs. Only that trains a base that
    predicts the next token.

    ``soft_target_model`` gives the targets that ``soft_target_weight`` weighs, unless the student does. It is
    frozen, moves to the student's device, stays whole in every process, and is in no checkpoint.

    Raises InputError for an empty set of trajectories or one that does not fit the student, and for settings
    that others leave without effect.
    """

    loss_is_scaled_for_ga = True  # compute_loss divides by counts of the whole accumulated batch
    args: T3DConfig

    def __init__(
        self,
        model: torch.nn.Module,
        args: T3DConfig,
        train_dataset: Sequence[Trajectory] | Iterable[Mapping[str, Any]],
        processing_class: PreTrainedTokenizerBase,
        evaluator: Evaluator | None = None,
        own_settings: Mapping[str, Any] | None = None,
        soft_target_model: LoadedModel | None = None,
        **kwargs: Any,
    ) -> None:
        check_training_fields(args)
        if kwargs.pop("eval_dataset", None) is not None:
            fix = "give an evaluator, a function that scores the student"
            raise InputError("eval_dataset", "given", "there is no loss on held-out trajectories", fix)
        check_trained(args, model, has_evaluator=evaluator is not None)
        train_dataset = as_trajectories(train_dataset)
        check_trajectories(train_dataset, processing_class, args.block_size)
        base: Any = base_of(model)
        config = base.config
        collator = TrajectoryCollator(
            config=args,
            pad_token_id=processing_class.pad_token_id or 0,  # no attention and no loss reads it
            mask_token_id=train_dataset[0].mask_token_id,
            vocab_size=min(config.vocab_size, len(processing_class)),
            predicts=predicts_of(config),
            told_predicts="self" if soft_target_model is None else soft_target_model.predicts,
        )
        self.selection = select_trajectories(train_dataset, args, config)
        kept, told = self.selection.kept, soft_target_model
        check_soft_targets(args, told, base, processing_class, kept)
        if self.selection.report():
            _logger.warning(self.selection.report())
        warn_of_small_set(args, len(kept))
        self.evaluator, self._scores = evaluator, (-1, {})
        self.mask_token_id = collator.mask_token_id
        self._sample_ids = {stable_key(trajectory.id): trajectory.id for trajectory in train_dataset}
        if not isinstance(model, GatedAdapter):  # a drafter's base stays as it is
            set_own_settings(base, own_settings or student_settings(train_dataset, args.block_size))
        self._teacher_configs = {name: getattr(config, name) for name in _CONFIG_FIELDS_OF_TRAINER}
        self._teacher_generation_config = copy.deepcopy(base.generation_config)
        super().__init__(
            model=model,
            args=args,
            train_dataset=TrajectoryDataset(kept, args, processing_class.pad_token_id),
            data_collator=collator,
            processing_class=processing_class,
            eval_dataset=None if evaluator is None else (),  # the Trainer asks for one; `evaluate` has none
            **kwargs,
        )
        for printing, ours in ((PrinterCallback, LogLineAndStage), (ProgressCallback, LogLineAndBar)):
            if self.pop_callback(printing) is not None:  # a notebook has another
                self.add_callback(ours)
        self.reference = self._reference_of(model) if args.objective == "t3d" else None
        self.soft_target_model: Any = None if told is None else told.model.to(args.device)
        if told is not None:
            self.soft_target_model.eval().requires_grad_(False)
        self._restore_teacher_configs()
        self.metric_log = MetricLog(args.mask_ratios)

    def _reference_of(self, model: torch.nn.Module) -> Reference:
        """The student as it is, and the callback that refreshes it."""
        args = self.args
        assert args.reference_placement is not None, "T3DConfig has filled it in"
        reference = build_reference(model, args.reference_placement)
        score = self._few_step_score if self.evaluator is not None else None
        refresh = RefreshReference(reference, args.refresh_every, args.reference_choice, score)
        self.add_callback(refresh)
        return reference

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trainer.train; what the Trainer changes in the model's configs is undone at the end."""
        self.metric_log = MetricLog(self.args.mask_ratios)
        try:
            return super().train(*args, **kwargs)
        finally:
            self._restore_teacher_configs()

    def _restore_teacher_configs(self) -> None:
        """Undo the Trainer's changes, so that an export has the teacher's configs whether it trained or not.

        It turns the cache off (``packed_forward`` says itself whether it wants one), and it aligns the
        special tokens with the tokenizer's, which may name fewer stop tokens than SDAR's configs.
        """
        model: Any = base_of(self.model)
        model.generation_config = copy.deepcopy(self._teacher_generation_config)
        for name, value in self._teacher_configs.items():
            setattr(model.config, name, value)

    def create_accelerator_and_postprocess(self) -> None:
        """As the Trainer does; FSDP2 shards on CPUs too, and keeps what is float32."""
        if self.args.device.type == "cpu" and self.args.distributed_state is not None:
            let_cpus_shard(self.args.distributed_state)
        super().create_accelerator_and_postprocess()
        keep_float32(self.accelerator)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        refuse_sharding(self.accelerator, self.args)
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.reference is not None:
            self.reference.prepare(self.accelerator)
        return prepared

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Any]]:
        """The objective on one micro-batch, normalised over the whole accumulated batch.

        Raises DivergedError, which names the samples, if it is not a finite number.
        """
        if num_items_in_batch is None:
            num_items_in_batch = self._get_num_items_in_batch([inputs], inputs["labels"].device)
        counts = BatchCounts(*torch.as_tensor(num_items_in_batch).unbind())
        micro_batch = MicroBatch(
            batch=inputs,
            counts=counts,
            args=self.args,
            accelerator=self.accelerator,
            mask_token_id=self.mask_token_id,
            optimizer_step=self.state.global_step,
            soft_target_model=self.soft_target_model,
        )
        output, scores = micro_batch.minimise(model, self.reference)
        self._record(output, scores, inputs)
        # Gradients are averaged over processes, the counts are global: undo the average.
        loss = output.loss * self.accelerator.num_processes
        return (loss, {"scores": scores}) if return_outputs else loss

    def _record(self, output: ObjectiveOutput, scores: HeadScores, inputs: dict[str, Any]) -> None:
        if not torch.isfinite(output.loss):
            ids = [self._sample_ids[key] for key in inputs["sample_key"].tolist()]
            parts = {name: round(value.item(), 6) for name, value in output.metrics.items()}
            named = f"its parts: {parts}; samples of this micro-batch: {', '.join(ids)}"
            raise self.diverged(f"the loss is {output.loss.item()} ({named})")
        metrics = {**output.metrics, "loss/total": output.loss}
        nll = nll_by_mask_ratio(scores, inputs, self.args.mask_ratios)
        self.metric_log.add(self.state.global_step, metrics, nll, inputs)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochShuffle:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        assert isinstance(dataset, TrajectoryDataset)
        return EpochShuffle(dataset, self.args.seed)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        """BatchCounts of the accumulated batch over all processes, float [4]."""
        if not batch_samples:
            return None
        counts = torch.zeros(len(BatchCounts._fields), device=device)
        for batch in batch_samples:
            counts += torch.tensor(count_batch(batch), device=device)
        return self.accelerator.gather(counts[None]).sum(0).clamp(min=1)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The evaluator's scores of the present student, named ``eval_...``, logged as the Trainer does."""
        del args, kwargs
        with self.metric_log.paused():
            metrics = {f"eval_{name}": value for name, value in self._scores_now().items()}
            self.log(dict(metrics))
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _scores_now(self) -> dict[str, float]:
        """The evaluator's scores, computed once per optimizer step.

        Raises DivergedError for weights, and InputError for scores, that are not finite numbers: no best
        checkpoint or reference is chosen by them.
        """
        assert self.evaluator is not None
        if self._scores[0] != self.state.global_step:
            self.check_weights()
            student = base_of(self.accelerator.unwrap_model(self.model))
            make_room(student)
            was_training = student.training
            try:
                with torch.no_grad():
                    self._scores = self.state.global_step, self.evaluator(student.eval())
            finally:
                student.train(was_training)
            name = ACCEPTED if self.args.objective == "prefix_acceptance" else "few_step_accuracy"
            score = self._scores[1][name]
            if not math.isfinite(score):
                fix = f"let it return a finite {name}"
                raise InputError("evaluator", score, f"its {name} is not a finite number", fix)
        return self._scores[1]

    def _few_step_score(self) -> float:
        with self.metric_log.paused():
            return self._scores_now()["few_step_accuracy"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the objective's parts, averaged over the optimizer steps since the last log."""
        if "loss" in logs:
            logs |= self.metric_log.collect(self.state.global_step, self.accelerator.gather)
            if not self.state.log_history:
                logs |= {f"data/{name}": count for name, count in self.selection.counts().items()}
                if self.model is not None and is_sharded_model(self.model):
                    logs["share_of_weights"] = share_of(self.model)
        super().log(logs, start_time)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        with self.metric_log.paused():
            super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if is_adapted(self.model):  # PEFT writes every adapter, but the reference has a file of its own
            folder = Path(str(output_dir or self.args.output_dir)) / REFERENCE_ADAPTER
            shutil.rmtree(folder, ignore_errors=True)

    def save_further_files(self, folder: Path) -> None:
        """The reference belongs to a checkpoint."""
        if self.reference is not None:
            self.reference.save(folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The reference, too: of all that loads a checkpoint, DeepSpeed leaves this to the Trainer."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.reference is not None and checkpoint is not None:
            self.reference.load(checkpoint)

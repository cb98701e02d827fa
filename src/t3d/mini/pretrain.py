"""Pretraining of a joint mini teacher: plain block diffusion with random masks at all levels.

Nothing in it makes the model worse at few steps; a batch has blocks of 4 or of 8.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GenerationConfig, PreTrainedTokenizerBase, TrainingArguments

from t3d.attention.packed_forward import arrange, packed_forward
from t3d.counter_rng import counter_uniform
from t3d.errors import InputError
from t3d.mini.model_card import read_stages, write_model_card
from t3d.mini.pretrain_config import PretrainConfig
from t3d.model_choice import BUNDLED_MODELS
from t3d.models.loading import load_model
from t3d.models.older_names import use_older_tokenizer_names
from t3d.models.sdar import SDARConfig, SDARForCausalLM
from t3d.models.token_ids import tokenizer_hash
from t3d.problems.prompts import prompt_ids, token_ids
from t3d.tasks.mini.suite import TASKS
from t3d.tasks.mini.tokenizer import END_OF_TEXT, TURN_END, mini_tokenizer
from t3d.training.block_grid import TrainingExample, lay_on_grid
from t3d.training.noising import NoiseSource, random_noise_mask
from t3d.training.packing import pack_copies
from t3d.work.checkpoints import CheckpointingTrainer, newest_checkpoint
from t3d.work.files import atomic_folder
from t3d.work.kept import claim
from t3d.work.plan import described, differences
from t3d.work.versions import versions

BLOCK_SIZES = (4, 8, 8)
"""A batch has one of them, each as likely: the larger blocks are the harder ones to fill."""


class StreamDataset(Dataset):
    """Fresh problems of all tasks with one random solution each; item ``i`` depends on (seed, i) only."""

    def __init__(self, config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.seed, self.shares = tokenizer, config.seed, config.task_shares
        self.size = config.num_optimizer_steps * config.batch_size
        (self.turn_end,), (self.pad,) = token_ids(tokenizer, TURN_END), token_ids(tokenizer, END_OF_TEXT)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> TrainingExample:
        rng = random.Random(f"{self.seed}/{index}")
        (name,) = rng.choices(list(TASKS), self.shares)
        problem, solution = TASKS[name].draw(rng, "train")
        prompt = prompt_ids(self.tokenizer, problem.question)
        response = [*token_ids(self.tokenizer, solution), self.turn_end]
        filler = -(len(prompt) + len(response)) % max(BLOCK_SIZES)
        response += [self.pad] * filler
        return TrainingExample(
            sample_key=index,
            epoch=0,
            prompt_ids=prompt,
            response_ids=response,
            step_map=[1] * len(response),
            token_weight=[1.0] * len(response),
            num_loss_tokens=len(response),
        )


@dataclass(frozen=True)
class PretrainCollator:
    """Examples to a batch with fresh random masks; the batch's block size comes from its samples."""

    seed: int
    pad_token_id: int
    mask_token_id: int

    def __call__(self, examples: Sequence[TrainingExample]) -> dict[str, Any]:
        """The batch of :func:`~t3d.training.packing.pack_copies` with a ``loss_weight`` [M]."""
        choice = counter_uniform(self.seed, examples[0].sample_key).item()
        block_size = BLOCK_SIZES[int(choice * len(BLOCK_SIZES))]
        grid = lay_on_grid(examples, block_size, self.pad_token_id)
        noise = NoiseSource(seed=self.seed, epoch_R=grid.epoch_R, sample_key_R=grid.sample_key_R)
        noise_mask, mask_prob = random_noise_mask(grid.position_RKS, grid.valid_RKS, noise)
        noisy_ids = grid.ids_RKS.masked_fill(noise_mask, self.mask_token_id)
        batch = pack_copies(grid, noisy_ids, noise_mask)
        batch["loss_weight"] = 1 / mask_prob[noise_mask] / grid.valid_RKS.sum()
        return batch


class PretrainTrainer(CheckpointingTrainer):
    """transformers' Trainer with the block-diffusion ELBO as its loss."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Tensor:  # noqa: ARG002
        """Eq. 3: cross-entropy of the masked tokens, each weighted by 1 / p, per response token."""
        positions, targets_1M = inputs["loss_positions"], inputs["labels"][None]
        scores: Any = packed_forward(
            model, inputs, arrange(inputs), loss_positions=positions, targets=targets_1M
        )
        return -(scores.log_probs[0] * inputs["loss_weight"]).sum()


def build_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> SDARForCausalLM:
    """A randomly initialised SDAR of the configured size."""
    model_config = SDARConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.hidden_size // config.num_heads,
        max_position_embeddings=512,
        initializer_range=0.05,
        tie_word_embeddings=True,
        block_size=4,
        mask_token_id=tokenizer.mask_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return SDARForCausalLM(model_config)


def pretrain(config: PretrainConfig) -> Path:
    """Train a teacher, or continue a run that was cut; returns the finished model's folder.

    Checkpoints lie in OUTPUT/checkpoints, the model in OUTPUT/teacher with its card and its log; a
    finished run only returns it. Raises InputError if another run is using the output, or if what
    another one made lies there.
    """
    output, tokenizer = Path(config.output), mini_tokenizer()
    plan = _plan(config, tokenizer)
    with claim(output / "checkpoints", plan, "checkpoint-*") as checkpoints:
        if not _is_finished(output / "teacher", plan):
            torch.manual_seed(config.seed)
            trainer = _build_trainer(config, tokenizer, checkpoints)
            last = newest_checkpoint(checkpoints)
            started = time.perf_counter()
            trainer.train_from(last)
            seconds = time.perf_counter() - started
            stage = {"plan": plan, "seconds": seconds, "resumed": last is not None, "versions": versions()}
            _export(trainer, output / "teacher", config.start_from, stage)
    return output / "teacher"


def _plan(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    plan = asdict(config)
    for name in ("output", "save_every", "show_progress"):
        del plan[name]
    if config.start_from is not None:
        plan["start_from"] = load_model(config.start_from, device="cpu").weights_hash
    plan["task_shares"] = dict(zip(TASKS, config.task_shares, strict=True))
    return {**plan, "block_sizes": list(BLOCK_SIZES), "tokenizer": tokenizer_hash(tokenizer)}


def _is_finished(teacher: Path, plan: dict[str, Any]) -> bool:
    if not teacher.exists():
        return False
    stages, _ = read_stages(teacher)
    found = differences(stages[-1]["plan"], plan) if stages else ["unknown"]
    if found:
        problem = f"holds a teacher that other settings made: {described(found)}"
        raise InputError("output", str(teacher), problem, "use another output, or delete the folder")
    return True


def _export(trainer: PretrainTrainer, folder: Path, start: str | None, stage: dict[str, Any]) -> None:
    """Write the SDAR checkpoint folder, with tokenizer, stop ids, card and log."""
    model, tokenizer = trainer.model, trainer.processing_class
    assert isinstance(model, SDARForCausalLM)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    stages, log = ([], []) if start is None else read_stages(BUNDLED_MODELS.get(start, start))
    log += [{"stage": len(stages) + 1, **entry} for entry in trainer.state.log_history]
    stops = [*token_ids(tokenizer, TURN_END), *token_ids(tokenizer, END_OF_TEXT)]
    model.config.use_cache = True  # the Trainer turned it off
    model.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=tokenizer.pad_token_id)
    with atomic_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        use_older_tokenizer_names(partial)
        write_model_card(partial, [*stages, stage], log)


def _build_trainer(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerBase, checkpoints: Path
) -> PretrainTrainer:
    model = build_model(config, tokenizer) if config.start_from is None else _load_start(config, tokenizer)
    return PretrainTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(checkpoints),
            max_steps=config.num_optimizer_steps,
            per_device_train_batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            adam_beta2=config.adam_beta2,
            seed=config.seed,
            bf16=config.bf16,
            logging_steps=20,
            save_steps=config.save_every,
            save_total_limit=2,
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=not config.show_progress,
            dataloader_pin_memory=False,
            use_cpu=True,
        ),
        train_dataset=StreamDataset(config, tokenizer),
        data_collator=PretrainCollator(config.seed, tokenizer.pad_token_id, tokenizer.mask_token_id),
        processing_class=tokenizer,
    )


def _load_start(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> SDARForCausalLM:
    """The model to train on from. Raises InputError unless network and tokenizer are the configured ones."""
    assert config.start_from is not None
    loaded = load_model(config.start_from, device="cpu")
    expected = build_model(config, tokenizer)
    assert isinstance(loaded.model, SDARForCausalLM)
    if loaded.tokenizer_hash != tokenizer_hash(tokenizer):
        problem, fix = "its tokenizer is not the suite's", "train from scratch (no start_from)"
        raise InputError("start_from", config.start_from, problem, fix)
    shapes = [{name: value.shape for name, value in m.state_dict().items()} for m in (loaded.model, expected)]
    if shapes[0] != shapes[1]:
        fix = "give that teacher's sizes (see its pretrain.json)"
        raise InputError("start_from", config.start_from, "its network has other sizes", fix)
    return loaded.model

"""Pretraining of the bundled teacher: plain block diffusion with random masks at all levels.

Nothing in it makes the model worse at few steps; block sizes 4 and 8 alternate from batch to batch.
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GenerationConfig, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from t3d.atomic import atomic_folder
from t3d.counter_rng import counter_uniform
from t3d.data.collate import TrainingExample, join_copies, lay_on_grid, loss_logits
from t3d.data.prompts import prompt_ids, token_ids
from t3d.errors import require_positive
from t3d.mini.chain import ChainTask
from t3d.mini.model_card import write_model_card
from t3d.mini.tokenizer import END_OF_TEXT, TURN_END, build_mini_tokenizer
from t3d.models.sdar import SDARConfig, SDARForCausalLM
from t3d.noising import NoiseSource, random_noise_mask

BLOCK_SIZES = (4, 8)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How a mini teacher is made."""

    output: str
    """Folder of checkpoints, log and the finished model."""
    num_optimizer_steps: int = 2400
    batch_size: int = 64
    learning_rate: float = 3e-3
    adam_beta2: float = 0.98
    warmup_steps: int = 100
    weight_decay: float = 0.01
    seed: int = 0
    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    num_key_value_heads: int = 2
    intermediate_size: int = 384
    save_every: int = 200
    """Optimizer steps between checkpoints; a killed run continues from the last one."""
    show_progress: bool = True

    def __post_init__(self) -> None:
        require_positive(
            self, "num_optimizer_steps", "batch_size", "save_every", "hidden_size", "num_layers", "num_heads"
        )


class StreamDataset(Dataset):
    """Fresh problems with one random solution each; item ``i`` depends on (seed, i) only."""

    def __init__(self, task: ChainTask, tokenizer: PreTrainedTokenizerBase, size: int, seed: int) -> None:
        self.task, self.tokenizer, self.size, self.seed = task, tokenizer, size, seed
        (self.turn_end,), (self.pad,) = token_ids(tokenizer, TURN_END), token_ids(tokenizer, END_OF_TEXT)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> TrainingExample:
        problem, solution = self.task.draw(random.Random(f"{self.seed}/{index}"), "train")
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
        """The batch of :func:`~t3d.data.collate.join_copies` with a ``loss_weight`` [M]."""
        choice = counter_uniform(self.seed, examples[0].sample_key).item()
        block_size = BLOCK_SIZES[int(choice * len(BLOCK_SIZES))]
        grid = lay_on_grid(examples, block_size, self.pad_token_id)
        noise = NoiseSource(seed=self.seed, epoch_R=grid.epoch_R, sample_key_R=grid.sample_key_R)
        noise_mask, mask_prob = random_noise_mask(grid.position_RKS, grid.valid_RKS, noise)
        noisy_ids = grid.ids_RKS.masked_fill(noise_mask, self.mask_token_id)
        batch: dict[str, Any] = join_copies(grid, noisy_ids, noise_mask)
        batch["loss_weight"] = 1 / mask_prob[noise_mask] / grid.valid_RKS.sum()
        return batch


class PretrainTrainer(Trainer):
    """transformers.Trainer with the block-diffusion ELBO as its loss."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Tensor:  # noqa: ARG002
        """Eq. 3: cross-entropy of the masked tokens, each weighted by 1 / p, per response token."""
        logits = loss_logits(model, inputs)
        nll = torch.nn.functional.cross_entropy(logits.float(), inputs["labels"], reduction="none")
        return (nll * inputs["loss_weight"]).sum()


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

    Checkpoints lie in OUTPUT/checkpoints, the model in OUTPUT/teacher with its card and its log.
    """
    task, output = ChainTask(), Path(config.output)
    tokenizer = build_mini_tokenizer(task.corpus_words())
    torch.manual_seed(config.seed)
    checkpoints = output / "checkpoints"
    model = build_model(config, tokenizer)
    trainer = PretrainTrainer(
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
            logging_steps=20,
            save_steps=config.save_every,
            save_total_limit=2,
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=not config.show_progress,
            dataloader_pin_memory=False,
            use_cpu=True,
        ),
        train_dataset=StreamDataset(
            task, tokenizer, config.num_optimizer_steps * config.batch_size, config.seed
        ),
        data_collator=PretrainCollator(config.seed, tokenizer.pad_token_id, tokenizer.mask_token_id),
        processing_class=tokenizer,
    )
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=last)
    seconds = time.perf_counter() - started
    with atomic_folder(output / "teacher") as folder:
        save_teacher(model, tokenizer, folder)
        write_model_card(folder, config, trainer.state.log_history, seconds, resumed=last is not None)
    return output / "teacher"


def save_teacher(model: SDARForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write an SDAR checkpoint folder with tokenizer and stop ids."""
    stops = [*token_ids(tokenizer, TURN_END), *token_ids(tokenizer, END_OF_TEXT)]
    model.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

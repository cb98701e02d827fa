"""The whole road on real text: GSM8K through the same code as the mini suite.

A tiny SDAR with a 4k BPE, both made here from GSM8K's training text, cannot solve the problems. What
distillation must do is bring its four-tokens-per-step text closer to its own full-step text.
"""

import gzip
import json
import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, TrainingArguments

from t3d import DecodeParams, SDARConfig, SDARForCausalLM, load_model, read_trajectories
from t3d.decoding.llm import LLM
from t3d.decoding.posed_requests import decode_requests
from t3d.decoding.rollout import roll_out_to_file
from t3d.evaluation.text_measures import token_agreement
from t3d.mini.pretrain import PretrainCollator, PretrainTrainer
from t3d.problems.problem import Problem
from t3d.problems.prompts import prompt_ids
from t3d.tasks.mini.tokenizer import TURN_END, wrap_tokenizer
from t3d.training.block_grid import TrainingExample
from t3d.training.config import T3DConfig
from t3d.training.run import distil

VOCAB_SIZE, NUM_PROMPTS, MAX_NEW_TOKENS, MAX_PROMPT_TOKENS = 4096, 64, 32, 80


@pytest.fixture(scope="module")
def gsm8k() -> list[dict]:
    folder = os.environ.get("T3D_DATA")
    if folder is None:
        pytest.skip("T3D_DATA is not set: the folder with gsm8k/train.jsonl.gz")
    with gzip.open(Path(folder) / "gsm8k" / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def bpe_tokenizer(texts: list[str]):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE - 4, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return wrap_tokenizer(backend)


def pretrained_teacher(rows: list[dict], folder: Path, num_optimizer_steps: int) -> Path:
    tokenizer = bpe_tokenizer([row["question"] for row in rows])
    torch.manual_seed(0)
    model = SDARForCausalLM(
        SDARConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=256,
            initializer_range=0.05,
            tie_word_embeddings=True,
        )
    )
    turn_end = tokenizer.convert_tokens_to_ids(TURN_END)
    examples = []
    for index, row in enumerate(rows):
        prompt = prompt_ids(tokenizer, row["question"])
        response = [*tokenizer(row["answer"])["input_ids"], turn_end][:MAX_NEW_TOKENS]
        if len(prompt) <= MAX_PROMPT_TOKENS:
            ones = [1] * len(response)
            examples.append(
                TrainingExample(
                    sample_key=index,
                    epoch=0,
                    prompt_ids=prompt,
                    response_ids=response,
                    step_map=ones,
                    token_weight=ones,
                    num_loss_tokens=len(response),
                )
            )
    trainer = PretrainTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "pretrain"),
            max_steps=num_optimizer_steps,
            per_device_train_batch_size=16,
            learning_rate=3e-3,
            warmup_steps=20,
            save_strategy="no",
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=examples,
        data_collator=PretrainCollator(0, tokenizer.pad_token_id, tokenizer.mask_token_id),
    )
    trainer.train()
    model.generation_config = GenerationConfig(eos_token_id=[turn_end, tokenizer.eos_token_id])
    model.save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    return folder / "teacher"


@pytest.mark.slow  # continuous integration runs it all the same
def test_distillation_brings_few_step_text_closer_to_the_teachers_full_step_text(gsm8k, tmp_path):
    teacher_folder = pretrained_teacher(gsm8k[NUM_PROMPTS:2560], tmp_path, num_optimizer_steps=150)
    problems = [
        Problem(id=f"gsm8k/{index}", question=row["question"])
        for index, row in enumerate(gsm8k[:NUM_PROMPTS])
    ]
    full_steps = DecodeParams(temperature=0.0, max_new_tokens=MAX_NEW_TOKENS)
    one_step = DecodeParams(temperature=0.0, max_new_tokens=MAX_NEW_TOKENS, steps_per_block=1)
    teacher = load_model(teacher_folder, device="cpu")
    requests = decode_requests(teacher.tokenizer, problems)

    def run(loaded, params):
        return LLM(loaded).decode(requests, params)

    target = [completion.visible_ids for completion in run(teacher, full_steps)]
    before = token_agreement([completion.response_ids for completion in run(teacher, one_step)], target)

    file = tmp_path / "trajectories.parquet"
    roll_out_to_file(teacher, problems, full_steps, file)
    config = T3DConfig(
        output_dir=str(tmp_path / "checkpoints"),
        max_steps=60,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        warmup_steps=5,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    distil(teacher, read_trajectories(file), config, tmp_path / "student")
    done = run(load_model(tmp_path / "student", device="cpu"), one_step)
    after = token_agreement([completion.response_ids for completion in done], target)
    print(f"agreement at 4 tokens per step: {100 * before:.1f} % before, {100 * after:.1f} % after")
    assert after - before >= 0.10

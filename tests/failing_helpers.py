"""Models and engines that raise."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from t3d.decoding import engine
from t3d.decoding.params import DecodeParams
from t3d.decoding.rollout import roll_out
from t3d.models.loading import LoadedModel, load_model
from t3d.problems.problem import Problem


def poisoned(loaded: LoadedModel, texts: Sequence[str], word: str) -> dict[str, Any]:
    """Let the model raise on texts with the word; lower ``is_on`` of the flag, and it does not any more.

    ``num_raised`` counts.
    """
    tokenizer, flag = loaded.tokenizer, {"is_on": True, "num_raised": 0}
    harmless = {token for text in texts if word not in text for token in tokenizer(text)["input_ids"]}
    (first, *_) = [text for text in texts if word in text]
    (bad, *_) = [token for token in tokenizer(first)["input_ids"] if token not in harmless]

    def hook(module: Any, arguments: Any, keywords: Any) -> None:
        ids = keywords.get("input_ids", arguments[0] if arguments else None)
        if flag["is_on"] and torch.is_tensor(ids) and (ids == bad).any():
            flag["num_raised"] += 1
            raise torch.OutOfMemoryError("CUDA out of memory")

    loaded.model.get_input_embeddings().register_forward_pre_hook(hook, with_kwargs=True)
    return flag


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let every forward raise, by a fault of ours, while the request of this id is decoded."""
    real = engine.Engine._step

    def step(self: Any, rows: Any, *others: Any) -> Any:
        if any(row.id == name for row in rows.unfinished):
            raise RuntimeError("a bug")
        return real(self, rows, *others)

    monkeypatch.setattr(engine.Engine, "_step", step)


def broken_command(checkpoint: Path, folder: Path) -> list[str]:
    """Flags: prompts, and a model that has no numbers for a word of one, whichever process reads it."""
    model = load_model(checkpoint, device="cpu")
    questions = ["how many apples", "HOW MANY PEARS", "how many", "apples"]
    problems = [Problem(id=str(number), question=text) for number, text in enumerate(questions)]
    rolled = roll_out(model, problems, DecodeParams(max_new_tokens=4))
    elsewhere = {token for one in rolled for token in one.response_ids}
    elsewhere |= {token for one in rolled if one.id != "1" for token in one.prompt_ids}
    bad = min(set(rolled[1].prompt_ids) - elsewhere)
    with torch.no_grad():
        model.model.get_input_embeddings().weight[bad] = float("nan")
    model.model.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    prompts = folder / "prompts.jsonl"
    rows = [{"id": str(number), "question": text, "answer": "1"} for number, text in enumerate(questions)]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    line = ["--model", str(folder / "model"), "--prompts", str(prompts), "--device", "cpu"]
    return [*line, "--max-new-tokens", "4", "--chunk-size", "2"]

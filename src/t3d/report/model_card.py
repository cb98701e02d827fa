"""The card of a student, ``README.md`` beside its weights: what it is, what was measured, what was not."""

import json
from pathlib import Path
from typing import Any

import yaml

from t3d.report.card_facts import CardFacts

MARK = "<!-- Written by t3d card, which writes over it. -->"
_TRAINING = ("objective", "state_source", "max_steps", "per_device_train_batch_size")
_TRAINING += ("gradient_accumulation_steps", "num_processes", "learning_rate", "warmup_steps", "block_size")
_TRAINING += ("path_weight", "random_token_prob", "lora_rank", "bf16", "seed")


def card_text(facts: CardFacts) -> str:
    """The card, Markdown with the hub's front matter."""
    parts = [
        _front_matter(facts),
        f"{MARK}\n\n# {facts.name}\n",
        "A block-diffusion language model that was trained with `t3d` to write several tokens per forward.\n",
        _results(facts),
        _decoding(facts),
        _data(facts),
        _training(facts),
        _limits(facts),
        _licence(facts),
        f"SHA-256 of the weights, as `t3d` computes it: `{facts.weights_hash}`.\n",
    ]
    return "\n".join(parts)


def is_own_card(path: Path) -> bool:
    """Whether ``t3d card`` wrote a file."""
    return MARK in path.read_text(encoding="utf-8", errors="replace")


def _front_matter(facts: CardFacts) -> str:
    fields: dict[str, Any] = {"library_name": "t3d", "pipeline_tag": "text-generation"}
    if facts.licence is not None:
        fields["license"] = facts.licence
    if facts.is_base_on_hub:
        fields["base_model"] = facts.base
    fields["tags"] = ["block-diffusion", "diffusion-language-model", "self-distillation"]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _told_base(facts: CardFacts) -> str | None:
    """A hub id as it is; of a path the last part, as a card is read by others."""
    if facts.base is None or facts.is_base_on_hub:
        return facts.base
    return Path(facts.base).name


def _results(facts: CardFacts) -> str:
    lines = [
        "## Results\n",
        "| task | setting | accuracy % [95 %] | prompts | TokPS | TPF | answers that end |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in facts.evaluations:
        for row in record["results"]:
            low, high = row["ci95"]
            lines.append(
                f"| {row['task']} | {row['setting']} | {row['accuracy']:.1f} [{low:.1f}, {high:.1f}] "
                f"| {row.get('num_prompts', row['n'])} | {row['tokens_per_step']:.2f} "
                f"| {row['tokens_per_forward']:.2f} | {row['stopped']:.0%} |"
            )
    if not facts.evaluations:
        return "## Results\n\nNone: no evaluation of these weights was given.\n"
    told = "TokPS, TPF: committed tokens per denoising step and per forward. Intervals are over prompts, of "
    told += "one training. `B8-T4` means blocks of 8 and four tokens per denoising step.\n"
    return "\n".join([*lines, "", told])


def _decoding(facts: CardFacts) -> str:
    own = json.dumps(dict(facts.settings), sort_keys=True) if facts.settings else "nothing"
    code = "from t3d import LLM\n\nllm = LLM('path/or/id')  # decodes so without DecodeParams\n"
    code += "print(llm.generate(['...'])[0].text)"
    told = "The checkpoint says of itself, and every command of `t3d` follows:"
    return f"## Decoding\n\n{told} `{own}`.\n\n```python\n{code}\n```\n"


def _data(facts: CardFacts) -> str:
    match facts.training:
        case {"trajectories": {"count": int() as count}}:
            records = f"{count:,} records. "
        case _:
            records = ""
    if facts.data is None:
        return f"## Training data\n\n{records}Where they are from is not recorded.\n"
    if "described" in facts.data:
        return f"## Training data\n\n{records}{facts.data['described']}\n"
    told = ", ".join(
        f"{name} {Path(str(value)).name if name == 'prompts' else value}"
        for name, value in facts.data.items()
    )
    return f"## Training data\n\n{records}Rolled out by `t3d rollout`: {told}.\n"


def _training(facts: CardFacts) -> str:
    if facts.training is None:
        return "## Training\n\nNot recorded.\n"
    rows = [
        f"| {name} | {facts.training[name]} |" for name in _TRAINING if facts.training.get(name) is not None
    ]
    base = "" if facts.base is None else f"Base: `{_told_base(facts)}`.\n\n"
    return "\n".join([f"## Training\n\n{base}| setting | value |\n|---|---|", *rows, ""])


def _limits(facts: CardFacts) -> str:
    tasks = sorted({row["task"] for record in facts.evaluations for row in record["results"]})
    known = f"beyond {', '.join(tasks)}" if tasks else "of any task"
    return (
        f"## Limits\n\n- Nothing was measured of its answers {known}, and nothing of its safety.\n"
        "- It has what its base has learnt, mistakes included.\n"
        "- With fewer steps than it was trained for, or in other blocks, it may answer worse.\n"
    )


def _licence(facts: CardFacts) -> str:
    of = "its base" if facts.base is None else f"its base, `{_told_base(facts)}`"
    if facts.licence is None:
        return f"## Licence\n\nThat of {of}, which is not recorded here: look there before you use it.\n"
    return f"## Licence\n\n`{facts.licence}`, as {of}.\n"

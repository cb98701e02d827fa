# /// script
# requires-python = ">=3.11"
# dependencies = ["t3d"]
#
# [tool.uv.sources]
# t3d = { path = "../.." }
# ///
"""Decode six chat prompts without and with a drafter: the same text, in fewer forwards.

    python recipes/smollm2_drafter/decode.py --model FOLDER --drafter FOLDER_OR_NAME

Greedy, one prompt at a time, float32. TPF is tokens per forward of the model, the prompt's own not counted.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from transformers.utils.logging import disable_progress_bar

from t3d.decoding.completion import Completion
from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.decoding.precedence import resolve_params
from t3d.errors import InputError, require_positive
from t3d.models.drafter import with_drafter
from t3d.models.loading import load_model
from t3d.work.progress import Progress

PROMPTS = (
    (
        "math",
        "A baker fills 6 trays with 14 rolls each. She sells 59 rolls in the morning and gives 8 to her "
        "neighbour. How many rolls are left?",
    ),
    (
        "math",
        "Nora rides 12 km to the lake at 8 km per hour and comes back the same way at 16 km per hour. "
        "How many minutes does she ride in all?",
    ),
    ("general", "Describe how a lighthouse helped ships before there was radio."),
    ("general", "I have rice, two eggs, an onion and some peas. What could I cook tonight?"),
    ("code", "Write a Python function that returns the second largest number of a list."),
    ("code", "Write a Python function that counts how often each word stands in a text."),
)
SIDES = ("left_to_right", "self_speculative")
"""Without and with the drafter."""
WARM_UP_TOKENS = 4
_HEADER = ("prompt", "tokens", "forwards", "TPF", "tokens/s", "forwards", "TPF", "tokens/s", "same text")
_WIDTHS = (10, 7, 9, 6, 9, 10, 6, 9, 10)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is decoded, and how long it may get."""

    model: str
    drafter: str
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        require_positive(self, "max_new_tokens")


def decode(llm: LLM, params: DecodeParams, text: str) -> Completion:
    """The answer to one message."""
    chat = [{"role": "user", "content": text}]
    (completion,) = llm.generate([chat], params, progress=False)
    return completion


def sums(completions: Sequence[Completion]) -> tuple[int, int, float]:
    """Tokens, forwards and seconds."""
    return (
        sum(completion.visible_length for completion in completions),
        sum(completion.num_forwards for completion in completions),
        sum(completion.seconds for completion in completions),
    )


def line(cells: Sequence[object]) -> str:
    """One of the table."""
    return " ".join(f"{cell:>{width}}" for cell, width in zip(map(str, cells), _WIDTHS, strict=True))


def measures(completions: Sequence[Completion]) -> list[str]:
    """Forwards, tokens per forward, tokens per second."""
    tokens, forwards, seconds = sums(completions)
    return [str(forwards), f"{tokens / forwards:.2f}", f"{tokens / seconds:.1f}"]


def sameness(pair: Sequence[Completion]) -> str:
    """``yes``, or the first token, from 0, that differs."""
    plain, drafted = (completion.visible_ids for completion in pair)
    if plain == drafted:
        return "yes"
    equal = (one == other for one, other in zip(plain, drafted, strict=False))
    return (
        f"to {next((place for place, same in enumerate(equal) if not same), min(len(plain), len(drafted)))}"
    )


def run(settings: Settings) -> None:
    """Decode and print. Raises InputError for a model or drafter that cannot be used."""
    print(f"loading {settings.model}", file=sys.stderr, flush=True)
    loaded = with_drafter(load_model(settings.model), settings.drafter)
    llm = LLM(loaded, max_batch_size=1)
    how = {"temperature": 0.0, "max_new_tokens": settings.max_new_tokens}
    both = [resolve_params(loaded.own_settings, {**how, "remasking": side}) for side in SIDES]
    for params in both:  # what is done once is done before anything is timed
        decode(llm, dataclasses.replace(params, max_new_tokens=WARM_UP_TOKENS), PROMPTS[0][1])
    pairs: list[list[Completion]] = []
    with Progress("decode", len(both) * len(PROMPTS)) as bar:
        for _, text in PROMPTS:
            pairs.append([])
            for params in both:
                pairs[-1].append(decode(llm, params, text))
                bar.advance()
    report(pairs, settings, str(loaded.model.device))


def report(pairs: Sequence[Sequence[Completion]], settings: Settings, device: str) -> None:
    """Print the table, and one text."""
    count = settings.max_new_tokens
    print(
        f"{settings.model} on {device}: {len(pairs)} prompts, at most {count} tokens each, batch 1, float32"
    )
    print(" " * 18 + f"{'without drafter':-^26} {'with drafter':-^27}")
    print(line(_HEADER))
    for (kind, _), pair in zip(PROMPTS, pairs, strict=True):
        cells = [measures([completion]) for completion in pair]
        print(line([kind, pair[0].visible_length, *cells[0], *cells[1], sameness(pair)]))
    sides = list(zip(*pairs, strict=True))
    num_same = sum(sameness(pair) == "yes" for pair in pairs)
    tokens = sums(sides[0])[0]
    print(line(["all", tokens, *measures(sides[0]), *measures(sides[1]), f"{num_same} of {len(pairs)}"]))
    print(f"\n{PROMPTS[0][1]}\n\n{pairs[0][1].text}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--model", required=True, help="folder of an autoregressive model, or of its GGUF file"
    )
    parser.add_argument("--drafter", default="smollm2", help="folder of a drafter, or a bundled one's name")
    parser.add_argument("--max-new-tokens", type=int, default=Settings.max_new_tokens)
    args = parser.parse_args(arguments)
    disable_progress_bar()  # of loading, whose lines would stand before an error's
    try:
        run(Settings(**vars(args)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

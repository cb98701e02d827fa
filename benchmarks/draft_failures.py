"""Where a drafter of the bundled teacher fails: where the teacher is sure, or at its free choices.

python benchmarks/draft_failures.py --drafter FOLDER [--limit 256]

Held-out problems of the mini suite, blocks of 8, greedy, drafts behind each token (``draft_groups="all"``). A
token counts where it was drafted behind right ones: accepted, or the correction of the first wrong one. By
task and by the probability that the teacher gave the token which it chose: tokens, the share of them that was
drafted wrongly, and their share of all wrong drafts. Prints Markdown.
"""

import argparse
import math
from collections import Counter
from collections.abc import Sequence

from t3d.decoding.completion import Completion
from t3d.decoding.llm import LLM
from t3d.decoding.origins import origins
from t3d.decoding.params import DecodeParams
from t3d.decoding.posed_requests import decode_requests
from t3d.tasks.mini.suite import TASKS

BANDS = ((0.7, "below 0.7"), (0.99, "0.7 to 0.99"), (math.inf, "0.99 or more"))
"""(upper end, name) of the teacher's probability."""
PARAMS = DecodeParams(
    block_size=8,
    temperature=0.0,
    max_new_tokens=56,
    remasking="self_speculative",
    draft_groups="all",
)


def counts(done: Sequence[Completion]) -> Counter[tuple[str, str]]:
    """Tokens by band and origin."""
    found: Counter[tuple[str, str]] = Counter()
    for completion in done:
        kinds = origins(completion)[: completion.visible_length]
        for kind, logprob in zip(kinds, completion.logprobs, strict=False):
            band = next(name for end, name in BANDS if math.exp(logprob) < end)
            found[band, kind] += 1
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Decode, count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--drafter", required=True, metavar="FOLDER")
    parser.add_argument("--limit", type=int, default=256, help="problems of a task")
    options = parser.parse_args(argv)
    llm = LLM("mini", drafter=options.drafter, device="cpu", max_batch_size=64)
    print("| task | the teacher's probability | tokens | drafted wrongly % | of all wrong drafts % |")
    print("|---|---|---|---|---|")
    for task_name, task in TASKS.items():
        requests = decode_requests(llm.tokenizer, task.problems("test", options.limit, 0))
        found = counts(llm.decode(requests, PARAMS))
        all_wrong = sum(found[name, "correction"] for _, name in BANDS)
        for _, name in BANDS:
            wrong = found[name, "correction"]
            drafted = wrong + found[name, "accepted"]
            shares = [100 * wrong / max(1, drafted), 100 * wrong / max(1, all_wrong)]
            cells = [task_name, name, str(drafted), *(f"{share:.1f}" for share in shares)]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

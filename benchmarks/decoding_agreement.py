"""How often float32 and bfloat16 decode what float64 decodes: near-ties flip, and a block then differs.

python benchmarks/decoding_agreement.py [--limit 64] > table.md

The bundled teacher on held-out problems of all tasks, greedy and at temperature 0.1. Agreement of tokens
counts equal tokens at equal response positions; a response that took another turn early counts as
different from there on.
"""

import argparse
import itertools

from decoding import SETTINGS

from t3d.decoding.llm import LLM
from t3d.decoding.params import DecodeParams
from t3d.decoding.posed_requests import decode_requests
from t3d.evaluation.text_measures import token_agreement
from t3d.tasks.mini.suite import TASKS

DTYPES = ("float64", "float32", "bfloat16")


def main() -> None:
    """Decode with every dtype and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--limit", type=int, default=64, help="problems per task")
    limit = parser.parse_args().limit
    models = {dtype: LLM("mini", device="cpu", dtype=dtype) for dtype in DTYPES}
    problems = [(task, problem) for task in TASKS.values() for problem in task.problems("test", limit, 0)]
    requests = decode_requests(models["float64"].tokenizer, [problem for _, problem in problems])
    header = [f"{dtype} {what}" for dtype in DTYPES[1:] for what in ("tokens", "responses", "orders")]
    print(f"| setting | {' | '.join(header)} | accuracy {' / '.join(DTYPES)} |")
    print("|---|" + "---|" * (len(header) + 1))
    for (block_size, steps), temperature in itertools.product(SETTINGS, (0.0, 0.1)):
        params = DecodeParams(
            block_size=block_size, steps_per_block=steps, temperature=temperature, max_new_tokens=56
        )
        done = {dtype: model.decode(requests, params) for dtype, model in models.items()}
        cells = []
        for dtype in DTYPES[1:]:
            pairs = list(zip(done[dtype], done["float64"], strict=True))
            same_text = sum(ours.visible_ids == theirs.visible_ids for ours, theirs in pairs)
            same_order = sum(ours == theirs for ours, theirs in pairs)
            targets = [completion.visible_ids for completion in done["float64"]]
            cells += [token_agreement([completion.response_ids for completion in done[dtype]], targets)]
            cells += [same_text / len(pairs), same_order / len(pairs)]
        right = [
            sum(task.grade(problem, c.text) for (task, problem), c in zip(problems, done[dtype], strict=True))
            for dtype in DTYPES
        ]
        name = f"B{block_size}, {steps} steps, T={temperature:g}"
        accuracy = " / ".join(f"{100 * count / len(problems):.1f}" for count in right)
        print(f"| {name} | {' | '.join(f'{100 * cell:.2f}' for cell in cells)} | {accuracy} |", flush=True)


if __name__ == "__main__":
    main()

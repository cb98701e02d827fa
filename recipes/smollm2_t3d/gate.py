# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Whether enough full-step answers end with a stop token: else rollouts would teach students to go on.

python recipes/smollm2_t3d/gate.py GATE/results.json --at-least 0.8
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path


def shares_that_end(results: Path) -> dict[str, float]:
    """Share of responses that ended with a stop token, by setting, as ``t3d eval`` counted them."""
    entries = json.loads(results.read_text(encoding="utf-8"))["results"]
    return {entry["setting"]: entry["stopped"] for entry in entries}


def arguments_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, help="results.json of t3d eval")
    parser.add_argument("--at-least", type=float, default=0.8, help="share of responses")
    return parser.parse_args(words)


def main() -> None:
    """Print the shares; exit with status 1 if one is too low."""
    args = arguments_of()
    shares = shares_that_end(args.results)
    for setting, share in shares.items():
        print(f"{setting}: {100 * share:.0f} % of the answers end (at least {100 * args.at_least:.0f} %)")
    if min(shares.values()) < args.at_least:
        raise SystemExit(
            "the teacher does not end its answers: train it for longer (delete sft and gate, raise "
            "T3D_SFT_STEPS), or lower T3D_GATE"
        )


if __name__ == "__main__":
    main()

"""Does this tree compute the same numbers as an earlier commit? A fence around refactoring.

    python scripts/fence.py [--old COMMIT] [--demo] [--keep FOLDER] [--fresh]

The same probe (fence_probe.py) asks the source of COMMIT, in a temporary git worktree, and the source of
this working tree, on this machine. Compared exactly, by part:

    tables            entries of `t3d reproduce all`, recomputed from the committed cells; no model runs
    committed tables  the entries of docs/results/tables.json
    hashes            every committed cell still goes by its hash
    losses            losses and gradients of three optimizer steps, by preset
    tokens            rollouts of the bundled teacher
    demo              (--demo, minutes) every number of `t3d demo --seed 0` but seconds

New keys and fields are allowed. Prints "unchanged" with counts (exit status 0), or what differs (1). The
answers of COMMIT are kept in runs/fence, by commit and probe; --fresh asks again.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROBE = ROOT / "scripts" / "fence_probe.py"
KEPT = ROOT / "runs" / "fence"
BASE = "d1d1e1d"
"""The last commit before the code was moved."""
STEPS = ("report", "losses", "tokens")
"""Runs of the probe; one gives several parts."""
ABOUT = "about"
"""A part that may change; shown where others do."""
MOST_LINES = 20
"""Differences printed for a part."""

Answers = dict[str, dict[str, Any]]


def git(*arguments: str) -> str:
    """What git prints; ends the script if it fails."""
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"git {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout.strip()


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """A checkout of the commit, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="t3d-fence-") as folder:
        tree = Path(folder) / "old"
        git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def ask(step: str, tree: Path, file: Path) -> Answers:
    """Run one step of the probe on a tree's source, on the CPU; answers in ``file``, output beside it."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONSAFEPATH": "1"}
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    started = time.perf_counter()
    log = file.with_suffix(".log")
    with log.open("w") as stream:
        command = [sys.executable, str(PROBE), step, str(file)]
        result = subprocess.run(command, cwd=tree, env=environment, stdout=stream, stderr=stream, check=False)
    if result.returncode:
        sys.exit(f"{step} of {tree} failed\n{log.read_text()[-3000:]}")
    print(f"{file.stem}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return json.loads(file.read_text())


def old_answers(commit: str, steps: Sequence[str], folder: Path, *, is_fresh: bool) -> Answers:
    """Answers of a commit, those of earlier runs from KEPT."""
    probe = hashlib.sha256(PROBE.read_bytes()).hexdigest()[:8]
    kept = {step: KEPT / f"{commit[:12]}-{step}-{probe}.json" for step in steps}
    missing = [step for step in steps if is_fresh or not kept[step].is_file()]
    with worktree(commit) if missing else nullcontext() as tree:
        for step in missing:
            assert tree is not None
            ask(step, tree, folder / f"old-{step}.json")
            KEPT.mkdir(parents=True, exist_ok=True)
            partial = kept[step].with_suffix(".partial")
            partial.write_text((folder / f"old-{step}.json").read_text())
            partial.replace(kept[step])
    return merged([json.loads(path.read_text()) for path in kept.values()])


def merged(answers: Sequence[Answers]) -> Answers:
    """The parts of all steps."""
    return {part: values for answer in answers for part, values in answer.items()}


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """Lines "KEY: OLD -> NEW" for what the old answers have and the new ones have not, or otherwise.

    Keys that only the new ones have are allowed. Numbers are equal if their JSON is: exactly, 1 is not 1.0.
    """
    if isinstance(old, dict) and old and new == {}:
        yield f"{key}: all {len(old)} missing".removeprefix(": ")
    elif isinstance(old, dict) and isinstance(new, dict):
        for name, value in old.items():
            inner = f"{key}: {name}" if key else name
            if name in new:
                yield from differences(value, new[name], inner)
            else:
                yield f"{inner}: {short(value)} -> missing"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (mine, theirs) in enumerate(zip(old, new, strict=True)):
            yield from differences(mine, theirs, f"{key}[{index}]")
    elif json.dumps(old) != json.dumps(new):
        yield f"{key}: {short(old)} -> {short(new)}"


def short(value: Any) -> str:
    """JSON of at most 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def verdict(old: Answers, new: Answers) -> int:
    """Print what differs, part by part, or that nothing does; returns the exit status."""
    unknown = [label for label, name in old["hashes"].items() if name is None]
    if unknown or not all(old.values()):
        sys.exit(f"the old source does not answer for itself: {', '.join(unknown) or old[ABOUT]['problem']}")
    found = {part: list(differences(values, new.get(part, {}))) for part, values in old.items()}
    about = found.pop(ABOUT)
    if not any(found.values()):
        print(f"unchanged: {', '.join(f'{part} {len(old[part])}' for part in found)}")
        return 0
    for part, lines in {ABOUT: about, **found}.items():
        for line in lines[:MOST_LINES]:
            print(f"{part}: {line}")
        if len(lines) > MOST_LINES:
            print(f"{part}: and {len(lines) - MOST_LINES} more")
    counts = [f"{part} {len(lines)}" for part, lines in found.items() if lines]
    print(f"CHANGED, number of differences: {', '.join(counts)}")
    return 1


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--old", default=BASE, help="commit to compare with")
    parser.add_argument("--demo", action="store_true", help="compare the demo, too")
    parser.add_argument("--keep", type=Path, help="folder for the answers and what the commands printed")
    parser.add_argument("--fresh", action="store_true", help="ask the old source again")
    options = parser.parse_args()
    steps = [*STEPS, "demo"] if options.demo else list(STEPS)
    commit = git("rev-parse", "--verify", f"{options.old}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="t3d-fence-") as temporary:
        folder = Path(temporary) if options.keep is None else options.keep.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        old = old_answers(commit, steps, folder, is_fresh=options.fresh)
        new = merged([ask(step, ROOT, folder / f"new-{step}.json") for step in steps])
        return verdict(old, new)


if __name__ == "__main__":
    sys.exit(main())

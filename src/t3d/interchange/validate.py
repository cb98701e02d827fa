"""Everything that is wrong with a file of trajectories, not only the first problem."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from t3d.errors import InputError
from t3d.models.token_ids import LoadedTokenizer
from t3d.trajectory import Trajectory, read_rows, trajectory_of_row


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What is wrong with one record."""

    id: str
    problem: str


def validate_file(path: str | Path, loaded: LoadedTokenizer | None = None) -> tuple[int, list[Fault]]:
    """Number of records of a Parquet file and all their problems, in the order of the file.

    With ``loaded``, mask id, tokenizer and vocabulary are compared with that checkpoint's. Raises
    InputError if the file cannot be read at all.
    """
    rows = read_rows(path)
    problems: list[Fault] = []
    tokenizer_hash = "" if loaded is None else loaded.tokenizer_hash
    first_index: dict[str, int] = {}
    for index, row in enumerate(rows):
        identity = row["id"]
        first = first_index.setdefault(identity, index)
        if first != index:
            problems.append(Fault(id=identity, problem=f"records {first} and {index} share this id"))
        try:
            trajectory = trajectory_of_row(row)
        except InputError as error:
            field = error.field.removesuffix(f" of trajectory {identity!r}")
            problems.append(Fault(id=identity, problem=f"{field}: {error.problem}"))
            continue
        found = list(own_problems(trajectory))
        if has_masked_prompt(trajectory):
            found.append(f"prompt_ids: the mask token {trajectory.mask_token_id} is in the prompt")
        if loaded is not None:
            found += model_problems(trajectory, loaded, tokenizer_hash)
        problems += [Fault(id=identity, problem=problem) for problem in found]
    return len(rows), problems


def has_masked_prompt(trajectory: Trajectory) -> bool:
    """Whether the mask token is in the prompt, as of a question with its name in older rollouts."""
    return _has_mask(trajectory) and trajectory.mask_token_id in trajectory.prompt_ids


def _has_mask(trajectory: Trajectory) -> bool:
    """Whether its mask token is one: an autoregressive model's only stands where nothing is known yet."""
    return trajectory.decode_params.get("predicts", "self") == "self"


def own_problems(trajectory: Trajectory) -> Iterator[str]:
    """What is inconsistent in a record that keeps the rules of its class; training refuses the same."""
    end = len(trajectory.prompt_ids) + len(trajectory.response_ids)
    if not trajectory.terminal_complete and end % trajectory.block_size == 0:
        yield f"terminal_complete: says cut, but the record ends on the grid of {trajectory.block_size}"
    recorded = trajectory.decode_params.get("block_size", trajectory.block_size)
    if recorded != trajectory.block_size:
        yield f"block_size: {trajectory.block_size}, but decode_params has {recorded}"
    if not trajectory.prompt_ids:
        yield "prompt_ids: empty"
    if _has_mask(trajectory) and trajectory.mask_token_id in trajectory.response_ids:
        yield f"response_ids: the mask token {trajectory.mask_token_id} was committed"
    smallest = min(*trajectory.prompt_ids, *trajectory.response_ids, trajectory.mask_token_id)
    if smallest < 0:
        yield f"ids: {smallest} is negative"


def model_problems(trajectory: Trajectory, loaded: LoadedTokenizer, tokenizer_hash: str) -> Iterator[str]:
    """What does not fit a checkpoint, whose tokenizer has the given hash."""
    if trajectory.mask_token_id != loaded.mask_token_id:
        yield f"mask_token_id: {trajectory.mask_token_id}, the model's is {loaded.mask_token_id}"
    if trajectory.tokenizer_hash not in ("", tokenizer_hash):
        yield f"tokenizer_hash: {trajectory.tokenizer_hash[:12]} is another tokenizer than the model's"
    largest = max(*trajectory.prompt_ids, *trajectory.response_ids, trajectory.mask_token_id)
    if largest >= loaded.vocab_size:
        yield f"ids: {largest} is outside the model's vocabulary of {loaded.vocab_size}"
    visible = trajectory.response_ids[: trajectory.visible_length]
    stops = [index for index, token in enumerate(visible, start=1) if token in loaded.stop_token_ids]
    if stops and stops[0] != len(visible):
        yield f"visible_length: {len(visible)}, but the first stop token ends the answer at {stops[0]}"
    if bool(stops) != (trajectory.finish_reason == "stop"):
        found = "has a" if stops else "has no"
        yield f"finish_reason: {trajectory.finish_reason!r}, but the answer {found} stop token"

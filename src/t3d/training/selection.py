"""Which trajectories can teach a student."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from t3d.errors import InputError, require_unique_ids
from t3d.interchange.solutions import SOURCES
from t3d.interchange.validate import has_masked_prompt, own_problems
from t3d.models.token_ids import tokenizer_hash
from t3d.predicts import predicts_of
from t3d.training.config import T3DConfig
from t3d.training.packing import cut_response
from t3d.training.presets import SOLUTION_PRESETS
from t3d.trajectory import Trajectory, trajectory_of_row


def as_trajectories(dataset: Any) -> Sequence[Trajectory]:
    """The trajectories of a ``datasets.Dataset``, such as ``load_dataset`` makes of a rollout's Parquet file;
    anything else as it is. Raises InputError for a data set without a rollout's columns."""
    columns = getattr(dataset, "column_names", None)
    if columns is None:
        return dataset
    names = [item.name for item in fields(Trajectory)]
    missing = [name for name in names if name not in columns]
    if missing:
        problem = f"the columns {', '.join(missing)} are missing"
        fix = "give a rollout: load_dataset('parquet', data_files=...), or read_trajectories"
        raise InputError("train_dataset", type(dataset).__name__, problem, fix)
    return [trajectory_of_row({name: row[name] for name in names}) for row in dataset]


def check_trajectories(
    trajectories: Sequence[Trajectory], tokenizer: PreTrainedTokenizerBase, block_size: int
) -> None:
    """Raise InputError unless these trajectories can teach a student.

    All must keep the rules of :func:`~t3d.interchange.validate.own_problems`, be made with its tokenizer and
    mask token, have an id of their own, and be rolled out with
    one block size that divides the student's or is divided by it: only then no student block holds
    parts of two rollout blocks without holding one of them whole, or lying inside one.
    """
    if not len(trajectories):
        raise InputError("trajectories", 0, "no trajectories", "roll out at least one prompt")
    for trajectory in trajectories:
        if not isinstance(trajectory, Trajectory):
            problem = f"holds a {type(trajectory).__name__}, no Trajectory"
            fix = "give what t3d.trajectory.read_trajectories reads, or make Trajectory records"
            raise InputError("train_dataset", type(trajectories).__name__, problem, fix)
    fix = "use trajectories of a teacher with the student's own tokenizer"
    expected_mask, expected_hash = tokenizer.mask_token_id, tokenizer_hash(tokenizer)
    if expected_mask is None:
        expected_mask = trajectories[0].mask_token_id
    for trajectory in trajectories:
        if trajectory.mask_token_id != expected_mask:
            problem = f"trajectory {trajectory.id!r} was masked with another token than {expected_mask}"
            raise InputError("mask_token_id", trajectory.mask_token_id, problem, fix)
        if trajectory.tokenizer_hash not in ("", expected_hash):
            problem = f"trajectory {trajectory.id!r} was made with another tokenizer"
            raise InputError("tokenizer_hash", trajectory.tokenizer_hash[:12], problem, fix)
        _check_grid(trajectory, trajectories[0], block_size)
        for problem in own_problems(trajectory):
            name, _, found = problem.partition(": ")
            fix = "leave the record out, or roll out again; t3d data validate lists all such records"
            refused = "nothing that a rollout can hold"
            raise InputError(f"{name} of trajectory {trajectory.id!r}", found, refused, fix)
    require_unique_ids((trajectory.id for trajectory in trajectories), "trajectories")


def is_rollout(trajectory: Trajectory) -> bool:
    """Whether a record says that a model wrote it."""
    return "remasking" in trajectory.decode_params


def check_source(trajectories: Sequence[Trajectory], preset: str) -> None:
    """Raise InputError for rollouts where a preset fine-tunes on solutions, or solutions where it does not.

    Records of ``t3d rollout``, ``t3d data solutions`` and ``t3d data texts`` tell which they are; imported
    ones pass.
    """
    for trajectory in trajectories:
        is_solution = trajectory.decode_params.get("source") in SOURCES
        if is_rollout(trajectory) and preset in SOLUTION_PRESETS:
            problem = f"fine-tunes on solutions, but trajectory {trajectory.id!r} is a rollout"
            fix = "train on records of t3d data solutions or texts, or use redi: the same loss on rollouts"
            raise InputError("preset", preset, problem, fix)
        if is_solution and preset not in SOLUTION_PRESETS:
            found = f"trajectory {trajectory.id!r} is a solution or text that nobody decoded"
            problem = f"learns from rollouts, but {found}"
            fix = f"train on records of t3d rollout, or use preset {' or '.join(SOLUTION_PRESETS)}"
            raise InputError("preset", preset, problem, fix)


def _check_grid(trajectory: Trajectory, first: Trajectory, block_size: int) -> None:
    size = trajectory.block_size
    if size != first.block_size:
        problem = (
            f"trajectory {trajectory.id!r} was rolled out in such blocks, {first.id!r} in {first.block_size}"
        )
        raise InputError("block_size", size, problem, "train on trajectories of one block size")
    if size % block_size and block_size % size:
        problem = f"the trajectories' blocks of {size} do not nest with the student's"
        fix = f"use a block size that divides {size} or is a multiple of it, or roll out again"
        raise InputError("block_size", block_size, problem, fix)


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Trajectories to train on, and the ids of those left out."""

    kept: tuple[Trajectory, ...]
    too_long: tuple[str, ...]
    """One block with all the tokens before it exceeds ``max_length``, or the whole the model's positions."""
    empty: tuple[str, ...]
    """Nothing is visible but the stop token, or one token, behind which nobody drafts."""
    masked_prompt: tuple[str, ...] = ()
    """The mask token is in the prompt, where no state may have it."""

    def counts(self) -> dict[str, int]:
        """How many are trained on, and how many left out for what."""
        counts = {"trajectories": len(self.kept), "too_long": len(self.too_long), "empty": len(self.empty)}
        return counts | ({"masked_prompt": len(self.masked_prompt)} if self.masked_prompt else {})

    def report(self) -> str:
        """One line for the log; empty if nothing was left out."""
        parts = [
            f"{len(ids)} {reason} ({', '.join(ids[:4])}{', ...' if len(ids) > 4 else ''})"
            for reason, ids in (
                ("too long", self.too_long),
                ("empty", self.empty),
                ("with the mask token in the prompt", self.masked_prompt),
            )
            if ids
        ]
        num_all = sum(len(part) for part in (self.kept, self.too_long, self.empty, self.masked_prompt))
        return f"left out of {num_all} trajectories: {', '.join(parts)}" if parts else ""


def select_trajectories(
    trajectories: Sequence[Trajectory], args: T3DConfig, model_config: PreTrainedConfig
) -> Selection:
    """Leave out, never cut, what cannot be learnt from.

    Raises InputError for a token outside the student's vocabulary, for rollouts of an autoregressive model
    where the student is none (and the other way round), or if nothing is left.
    """
    predicts = predicts_of(model_config)
    is_too_long = _is_too_long if predicts == "self" else _groups_are_too_long
    kept, too_long, empty, masked_prompt = [], [], [], []
    for trajectory in trajectories:
        largest = max(*trajectory.prompt_ids, *trajectory.response_ids, 0)
        if largest >= model_config.vocab_size:
            problem = f"trajectory {trajectory.id!r} has token id {largest}"
            fix = "roll out with the student's own tokenizer"
            raise InputError("vocab_size", model_config.vocab_size, problem, fix)
        recorded = trajectory.decode_params.get("predicts", predicts)
        if recorded != predicts:
            problem = f"trajectory {trajectory.id!r} is of such a model, this one has predicts={predicts!r}"
            raise InputError("predicts", recorded, problem, "train on rollouts of the model itself")
        if has_masked_prompt(trajectory):
            masked_prompt.append(trajectory.id)
        elif trajectory.visible_length == 1 and (predicts == "next" or trajectory.finish_reason == "stop"):
            empty.append(trajectory.id)
        elif is_too_long(trajectory, args, model_config.max_position_embeddings):
            too_long.append(trajectory.id)
        else:
            kept.append(trajectory)
    selection = Selection(
        kept=tuple(kept), too_long=tuple(too_long), empty=tuple(empty), masked_prompt=tuple(masked_prompt)
    )
    if kept:
        return selection
    problem = f"nothing to train on: {selection.report()}"
    if too_long and args.max_length is not None:
        raise InputError("max_length", args.max_length, problem, "raise it, or roll out shorter responses")
    fix = "roll out again, with responses that fit the student"
    raise InputError("trajectories", len(trajectories), problem, fix)


def _is_too_long(trajectory: Trajectory, args: T3DConfig, num_positions: int) -> bool:
    num_prompt, size = len(trajectory.prompt_ids), args.block_size
    end = num_prompt + len(trajectory.response_ids)
    start = num_prompt if args.grid_origin == "response" else num_prompt // size * size
    num_blocks = -(-(end - start) // size)
    if (end if trajectory.terminal_complete else start + num_blocks * size) > num_positions:
        return True
    num_clean = start + (num_blocks - 1) * size
    return not cut_response(0, num_clean, num_blocks, size, args.max_length)


def _groups_are_too_long(trajectory: Trajectory, args: T3DConfig, num_positions: int) -> bool:
    """Of a base that predicts the next token: in some epoch a group of masks begins at the last token."""
    last = len(trajectory.prompt_ids) + len(trajectory.response_ids) - 1
    return last + args.block_size > min(num_positions, args.max_length or num_positions)

"""Files of trajectories put together, or cut into parts, without a change to any record.

Parts say which records of what they hold (:mod:`t3d.work.parts`): chunks of a rollout, and what :func:`split`
writes. They make the whole again. Files that are whole are joined in their order.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from t3d.errors import InputError
from t3d.trajectory import Trajectory, read_plan, read_trajectories, write_trajectories
from t3d.work.failures import Failure, listed_failures, unit_failures
from t3d.work.files import check_output_file
from t3d.work.parts import Part, part_of, plan_of_part, plan_of_whole
from t3d.work.plan import described, differences

CHUNKS = "chunk-*.parquet"
"""Names of a rollout's chunks in its folder ``OUTPUT.chunks``."""
_MADE_BY = ("teacher_hash", "tokenizer_hash", "mask_token_id", "block_size", "decode_params")
"""What the records of whole files must share to be joined."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What files hold together."""

    trajectories: list[Trajectory]
    plan: dict[str, Any] | None
    """Of the whole; None for whole files that were joined, and where the whole had none."""
    num_doubled: int
    """Records that were there before, equal, and are kept once."""


@dataclass(frozen=True)
class _Source:
    path: Path
    trajectories: list[Trajectory]
    plan: dict[str, Any] | None
    part: Part | None


def files_of(given: str) -> list[Path]:
    """The files of a part: itself, or the chunks of a folder, or of the output of a shard.

    Raises InputError if there is none.
    """
    path = Path(given)
    if path.is_file():
        return [path]
    for folder in (path, Path(f"{given}.chunks")):
        if found := sorted(folder.glob(CHUNKS)):
            return found
    fix = "give a Parquet file of trajectories, or the output or the chunks of t3d rollout --shard"
    raise InputError("parts", given, "neither a file nor a folder of chunks", fix)


def merge(files: Sequence[Path]) -> Merged:
    """The records of all files: the whole that they are parts of, or whole files one after the other.

    Raises InputError, naming the file, for one that is damaged, that another model, tokenizer or setting
    made, or that has another record under an index (of parts) or id than one before; for records that no
    part has; for parts that have no record at all; and for parts together with whole files.
    """
    sources = [_read(path) for path in files]
    first = sources[0]
    for source in sources:
        if source.part is None and not source.trajectories:
            raise InputError("parts", str(source.path), "has no records", "leave it out")
    for source in sources:
        if (source.part is None) != (first.part is None):
            part, whole = (source, first) if first.part is None else (first, source)
            problem = f"is a part, and {whole.path} is whole"
            fix = "merge the parts first, then join whole files"
            raise InputError("parts", str(part.path), problem, fix)
    return _join(sources) if first.part is None else _assemble(sources)


def failures_of(files: Iterable[Path], trajectories: Sequence[Trajectory]) -> list[Failure]:
    """Prompts that failed in some of the files and have a record in none of them."""
    answered = {name for one in trajectories for name in (one.id, one.id.rpartition("#")[0])}
    told = [unit_failures(file) if file.match(CHUNKS) else listed_failures(file) for file in files]
    return list({each.id: each for some in told for each in some if each.id not in answered}.values())


def split(path: str | Path, count: int) -> list[Path]:
    """Write the records of a file into so many files beside it, in their order; :func:`merge` undoes it.

    Raises InputError for a file that is damaged, one with fewer records, a part whose prompts do not have one
    record each, and for a file of another kind under the name of a part.
    """
    path = Path(path)
    trajectories, plan = read_trajectories(path), read_plan(path)
    if not 1 <= count <= len(trajectories):
        problem = f"{path} has {len(trajectories)} records"
        raise InputError("parts", count, problem, f"use 1 to {len(trajectories)}")
    of = part_of(plan) or Part(0, len(trajectories), _sha256(trajectories))
    if of.count not in (None, len(trajectories)):
        problem = f"is a part of {of.count} prompts, which have {len(trajectories)} records"
        raise InputError("file", str(path), problem, "merge the parts first, then split the whole")
    whole = None if plan is None else plan_of_whole(plan)
    outputs = [path.with_name(f"{path.stem}-{i:05d}-of-{count:05d}.parquet") for i in range(count)]
    for output in outputs:
        check_output_file(output, path, is_own=lambda found: part_of(read_plan(found)) is not None)
    edges = [len(trajectories) * number // count for number in range(count + 1)]
    for output, low, high in zip(outputs, edges, edges[1:], strict=False):
        part = Part(of.first + low, of.of, of.whole)
        write_trajectories(output, trajectories[low:high], plan=plan_of_part(whole, part))
    return outputs


def _read(path: Path) -> _Source:
    try:
        trajectories = read_trajectories(path, may_be_empty=True)  # of a part whose samples a filter left out
    except InputError as error:
        fix = "give an undamaged copy; t3d rollout makes a chunk again that is deleted"
        raise InputError("parts", str(path), error.problem, fix) from error
    plan = read_plan(path)
    return _Source(path, trajectories, plan, part_of(plan))


def _join(sources: Sequence[_Source]) -> Merged:
    """Whole files in their order."""
    made_by = _made_by(sources[0].trajectories[0])
    seen: dict[str, tuple[Trajectory, Path]] = {}
    num_doubled = 0
    for source in sources:
        for one in source.trajectories:
            if found := differences(made_by, _made_by(one)):
                problem = f"record {one.id!r} was made otherwise than {sources[0].path}: {described(found)}"
                fix = "join rollouts of one model under one setting"
                raise InputError("parts", str(source.path), problem, fix)
            num_doubled += _is_doubled(seen.get(one.id), one, source.path)
            seen.setdefault(one.id, (one, source.path))
    return Merged(trajectories=[one for one, _ in seen.values()], plan=None, num_doubled=num_doubled)


def _assemble(sources: Sequence[_Source]) -> Merged:
    """Parts of a whole, in its order."""
    first = min(sources, key=_first)
    assert first.part is not None and first.plan is not None
    seen: dict[tuple[int, int], tuple[Trajectory, Path]] = {}
    units: set[int] = set()
    num_doubled = 0
    for source in sources:
        if found := differences(_of_whole(first), _of_whole(source)):
            problem = f"is a part of something else than {first.path}: {described(found)}"
            raise InputError("parts", str(source.path), problem, "give the parts of one whole")
        units |= set(_units(source))
        for place, one in zip(_places(source), source.trajectories, strict=True):
            num_doubled += _is_doubled(seen.get(place), one, source.path)
            seen.setdefault(place, (one, source.path))
    _check_all(units, first)
    if not seen:
        fix = "raise num_samples or the temperature, or use another rollout_filter"
        raise InputError("parts", str(first.path.parent), "none of all parts has a record", fix)
    trajectories = [seen[place][0] for place in sorted(seen)]
    if first.part.whole not in ("", _sha256(trajectories)):
        problem = "its parts are not those of the file that was split"
        raise InputError("parts", str(first.path), problem, "split that file again")
    return Merged(trajectories=trajectories, plan=plan_of_whole(first.plan), num_doubled=num_doubled)


def _units(source: _Source) -> range:
    """Those of the whole that a part answers for."""
    assert source.part is not None
    first, count = source.part.first, source.part.count
    return range(first, first + (len(source.trajectories) if count is None else count))


def _places(source: _Source) -> list[tuple[int, int]]:
    """Where its records stand in the whole: by their own units if each has one, else by the part's first."""
    units, count = _units(source), len(source.trajectories)
    return [(unit, 0) for unit in units] if len(units) == count else [(units[0], one) for one in range(count)]


def _check_all(units: Collection[int], source: _Source) -> None:
    """Raise InputError, naming the first of them, for units that no part has."""
    assert source.part is not None and source.plan is not None
    missing = [index for index in range(source.part.of) if index not in units]
    if not missing:
        return
    after = next((index for index in range(missing[0], source.part.of) if index in units), source.part.of)
    size = source.plan.get("chunk_size")
    named = f" (chunk-{missing[0] // size:05d}.parquet)" if isinstance(size, int) else ""
    gap = f"{missing[0] + 1} to {after}{named}"
    problem = f"{len(missing)} of {source.part.of} records are in no part, first {gap}"
    fix = "give all parts; t3d rollout with the flags of the others makes chunks that are missing"
    raise InputError("parts", str(source.path.parent), problem, fix)


def _is_doubled(before: tuple[Trajectory, Path] | None, one: Trajectory, path: Path) -> bool:
    """Whether an equal record is there, the model's path aside. Raises InputError if another one is."""
    if before is None:
        return False
    if replace(before[0], teacher="") != replace(one, teacher=""):
        problem = f"record {one.id!r} is another one in {before[1]}"
        raise InputError("parts", str(path), problem, "leave out the file that should not count")
    return True


def _first(source: _Source) -> int:
    return 0 if source.part is None else source.part.first


def _made_by(one: Trajectory) -> dict[str, Any]:
    return {name: getattr(one, name) for name in _MADE_BY}


def _of_whole(source: _Source) -> dict[str, Any]:
    """What parts of one whole share: all but which part it is, and where the model lay."""
    assert source.part is not None and source.plan is not None
    plan = {**source.plan, "part": {"of": source.part.of, "whole": source.part.whole}}
    match plan.get("model"):
        case dict() as model:
            plan["model"] = {name: value for name, value in model.items() if name != "source"}
    return plan


def _sha256(trajectories: Iterable[Trajectory]) -> str:
    digest = hashlib.sha256()
    for one in trajectories:
        digest.update(json.dumps(asdict(one), sort_keys=True).encode())
    return digest.hexdigest()

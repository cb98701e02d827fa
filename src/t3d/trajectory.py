"""Trajectories: what was decoded, in which order, by whom; step-map algebra; Parquet in and out.

pyarrow is imported where a file is read or written: decoding does without (scripts/gpu_check.sh).
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from t3d.errors import InputError, require_file
from t3d.work.files import atomic_file

SCHEMA_VERSION = 1
_FIX = "give the Parquet file that t3d rollout wrote"
FinishReason = Literal["stop", "length"]
GridOrigin = Literal["prompt", "response"]
"""Where blocks count from: the first prompt token (decoding) or the first response token (released code)."""


def cut_blocks(values: Sequence[int], num_prompt_tokens: int, block_size: int) -> list[Sequence[int]]:
    """Cut response-aligned values where the absolute block grid cuts the response."""
    edges = [0, *range(block_size - num_prompt_tokens % block_size, len(values), block_size), len(values)]
    return [values[lo:hi] for lo, hi in itertools.pairwise(edges)]


def steps_follow_blocks(step_map: Sequence[int], num_prompt_tokens: int, block_size: int) -> bool:
    """Whether every block was finished before the next one began, on the absolute grid."""
    blocks = cut_blocks(step_map, num_prompt_tokens, block_size)
    return all(max(block) < min(following) for block, following in itertools.pairwise(blocks))


def steps_by_block(step_map: Sequence[int], num_prompt_tokens: int, block_size: int) -> tuple[int, ...]:
    """The steps counted anew, so that no block shares one with the next: 1, 2, ... in the same order."""
    blocks = cut_blocks(step_map, num_prompt_tokens, block_size)
    pairs = [(number, step) for number, block in enumerate(blocks) for step in block]
    place = {pair: rank for rank, pair in enumerate(sorted(set(pairs)), start=1)}
    return tuple(place[pair] for pair in pairs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """One rollout of a teacher.

    ``step_map`` has one int per response token: the denoising step that committed it, 1-based,
    counted over the whole response, non-decreasing from block to block; tokens that share a value
    were committed together. The whole terminal block is recorded; the first ``visible_length``
    response tokens, the stop token included, are the answer. Raises InputError on construction if
    these rules are broken.
    """

    id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    step_map: tuple[int, ...]
    visible_length: int
    finish_reason: FinishReason
    block_size: int
    """Block size of the rollout; blocks lie on the absolute grid from the first prompt token."""
    mask_token_id: int
    decode_params: dict[str, Any] = field(default_factory=dict)
    """Resolved decoding settings, the seed included."""
    terminal_complete: bool = True
    """False for records that end inside their last block: imported ones, and those decoded left to right."""
    task: str = ""
    teacher: str = ""
    teacher_hash: str = ""
    tokenizer_hash: str = ""

    def __post_init__(self) -> None:
        def check(field_name: str, value: object, holds: bool, problem: str) -> None:
            if not holds:
                raise InputError(f"{field_name} of trajectory {self.id!r}", value, problem, "roll out again")

        count = len(self.response_ids)
        check("response_ids", count, count > 0, "an empty response has no states to learn from")
        check(
            "step_map",
            len(self.step_map),
            len(self.step_map) == count,
            f"{count} response ids need as many steps",
        )
        check("step_map", min(self.step_map), min(self.step_map) >= 1, "steps count from 1")
        check("block_size", self.block_size, self.block_size >= 1, "not positive")
        check("visible_length", self.visible_length, 0 < self.visible_length <= count, f"not in 1..{count}")
        end = len(self.prompt_ids) + count
        aligned = not self.terminal_complete or end % self.block_size == 0
        check("response_ids", count, aligned, f"the terminal block of size {self.block_size} is not whole")
        follows = steps_follow_blocks(self.step_map, len(self.prompt_ids), self.block_size)
        check("step_map", self.step_map, follows, "steps fall from one block to the next")

    def blocks(
        self, values: Sequence[int], block_size: int, origin: GridOrigin = "prompt"
    ) -> list[Sequence[int]]:
        """Cut response-aligned values where the block grid cuts the response.

        ``origin="prompt"``: the absolute grid, whose first block may hold prompt tokens;
        ``"response"``: blocks count from the first response token.
        """
        return cut_blocks(values, len(self.prompt_ids) if origin == "prompt" else 0, block_size)

    @property
    def num_denoising_steps(self) -> int:
        """Denoising steps of the whole response."""
        return max(self.step_map)

    def state_at(self, denoising_step: int) -> tuple[int, ...]:
        """Response ids after ``denoising_step`` steps: x_t, later commits still masked.

        0 is the fully masked response, ``num_denoising_steps`` the clean one.
        """
        return tuple(
            token if step <= denoising_step else self.mask_token_id
            for token, step in zip(self.response_ids, self.step_map, strict=True)
        )

    def local_steps(self, block_size: int | None = None, origin: GridOrigin = "prompt") -> tuple[int, ...]:
        """Step map re-counted inside each block of ``block_size`` (default: the rollout's): 1, 2, ...

        This is pi inside a block, which Eq. 9 needs.
        """
        ranks: list[int] = []
        for block in self.blocks(self.step_map, block_size or self.block_size, origin):
            order = {step: rank for rank, step in enumerate(sorted(set(block)), start=1)}
            ranks += [order[step] for step in block]
        return tuple(ranks)


_CONTENT_KEY = b"t3d_content_sha256"


@cache
def _schema() -> Any:
    """pyarrow's, of a file."""
    import pyarrow as pa  # noqa: PLC0415

    text, number = pa.string(), pa.int32()
    columns = [("id", text)]
    columns += [(name, pa.list_(number)) for name in ("prompt_ids", "response_ids", "step_map")]
    columns += [("visible_length", number), ("finish_reason", text), ("block_size", number)]
    columns += [("mask_token_id", number), ("decode_params", text), ("terminal_complete", pa.bool_())]
    columns += [(name, text) for name in ("task", "teacher", "teacher_hash", "tokenizer_hash")]
    return pa.schema(columns, metadata={"t3d_schema_version": str(SCHEMA_VERSION)})


def write_trajectories(
    path: str | Path, trajectories: Iterable[Trajectory], *, plan: Mapping[str, Any] | None = None
) -> None:
    """Write a Parquet file; it appears under ``path`` only when complete.

    ``plan`` tells how it was made (JSON-ready) and is kept in the file, for :func:`read_plan`.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    rows = []
    for trajectory in trajectories:
        row = asdict(trajectory)
        row["decode_params"] = json.dumps(row["decode_params"], sort_keys=True)
        rows.append(row)
    table = pa.Table.from_pylist(rows, schema=_schema())
    metadata = {b"t3d_schema_version": str(SCHEMA_VERSION).encode(), _CONTENT_KEY: _content_hash(table)}
    if plan is not None:
        metadata[b"t3d_plan"] = json.dumps(plan).encode()
    with atomic_file(path) as partial:
        pq.write_table(
            table.replace_schema_metadata(metadata), partial, compression="zstd", write_page_checksum=True
        )


def _content_hash(table: Any) -> bytes:
    """SHA-256, in hexadecimal digits, of all values of a pyarrow table without missing ones.

    The checksums of Parquet cover its pages; this also covers what says how to read them.
    """
    digest = hashlib.sha256()
    for name in _schema().names:
        column = table[name].combine_chunks()
        if column.type.num_fields:  # a list
            for values in (column.value_lengths(), column.flatten()):
                digest.update(values.to_numpy(zero_copy_only=False).tobytes())
        else:
            digest.update(json.dumps(column.to_pylist()).encode())
    return digest.hexdigest().encode()


def read_plan(path: str | Path) -> dict[str, Any] | None:
    """The plan that :func:`write_trajectories` was given; None without one or for a damaged file."""
    try:
        return json.loads(_metadata(path)[b"t3d_plan"])
    except (KeyError, ValueError):
        return None


def _metadata(path: str | Path) -> dict[bytes, bytes]:
    """What a Parquet file says of itself; nothing where it cannot be read."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        return pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowException):
        return {}


def is_without_plan(path: Path) -> bool:
    """Whether a file holds trajectories that ``t3d data`` wrote, and no rollout, which says its plan."""
    metadata = _metadata(path)
    return b"t3d_schema_version" in metadata and b"t3d_plan" not in metadata


def read_trajectories(path: str | Path, *, may_be_empty: bool = False) -> list[Trajectory]:
    """Read a Parquet file of trajectories; every record is validated.

    Raises InputError for a missing or corrupt file, another schema, no record, or a broken one.
    """
    return [trajectory_of_row(row) for row in read_rows(path, may_be_empty=may_be_empty)]


def check_is_there(path: str | Path) -> None:
    """Raise InputError unless there is a file of trajectories to read."""
    require_file("trajectories", path, _FIX)


def read_rows(path: str | Path, *, may_be_empty: bool = False) -> list[dict[str, Any]]:
    """Rows of a Parquet file of trajectories, their own rules not checked yet.

    Raises InputError for a missing file, another schema, no row unless it ``may_be_empty``, or a file that is
    not as it was written: its pages and its values have checksums (files of t3d before 2026-11-29 have none).
    """
    check_is_there(path)
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    def refuse(problem: str) -> InputError:
        return InputError("trajectories", str(path), problem, _FIX)

    try:
        table = pq.read_table(path, page_checksum_verification=True)
        names, metadata = table.column_names, table.schema.metadata or {}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise refuse(f"not a readable Parquet file ({str(error).splitlines()[0]})") from error
    missing = [name for name in _schema().names if name not in names]
    if missing:
        raise refuse(f"the columns {', '.join(missing)} are missing")
    version = metadata.get(b"t3d_schema_version", b"").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        raise refuse(f"its schema version is {version!r}, not {SCHEMA_VERSION}")
    if table.num_rows == 0 and not may_be_empty:
        raise refuse("holds no record")
    try:
        table = table.select(_schema().names).cast(_schema())
        with_null = [name for name in _schema().names if _num_nulls(table[name])]
        if with_null:
            raise refuse(f"the column {with_null[0]} has empty values")
        if metadata.get(_CONTENT_KEY) not in (None, _content_hash(table)):
            raise refuse("its values are not those that were written")
        return table.to_pylist()
    except UnicodeDecodeError as error:
        raise refuse(f"a text is damaged ({error.reason})") from error
    except pa.ArrowException as error:
        raise refuse(f"a column is of the wrong kind ({str(error).splitlines()[0]})") from error


def _num_nulls(column: Any) -> int:
    """Missing values of a column, those inside its lists included."""
    if column.type.num_fields:  # a list
        return column.null_count + sum(chunk.flatten().null_count for chunk in column.chunks)
    return column.null_count


def trajectory_of_row(row: dict[str, Any]) -> Trajectory:
    """The trajectory of one row of :func:`read_rows`. Raises InputError if it breaks a rule."""

    def refuse(name: str, problem: str) -> InputError:
        return InputError(f"{name} of trajectory {row['id']!r}", row[name], problem, "roll out again")

    fields: dict[str, Any] = {**row}
    for name in ("prompt_ids", "response_ids", "step_map"):
        fields[name] = tuple(row[name])
    try:
        fields["decode_params"] = json.loads(row["decode_params"])
    except json.JSONDecodeError as error:
        raise refuse("decode_params", f"not JSON ({error})") from error
    if not isinstance(fields["decode_params"], dict):
        raise refuse("decode_params", "not a JSON object")
    if row["finish_reason"] not in get_args(FinishReason):
        raise refuse("finish_reason", "neither stop nor length")
    return Trajectory(**fields)


def visible_length(
    response_ids: Sequence[int], stop_token_ids: Sequence[int], max_new_tokens: int
) -> tuple[int, FinishReason]:
    """Where the answer ends: after the first stop token, and at most at ``max_new_tokens``."""
    for index, token in enumerate(response_ids[:max_new_tokens]):
        if token in stop_token_ids:
            return index + 1, "stop"
    return min(len(response_ids), max_new_tokens), "length"

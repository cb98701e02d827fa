"""The formats by name, and whole files from and to trajectories."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from t3d.errors import InputError, require_unique_ids
from t3d.interchange.formats import authors, d3llm, dllm_rl
from t3d.interchange.formats.assemble import Drop, DropReason, ImportSettings, text_drop
from t3d.interchange.formats.d3llm_files import read_records, write_records
from t3d.models.token_ids import tokenizer_hash
from t3d.problems.fields import Record, wrong_kind
from t3d.problems.files import read_data_rows
from t3d.trajectory import Trajectory
from t3d.work.files import atomic_file


def _read_file(path: Path) -> Iterator[Any]:
    return iter(read_data_rows(path, "input"))


def _write_list(path: Path, records: Iterable[Record]) -> None:
    """One JSON list, a record per line."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write("[")
        for index, record in enumerate(records):
            file.write((",\n" if index else "") + json.dumps(record, ensure_ascii=False))
        file.write("]\n")


@dataclass(frozen=True, kw_only=True)
class ForeignFormat:
    """How records of a format become trajectories and the other way round, and how its files are read."""

    trajectories_of_record: Callable[[Record, str, str, ImportSettings], Iterator[Trajectory | Drop]]
    record_of_trajectory: Callable[[Trajectory, int, PreTrainedTokenizerBase], Record]
    export_drop: Callable[[Trajectory, PreTrainedTokenizerBase], Drop | None] = text_drop
    read_records: Callable[[Path], Iterator[Any]] = _read_file
    write_records: Callable[[Path, Iterable[Record]], None] = _write_list


FOREIGN_FORMATS: dict[str, ForeignFormat] = {
    "authors": ForeignFormat(
        trajectories_of_record=authors.trajectories_of_record,
        record_of_trajectory=authors.record_of_trajectory,
        export_drop=authors.export_drop,
    ),
    "dllm_rl": ForeignFormat(
        trajectories_of_record=dllm_rl.trajectories_of_record,
        record_of_trajectory=dllm_rl.record_of_trajectory,
    ),
    "d3llm": ForeignFormat(
        trajectories_of_record=d3llm.trajectories_of_record,
        record_of_trajectory=d3llm.record_of_trajectory,
        export_drop=d3llm.export_drop,
        read_records=read_records,
        write_records=write_records,
    ),
}


def import_file(
    path: str | Path, format_name: str, settings: ImportSettings
) -> tuple[list[Trajectory], list[Drop]]:
    """Trajectories of a foreign file, and the records that were dropped.

    A record without an ``id`` is named after the file and its index, from 0. Raises InputError for an id used
    twice, and for a file that holds no record of the format.
    """
    path, foreign = Path(path), FOREIGN_FORMATS[format_name]
    kept: list[Trajectory] = []
    dropped: list[Drop] = []
    refused: InputError | None = None
    for index, record in enumerate(foreign.read_records(path)):
        where, fallback_id = f"record {index} of {path}", f"{path.stem}/{index}"
        try:
            if not isinstance(record, dict):
                raise wrong_kind("record", record, where, "an object")
            outcomes = list(foreign.trajectories_of_record(record, fallback_id, where, settings))
        except InputError as error:
            refused = refused or error
            outcomes = [Drop(id=fallback_id, reason=DropReason.OTHER_SHAPE)]
        for outcome in outcomes:
            if isinstance(outcome, Drop):
                dropped.append(outcome)
            else:
                kept.append(outcome)
    if refused is not None and all(drop.reason == DropReason.OTHER_SHAPE for drop in dropped) and not kept:
        raise refused
    if not kept and not dropped:
        raise InputError("input", str(path), "holds no record", "give a file with records")
    require_unique_ids([outcome.id for outcome in [*kept, *dropped]], f"records of {path}")
    return kept, dropped


def split_for_export(
    trajectories: Sequence[Trajectory], format_name: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[Trajectory], list[Drop]]:
    """The trajectories that a foreign format can hold, and drops for the others.

    Raises InputError for trajectories of another tokenizer, and for an id used twice.
    """
    require_unique_ids((trajectory.id for trajectory in trajectories), "trajectories")
    expected_hash = tokenizer_hash(tokenizer)
    kept: list[Trajectory] = []
    dropped: list[Drop] = []
    for trajectory in trajectories:
        if trajectory.tokenizer_hash not in ("", expected_hash):
            problem = f"trajectory {trajectory.id!r} was made with another tokenizer than the model's"
            raise InputError("tokenizer_hash", trajectory.tokenizer_hash[:12], problem, "set its own model")
        drop = FOREIGN_FORMATS[format_name].export_drop(trajectory, tokenizer)
        if drop is None:
            kept.append(trajectory)
        else:
            dropped.append(drop)
    return kept, dropped


def export_file(
    path: str | Path,
    format_name: str,
    trajectories: Sequence[Trajectory],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Write trajectories that passed :func:`split_for_export`; the file appears only when complete."""
    foreign = FOREIGN_FORMATS[format_name]
    records = (
        foreign.record_of_trajectory(trajectory, index, tokenizer)
        for index, trajectory in enumerate(trajectories)
    )
    foreign.write_records(Path(path), records)

"""An evaluation of ``t3d eval`` with its model, as a shard makes a part of it, or a worker on Ray.

Its output may lie on an object store (:mod:`t3d.scale.stored`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3d.cli.config_file import check_config, write_config
from t3d.evaluation.finished import ERRORS, OWN_NAMES, RESULTS, SAMPLES, UNFINISHED, check_evaluation
from t3d.report.html.name import NAME, check_report
from t3d.scale.stored import StoredWork
from t3d.work.files import check_names, check_output_folder
from t3d.work.kept import PLAN_FILE
from t3d.work.remote import RemoteOutput, is_remote
from t3d.work.shards import Shard

if TYPE_CHECKING:
    from t3d.cli.evaluate import Eval
    from t3d.evaluation.added import Entry
    from t3d.evaluation.evaluate import SharedEvaluation
    from t3d.tasks.task import PosedTask

CONFIG = "config.yaml"
_FILES = (tuple(f"/{name}" for name in (RESULTS, SAMPLES, ERRORS, CONFIG, NAME)), f"/{UNFINISHED}")
"""What is added to an output's name for its files, and for the folder of its chunks."""


def check_files(command: "Eval") -> bool:
    """Whether the results are there; what can be refused of the output before the work."""
    if not is_remote(command.output):
        check_output_folder(command.output, OWN_NAMES)
        _check_own(command, Path(command.output))
        return (Path(command.output) / RESULTS).is_file()
    remote = RemoteOutput(command.output, *_FILES)
    names = remote.names()
    check_names(command.output, names, OWN_NAMES, names)
    there = remote.there()
    remote.pull(there, {*_FILES[0], f"{_FILES[1]}/{PLAN_FILE}"}.__contains__)
    with remote.errors():
        _check_own(command, remote.local)
    return remote.finished in there


def _check_own(command: "Eval", folder: Path) -> None:
    check_evaluation(folder, command.prompts)
    check_report(folder / NAME)
    check_config(command, folder / CONFIG, command.prompts)


@dataclass(frozen=True)
class PreparedEvaluation:
    """What a process makes of an evaluation, and the files that follow the results."""

    command: "Eval"
    work: "SharedEvaluation"

    @property
    def plan(self) -> Mapping[str, Any]:
        """All that the entries depend on."""
        return self.work.plan

    @property
    def sizes(self) -> Sequence[int]:
        """Requests of each chunk."""
        return self.work.sizes

    @property
    def notes(self) -> Sequence[str]:
        """Nothing is left out."""
        return self.work.notes

    def files(self, shard: Shard) -> Sequence[Path]:
        """Of a shard's chunks."""
        return self.work.files(shard)

    def is_made(self, shard: Shard) -> bool:
        """Whether nothing is left to do for a shard."""
        return self.work.is_made(shard)

    def is_finished(self) -> bool:
        """Whether the results are there."""
        return (self.work.output / RESULTS).is_file()

    def make(self, shard: Shard) -> "list[Entry] | None":
        """Make a shard's chunks; the entries, if all are there now."""
        entries = self.work.make(shard)
        if entries is not None:
            write_rest(self.command, self.work.output)
        return entries


def write_rest(command: "Eval", folder: Path) -> None:
    """The settings and the report, beside results that are there."""
    from t3d.report.html.page import add_report

    write_config(replace(command, shard=None), folder / CONFIG)
    add_report(folder)


def prepared_evaluation(
    command: "Eval", tasks: "list[PosedTask] | None" = None, label: str = "evaluate", attempt: str = ""
) -> "PreparedEvaluation | StoredWork[list[Entry]]":
    """Load the model. Workers that make the chunks of one run together have an ``attempt`` in common."""
    from t3d.evaluation.evaluate import shared_evaluation

    how: dict[str, Any] = command.work(command.tasks_asked() if tasks is None else tasks)
    how |= {"label": label, "attempt": attempt}
    if not is_remote(command.output):
        return PreparedEvaluation(command, shared_evaluation(**how))
    remote = RemoteOutput(command.output, *_FILES)
    how |= {"output": remote.local, "told": command.output}
    return StoredWork(PreparedEvaluation(command, shared_evaluation(**how)), remote)

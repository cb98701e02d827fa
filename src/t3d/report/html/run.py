"""What a report shows of a run, by the files that lie in its folder."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from t3d.errors import InputError
from t3d.report.finding import finding
from t3d.report.html.content import Content
from t3d.report.html.evaluations import evaluation_charts, evaluation_tables, evaluations_in, samples_of
from t3d.report.html.reproduced import accuracy_charts, accuracy_tables, answers
from t3d.report.html.training import logs_in, loss_chart, training_charts, training_facts
from t3d.work.files import read_json

_OF_SUITE = ("suite", "quick", "budget")
_OF_MODEL = ("weights", "dtype", "device")


def content_of(folder: Path) -> Content:
    """Raises InputError for a folder without results, and for damaged ones."""
    content = Content(title=folder.resolve().name)
    tables = read_json(folder / "tables.json")
    if isinstance(tables, dict) and {"entries", "suite", "versions"} <= tables.keys():
        with _written_by("reproduce", folder / "tables.json"):
            _add_tables(content, folder, tables)
    else:
        _add_evaluations(content, folder)
        _add_training(content, folder)
    _add_demo(content, folder)
    if content.is_empty:
        fix = "give the finished output of t3d eval, demo, train or reproduce"
        raise InputError("run", str(folder), "holds no results and no log of a training", fix)
    if own := _config(folder):
        content.config, content.config_of = own, ""
    return content


def _add_demo(content: Content, folder: Path) -> None:
    match read_json(folder / "summary.json"):
        case {"models": {"teacher": dict(), "student": dict()}, "seconds": dict() as seconds} as summary:
            with _written_by("demo", folder / "summary.json"):
                content.finding = " ".join(finding(summary).split()) + "."
                content.facts += [("method", str(summary["method"])), ("seed", str(summary["seed"]))]
                content.facts += [("seconds", f"{seconds['total']:.0f}")]
                of_model = _of_model(content.environment)
                if whose := content.environment_of:
                    of_model = {f"{name} of {whose}": value for name, value in of_model.items()}
                content.environment, content.environment_of = summary["versions"] | of_model, ""


@contextmanager
def _written_by(command: str, path: Path) -> Generator[None]:
    """InputError where a file only looks like that of a command, or a cell beside it does."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        problem = f"not what t3d {command} writes ({type(error).__name__}: {error})"
        raise InputError("run", str(path), problem, "move or delete it") from error


def _add_evaluations(content: Content, folder: Path) -> None:
    found = evaluations_in(folder)
    if not found:
        return
    content.charts += evaluation_charts(found)
    content.tables += evaluation_tables(found)
    content.samples += [sample for one in found for sample in samples_of(one)]
    record = found[-1].record
    content.environment = {**record.get("versions", {}), **_of_model(record.get("model", {}))}
    content.config = record["config"]
    if len(found) > 1:
        content.config_of = content.environment_of = found[-1].name
    content.facts += [
        ("evaluations", ", ".join(one.name for one in found)),
        ("answers", f"{sum(entry['n'] for one in found for entry in one.entries):,}"),
    ]


def _of_model(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in _OF_MODEL if name in found}


def _add_training(content: Content, folder: Path) -> None:
    logs = logs_in(folder)
    content.training += [(name, charts) for name, log in logs.items() if (charts := training_charts(log))]
    if len(logs) == 1:
        (log,) = logs.values()
        content.facts += training_facts(log)
    if logs and not content.environment:
        match read_json(folder / list(logs)[-1] / "training.json"):
            case {"plan": {"versions": dict() as versions}}:
                content.environment = versions
                content.environment_of = list(logs)[-1] if len(logs) > 1 else ""


def _add_tables(content: Content, folder: Path, tables: Mapping[str, Any]) -> None:
    entries = tables["entries"]
    content.charts += accuracy_charts(entries, folder)
    content.tables += accuracy_tables(entries)
    charts = loss_chart(logs_in(folder), folder)
    content.training += [("students", charts)] if charts else []
    content.samples += answers(entries, folder)
    methods, teachers = (dict.fromkeys(one[name] for one in entries) for name in ("method", "teacher"))
    content.facts += [
        ("suite", str(tables["suite"])),
        ("teachers", ", ".join(Path(name).name for name in teachers)),
        ("methods", ", ".join(methods)),
    ]
    content.config = {name: tables[name] for name in _OF_SUITE if name in tables}
    made_with = tables.get("versions_of_cells", {})
    content.environment = {name: ", ".join(found) for name, found in made_with.items()} or tables["versions"]


def _config(folder: Path) -> dict[str, Any]:
    """The settings that a command wrote beside its output."""
    path = folder / "config.yaml"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(
            "run", str(path), "not YAML", "delete it: the report then has no settings"
        ) from error
    return found if isinstance(found, dict) else {}

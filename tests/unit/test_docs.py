"""The documents name what is there: rooms, layers, files, tests, commands, flags and make targets."""

import ast
import dataclasses
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tyro

from t3d.cli.config_file import flags_from_file, flat_fields
from t3d.cli.main import COMMANDS
from t3d.decoding.precedence import OWN_FIELDS
from t3d.models.own_settings import KEY
from t3d.training.config import T3DConfig
from t3d.training.presets import PRESETS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "t3d"
PAGES = (
    "README.md",
    "AGENTS.md",
    "CONTRIBUTING.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("**/*.md")),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "recipes").glob("*/README.md")),
)
PRESENT = tuple(name for name in PAGES if name != "docs/LOG.md")  # the log tells of what was


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rooms() -> dict[str, str]:
    """Every package and module of t3d by its name in the documents, with the first line of its docstring."""
    found = {}
    for path in SOURCE.iterdir():
        if path.is_dir() and (path / "__init__.py").is_file():
            found[f"{path.name}/"] = path / "__init__.py"
        elif path.suffix == ".py" and not path.name.startswith("__"):
            found[path.name] = path
    docs = {
        name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for name, path in found.items()
    }
    return {name: (text or "").splitlines()[0].replace("``", "`").rstrip(".") for name, text in docs.items()}


def layers() -> list[str]:
    settings = tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]
    (contract,) = [one for one in settings["contracts"] if one["type"] == "layers"]
    return [layer for layer in contract["layers"] if layer != "__main__"]


def rows(text: str) -> dict[str, str]:
    """Rows of a table of rooms: ``| `room` | sentence |``."""
    return dict(re.findall(r"^\| `([a-z_0-9]+(?:/|\.py))` \| (.+) \|$", text, flags=re.MULTILINE))


def test_the_readme_lists_every_room_by_the_first_line_of_its_docstring():
    assert rows(page("README.md")) == rooms()


def test_the_architecture_has_one_sentence_for_every_room():
    assert rows(page("docs/architecture.md")).keys() == rooms().keys()


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md"])
def test_rooms_are_listed_from_the_top_layer_down(name):
    order = [part.strip() for layer in layers() for part in re.split(r"[|:]", layer)]
    listed = [room.removesuffix("/").removesuffix(".py") for room in rows(page(name))]
    assert listed == order


@pytest.mark.parametrize("name", ["AGENTS.md", "docs/architecture.md"])
def test_the_layers_are_those_that_the_import_linter_checks(name):
    assert "".join(f"    {layer}\n" for layer in layers()) in page(name)


def named_files(text: str) -> list[str]:
    """Files and folders of the repository or the package in backticks: ``work/plan.py``, ``tests/unit/``."""
    known = {"benchmarks", "docs", "recipes", "scripts", "src", "tests"} | {
        room.rstrip("/") for room in rooms()
    }
    words = re.findall(r"`([\w./-]+)`", text)
    inside = [word for word in words if "/" in word and word.partition("/")[0] in known]
    files = [word for word in inside if re.search(r"(/|/\w+|\.(py|md|yaml|json|png))$", word)]
    return files + [word for word in words if re.fullmatch(r"\w+\.py|[A-Z]+\.md|\w+\.toml", word)]


@pytest.mark.parametrize("name", PRESENT)
def test_every_named_file_exists(name):
    bases = (ROOT, SOURCE, ROOT / "benchmarks", (ROOT / name).parent)
    assert [
        path for path in named_files(page(name)) if not any((base / path).exists() for base in bases)
    ] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    linked = re.findall(r"\]\(((?!https?:)[^)#\s]+)(?:#[^)]*)?\)", page(name))
    assert [path for path in linked if not (ROOT / name).parent.joinpath(path).exists()] == []


def defines(path: Path, name: str) -> bool:
    """Whether a module has a function, class or value of that name."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return name in found


@pytest.mark.parametrize("name", PRESENT)
def test_every_named_function_exists(name):
    """``training/noising.random_noise_mask``, ``t3d.evaluation.monitor``: the module is there and has it."""
    folders = "|".join(path.name for path in SOURCE.iterdir() if path.is_dir())
    missing = []
    for dotted in re.findall(rf"`((?:t3d[./])?(?:{folders})(?:[./]\w+)+)`", page(name)):
        parts = re.split(r"[./]", dotted.removeprefix("t3d.").removesuffix(".py"))
        module, *rest = SOURCE, *parts
        while rest and (module / rest[0]).is_dir():
            module /= rest.pop(0)
        if not rest or (module / rest[0]).exists() or dotted.endswith((".py", ".yaml", ".json")):
            continue
        file = module / f"{rest[0]}.py"
        if not file.is_file() or (rest[1:] and not defines(file, rest[1])):
            missing.append(dotted)
    assert missing == []


def fields_of(path: str, name: str) -> set[str]:
    """Annotated names in the body of a class."""
    tree = ast.parse((SOURCE / path).read_text(encoding="utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    annotated = [node.target for node in found.body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in annotated if isinstance(target, ast.Name)}


def test_hyperparameters_and_deviations_name_fields_of_the_settings():
    fields = fields_of("training/config.py", "T3DConfig") | fields_of("decoding/params.py", "DecodeParams")
    table = page("docs/paper_map.md").partition("## Hyperparameters")[2]
    settings = [cells.split("|")[1] for cells in table.splitlines() if cells.startswith("| ")]
    named = {word for cell in settings for word in re.findall(r"`(\w+)`", cell)}
    named |= set(re.findall(r"`(\w+)=[^`]*`", page("docs/deviations.md")))
    assert len(named) > 15 and named <= fields


def command_of(words: list[str]) -> tuple[Any, list[str]] | None:
    for name, command in COMMANDS.items():
        if tuple(words[: len(name)]) == name:
            return command, words[len(name) :]
    return None


def shell_lines(text: str) -> list[list[str]]:
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")
    blocks = re.sub(
        r"(?m)^for (\w+) in (\S+).*$", lambda loop: loop[0].replace(f"${loop[1]}", loop[2]), blocks
    )
    lines = re.findall(r"(?:^|\bdo .*?)(t3d (?!lm-eval).*?)(?:;? &? ?done.*)?$", blocks, flags=re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("name", PRESENT)
def test_every_command_of_a_shell_block_parses(name):
    lines = shell_lines(page(name))
    assert len(lines) >= {"README.md": 10, "docs/evaluation.md": 8, "docs/reproduce.md": 5}.get(name, 0)
    for words in lines:
        found = command_of(words)
        assert found is not None, words
        tyro.cli(found[0], args=with_config(*found))


def with_config(command: Any, words: list[str]) -> list[str]:
    """The words with the flags of a recipe of the repository in the place of ``--config`` in front."""
    if words[:1] != ["--config"]:
        return words
    return [*flags_from_file(str(ROOT / words[1]), command), *words[2:]]


@pytest.mark.parametrize("name", PRESENT)
def test_commands_in_the_text_have_the_flags_that_stand_with_them(name):
    for text in re.findall(r"`t3d ([a-z][^`]*)`", page(name)):
        for part in re.split(r"[,;] | \| ", text.replace("\n", " ")):
            found = command_of(part.split())
            if found is None or "lm-eval" in part:
                continue
            known = {field.replace("_", "-") for field in flat_fields(found[0])} | {"config"}
            assert set(re.findall(r"--([a-z][a-z-]*)", part)) <= known, part


def test_flags_in_the_text_are_flags_of_some_command():
    known = {
        field.replace("_", "-")
        for command in COMMANDS.values()
        if dataclasses.is_dataclass(command)
        for field in flat_fields(command)
    } | {"config", "version"}
    elsewhere = set(
        re.findall(
            r"--([a-z][a-z-]*)",
            " ".join(re.findall(r"`(?:python|torchrun|make)[^`]*`", "".join(map(page, PRESENT)))),
        )
    )
    of_ours = {
        flag
        for name in PRESENT
        if name != "docs/evaluation.md"  # with lm-eval's own
        for flag in re.findall(r"`--([a-z][a-z-]*)", page(name))
    }
    assert of_ours - known - elsewhere == set()


def test_every_preset_that_the_paper_map_names_exists():
    named = re.findall(r"`t3d train --preset (\w+)`", page("docs/paper_map.md"))
    assert len(named) > 4 and set(named) <= PRESETS.keys()


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z0-9-]+):", page("Makefile"), flags=re.MULTILINE))
    named = {target for name in PRESENT for target in re.findall(r"`make ([a-z0-9-]+)", page(name))}
    assert "test-types" in named and named <= targets


def test_the_rules_for_agents_fit_on_a_page():
    assert len(page("AGENTS.md").splitlines()) <= 80


def test_every_key_that_travels_with_a_checkpoint_is_documented():
    _, _, rest = page("docs/evaluation.md").partition("### What a checkpoint says of itself\n")
    rows = [line.split("|") for line in rest.split("###")[0].splitlines() if line.startswith("|")]
    keys = {key for row in rows for key in re.findall(r"`(\w+)`", row[2])}
    assert keys == {KEY, *OWN_FIELDS}


def test_the_readme_trains_and_evaluates_teacher_and_student_in_the_same_blocks():
    """Of a base with blocks of its own; the student carries its block size."""
    road = next(text for text in page("README.md").split("```sh\n") if text.startswith("SDAR="))
    lines = road.split("```")[0].replace("\\\n", "").splitlines()
    train, student, teacher = (
        next(line.split() for line in lines if line.startswith(start))
        for start in ("t3d train", "t3d eval --model run/student", "t3d eval --model $SDAR")
    )
    assert "--block-size" not in train + student
    assert teacher[teacher.index("--block-size") + 1] == str(T3DConfig.block_size)
    start = student.index("--tokens-per-step")
    assert student[start:] == teacher[teacher.index("--tokens-per-step") :]

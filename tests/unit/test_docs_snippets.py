"""What stands in the documents can be followed: links with anchors, Python, our own scripts and their flags.

(tests/unit/test_docs.py has the commands, files, functions and fields; tests/integration/test_readme.py runs
the README's Python.)
"""

import ast
import io
import json
import re
import shlex
from contextlib import chdir, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from t3d.cli.config_file import flat_fields
from t3d.cli.main import COMMANDS, main
from t3d.serving.fields import KINDS, Asked, Endpoint, read_asked

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "recipes/**/*.md", "src/**/*.md")
    for path in ROOT.glob(pattern)
)
HISTORY = ("CHANGELOG.md", "docs/LOG.md")
"""They tell of what was."""
FORWARDS = {
    "scripts/gpu_check.sh": "benchmarks/gpu_check.py",
    "recipes/train_node.sh": "t3d train",
    "recipes/train_slurm.sh": "t3d train",
    "recipes/rollout_ray.sh": "t3d rollout",
}
"""Shell scripts that give their flags on, and to what."""
CODE = re.compile(r"^( *)```.*?^\1```", flags=re.DOTALL | re.MULTILINE)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """Those that a page sets itself, and those of its headings, as GitHub and the site make them."""
    found: dict[str, int] = {}
    names = set(re.findall(r'<a id="([^"]+)">', text))
    for title in re.findall(r"^#+ +(.+?)#*$", CODE.sub("", text), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return names


def test_anchors_are_made_as_github_makes_them():
    text = '# A `b_c`, [d](e)\n## A `b_c`, d\n```sh\n# no title\n```\n### T3D (DDO + path)\n<a id="own">'
    assert anchors(text) == {"a-b_c-d", "a-b_c-d-1", "t3d-ddo--path", "own"}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_and_its_anchor_lead_somewhere(name):
    broken = []
    text = re.sub(r"`[^`\n]*`", "", CODE.sub("", page(name)))
    for target in re.findall(r"\]\(((?!https?:|mailto:)[^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


def python_blocks(name: str) -> list[str]:
    return re.findall(r"^```(?:python|py)\n(.*?)^```", page(name), flags=re.DOTALL | re.MULTILINE)


def imported(tree: ast.AST) -> list[tuple[str, str | None]]:
    """Modules of t3d and the names that are taken from them."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
    return [(module, each) for module, each in found if module.partition(".")[0] == "t3d"]


def is_there(module: str, name: str | None) -> bool:
    return find_spec(module) is not None and (name is None or hasattr(import_module(module), name))


@pytest.mark.parametrize("name", [name for name in PAGES if python_blocks(name)])
def test_every_python_block_compiles_and_imports_what_there_is(name):
    for block in python_blocks(name):
        tree = ast.parse(block)
        assert [(module, each) for module, each in imported(tree) if not is_there(module, each)] == []


def test_a_name_that_is_not_there_is_found_missing():
    tree = ast.parse("from t3d import LLM, Nothing\nimport t3d.nowhere\nimport os")
    missing = [pair for pair in imported(tree) if not is_there(*pair)]
    assert missing == [("t3d", "Nothing"), ("t3d.nowhere", None)]


def calls_of_scripts(name: str) -> list[tuple[str, list[str]]]:
    """Scripts of the repository that a page starts, in blocks and in the text, with the flags behind them."""
    text = re.sub(r"\\\n\s*", " ", page(name))
    found = re.findall(
        r"(?<![\w/.])((?:benchmarks|scripts|recipes)/[\w/.]+\.(?:py|sh))\b([^\n`|>;&#]*)", text
    )
    return [(script, re.findall(r"(?<!\S)--[a-z][a-z-]*", rest)) for script, rest in found]


def known_flags(script: str) -> set[str]:
    """Those in a script's text, and in the texts of the modules beside it that it imports."""
    if script.startswith("t3d "):
        fields = flat_fields(COMMANDS[tuple(script.split()[1:])])
        return {f"--{field.replace('_', '-')}" for field in fields} | {"--config"}
    path = ROOT / FORWARDS.get(script, script)
    texts, tree = [path.read_text(encoding="utf-8")], None
    if path.suffix == ".py":
        tree = ast.parse(texts[0])
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.ImportFrom) and (path.parent / f"{node.module}.py").is_file():
            texts.append((path.parent / f"{node.module}.py").read_text(encoding="utf-8"))
    return set(re.findall(r"--[a-z][a-z-]*", " ".join(texts)))


@pytest.mark.parametrize("name", [name for name in PAGES if name not in HISTORY])
def test_every_script_that_is_started_exists_and_knows_its_flags(name):
    wrong = []
    for script, flags in calls_of_scripts(name):
        if not (ROOT / script).is_file():
            wrong.append(script)
            continue
        known = known_flags(FORWARDS.get(script, script))
        wrong += [f"{script} {flag}" for flag in flags if flag not in known]
    assert wrong == []


def test_calls_of_scripts_are_found_with_their_flags():
    calls = calls_of_scripts("docs/evaluation.md")
    (of_real_text,) = [flags for script, flags in calls if script.endswith("real_text.py") and flags]
    assert of_real_text == ["--teacher", "--judge", "--prompts", "--student", "--student", "--json"]
    assert "--lora-rank" in known_flags("t3d train") and "--tiny" in known_flags("scripts/gpu_check.sh")


def table_rows(name: str, first: str) -> list[list[str]]:
    """Cells of the rows behind the heading whose first cell is this one."""
    _, _, rest = page(name).partition(f"| {first} |")
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_gpu_pages_numbers_are_what_plan_computes(capsys):
    rows = table_rows("docs/gpu.md", "model, recipe")
    assert len(rows) == 7
    for model, gpus, training, rollout, hours, peaks in rows:
        (recipe,) = re.findall(r"`([\w.]+)`", model)
        size = gpus.partition(",")[0]
        flags = [f"recipes/{recipe}.yaml", "--gpus", size]
        if peaks != "A100":
            tera, giga = re.findall(r"\d[\d,]*", peaks)
            flags += ["--peak-tflops", tera, "--memory-bandwidth", giga.replace(",", "")]
        assert main(["plan", *shlex.split(" ".join(flags).replace("recipes/", f"{ROOT}/recipes/"))]) == 0
        printed = capsys.readouterr().out
        needs = [float(number) for number in re.findall(r"together +([\d.]+)", printed)]
        room = float(re.findall(r"GB: ([\d.]+);", printed)[0])
        assert training == f"{needs[0]:.1f} of {room:.0f}" and rollout == f"{needs[1]:.1f}", flags
        computed = re.findall(r"prompts ([\d.]+), training on \d+ trajectories ([\d.]+)", printed)
        assert hours == ", ".join(computed[0]), flags


def test_errors_to_look_for_are_in_the_code():
    told = page("docs/troubleshooting.md").partition("## It works")[0]
    words = re.findall(r"^\| `([^`]+)` \|", told, flags=re.MULTILINE)
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "t3d").rglob("*.py"))
    assert len(words) >= 40 and [each for each in words if each not in code] == []


def test_the_methods_page_has_the_readmes_numbers():
    first = {row[0]: row[2:5] for row in table_rows("README.md", "preset")}
    second = {row[0]: row[2:5] for row in table_rows("docs/methods.md", "preset")}
    assert len(first) == 6 and first == second


def test_the_times_of_trainings_are_those_that_their_python_prints():
    (code,) = re.findall(r"```python\n(.*?)```", page("docs/methods.md"), flags=re.DOTALL)
    with chdir(ROOT), redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    seconds = dict(line.split(": ") for line in printed.getvalue().splitlines())
    rows = {row[0].strip("`"): row[6] for row in table_rows("docs/methods.md", "preset") if row[0]}
    assert len(rows) == 5 and rows.items() <= seconds.items()


def test_committed_pictures_and_pages_are_small():
    kinds = (".png", ".svg", ".jpg", ".gif", ".html")
    skipped = (".venv", "runs", ".git")
    sizes = {
        str(path.relative_to(ROOT)): path.stat().st_size
        for path in ROOT.rglob("*")
        if path.suffix in kinds and path.relative_to(ROOT).parts[0] not in skipped
    }
    assert len(sizes) > 10 and {name: size for name, size in sizes.items() if size > 300_000} == {}


def asked(**body: Any) -> Asked:
    """What the server reads of a request of the bundled model."""
    endpoint: Endpoint = "chat/completions" if "messages" in body else "completions"
    return read_asked(body, endpoint, {"block_size": 8}, 128)


def test_the_requests_of_the_page_about_serving_are_understood():
    text = page("docs/serving.md")
    (curl,) = re.findall(r"curl [^\n]*/v1/chat/completions .*?-d '(\{.*?\})'\n", text, flags=re.DOTALL)
    assert asked(**json.loads(curl)).max_tokens == 64
    (call,) = [
        node
        for node in ast.walk(ast.parse(python_blocks("docs/serving.md")[0]))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "client.chat.completions.create"
    ]
    told = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    assert asked(**told.pop("extra_body"), **told).returns_step_map
    (settings,) = re.findall(r"`gen_kwargs` \(`([^`]+)`\)", text)
    numbers = {name: json.loads(value) for name, value in (each.split("=") for each in settings.split(","))}
    assert asked(prompt="a", **numbers).params.block_size == 8


def test_the_page_about_serving_has_every_field_of_a_request():
    named = {
        name for row in table_rows("docs/serving.md", "field") for name in re.findall(r"`(\w+)`", row[0])
    }
    assert named | {"model"} == {name for fields in KINDS.values() for name in fields}

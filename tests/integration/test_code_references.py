"""The benchmarks' own solutions pass in the sandbox, and fail with a hollow function."""

import ast
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from setup_helpers import absent

from t3d.errors import InputError
from t3d.grading.code import grade_program
from t3d.sandbox.sandbox import Limits, Sandbox
from t3d.tasks.humaneval import HumanEvalTask
from t3d.tasks.mbpp import MbppTask

DATA = Path(os.environ.get("T3D_DATA", ""))
pytestmark = [
    pytest.mark.skipif(
        not (DATA / "humaneval").is_dir() or not (DATA / "mbpp").is_dir(),
        reason="set T3D_DATA to the folder of the data sets",
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
]
LIMITS = Limits(time_limit_s=120.0)  # mbpp/123 computes for 5 s, and longer where others compute too
CASES = [
    ("humaneval", None, 164),
    pytest.param("mbpp", "t3d", 974, marks=pytest.mark.slow),
    pytest.param("mbpp", "sanitized", 427, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def walls(request):
    try:
        return Sandbox(isolation=request.param, limits=LIMITS)
    except InputError as error:
        absent(error.problem)


class Hollow(ast.NodeTransformer):
    """Replaces the bodies of functions that the tests name by ``return None``."""

    def __init__(self, names):
        self.names, self.count = names, 0

    def visit_FunctionDef(self, node):
        if node.name in self.names:
            node.body = [ast.Return(ast.Constant(None))]
            self.count += 1
        return node


def hollow(entry):
    """The reference with hollow functions, and how many those are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "\\w" and such in the data
        warnings.simplefilter("ignore", SyntaxWarning)
        tests, reference = (ast.parse(text) for text in ("\n".join(entry.tests.tests), entry.reference))
    transformer = Hollow({node.id for node in ast.walk(tests) if isinstance(node, ast.Name)})
    tree = transformer.visit(reference)
    return ast.unparse(ast.fix_missing_locations(tree)), transformer.count


def grade_programs(walls, programs):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda program: grade_program(walls, *program), programs))


def entries_of(name, protocol, count):
    task = HumanEvalTask(DATA) if name == "humaneval" else MbppTask(DATA, protocol=protocol)
    entries = list(task.all_problems.values())
    assert len(entries) == count
    return entries


@pytest.mark.parametrize(("name", "protocol", "count"), CASES)
def test_references_pass(walls, name, protocol, count):
    entries = entries_of(name, protocol, count)
    results = grade_programs(walls, [(entry.reference, entry.tests) for entry in entries])
    pairs = zip(entries, results, strict=True)
    failed = {entry.problem.id: result.first_failure for entry, result in pairs if not result.passed}
    assert failed == {}


@pytest.mark.parametrize(("name", "protocol", "count"), CASES)
def test_hollow_references_fail(walls, name, protocol, count):
    entries = entries_of(name, protocol, count)
    programs = [hollow(entry) for entry in entries]
    unchanged = {entry.problem.id for entry, (_, num) in zip(entries, programs, strict=True) if num == 0}
    assert unchanged == set()
    runs = [(program, entry.tests) for (program, _), entry in zip(programs, entries, strict=True)]
    pairs = zip(entries, grade_programs(walls, runs), strict=True)
    reasons = {entry.problem.id: result.first_failure.reason for entry, result in pairs}
    assert {
        identity: reason for identity, reason in reasons.items() if reason not in ("wrong", "error")
    } == {}

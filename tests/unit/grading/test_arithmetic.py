"""Model-written functions: only harmless arithmetic is let through and run, and nothing of it can go on."""

import dis
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.grading import arithmetic
from t3d.grading.arithmetic import refusal, run_program

GOOD = "def f(x):\n y = 3 * x + 4\n return y - 5 if y > 20 else y\n"
# The only way to a module without builtins or import: some class whose methods' globals are the os module's.
FIND = "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]"
OS = f"{FIND}.__init__.__globals__"


def test_outputs_are_those_of_the_function():
    assert run_program(GOOD, "f", [0, 1, 8, -10]) == (4, 7, 23, -26)
    assert run_program(GOOD, "f", []) == ()


ALLOWED = {
    "def f(x): return -x": (0, -3),
    "def f(number):\n    return number": (0, 3),
    "def f(x):\n\tif x >= 2:\n\t\treturn 1000000 * x\n\telse:\n\t\treturn x - 1": (-1, 3000000),
    "def f(x):\n if x == 0:\n  y = 1\n elif x != 4:\n  y = 2\n return y": (1, 2),
    "# a comment\ndef f(x):\n a = b = (x + 1) * (x - 1)  # why not\n\n return a + b\n": (-2, 16),
    "def f(x):\n return 1 if x < 1 else 2 if x <= 3 else 3": (1, 2),
    "def f(x):\n return " + "(" * 99 + "x" + ")" * 99: (0, 3),  # they leave no trace in the tree
}


@pytest.mark.parametrize(("source", "outputs"), ALLOWED.items())
def test_allowed_programs_run(source, outputs):
    assert run_program(source, "f", [0, 3]) == outputs


REFUSED = [
    "",
    "f",
    "def g(x):\n return x",
    "def f(x):\n return x\ndef g(x):\n return x",
    "x = 3\ndef f(x):\n return x",
    "f = lambda x: x",
    "class f: pass",
    "async def f(x):\n return x",
    "@f\ndef f(x):\n return x",
    "def f():\n return 1",
    "def f(x, y):\n return x",
    "def f(x=1):\n return x",
    "def f(x, /):\n return x",
    "def f(*x):\n return x",
    "def f(**x):\n return x",
    "def f(*, x):\n return x",
    "def f(x, *y):\n return x",
    "def f(x: y):\n return x",
    "def f(x) -> x:\n return x",
    "def f[T](x):\n return x",
    "def f(__x):\n return 1",
    *(
        f"def f(x):\n {statement}\n return x"
        for statement in (
            "import os",
            "from os import path",
            "pass",
            "x",
            "x()",
            "exit()",
            "x += 1",
            "x: int = 1",
            "x, y = 1, 2",
            "[x] = 1",
            "x.y = 1",
            "x[0] = 1",
            "while 1:\n  x = x",
            "for y in x:\n  x = y",
            "def g(x):\n  return x",
            "class g:\n  x = 1",
            "global x",
            "nonlocal x",
            "del x",
            "raise x",
            "assert x",
            "try:\n  x = 1\n finally:\n  x = 2",
            "with x:\n  x = 1",
            "match x:\n  case 1:\n   x = 2",
        )
    ),
    *(
        f"def f(x):\n return {expression}"
        for expression in (
            "print(x)",
            "__import__(x)",
            "__builtins__",
            "__debug__",
            "x.real",
            "x[0]",
            "'text'",
            "b'text'",
            "f'{x}'",
            "x ** x",
            "x << x",
            "x >> 1",
            "x / 2",
            "x // 2",
            "x % 2",
            "x & 1",
            "x | 1",
            "x ^ 1",
            "x @ x",
            "~x",
            "+x",
            "not x",
            "x and 1",
            "x or 1",
            "1 < x < 3",
            "1 if x is 1 else 2",
            "1 if x in x else 2",
            "lambda: x",
            "[x for x in x]",
            "[x]",
            "(x, x)",
            "{x}",
            "{x: x}",
            "(y := x)",
            "*x, 1",
            "(yield x)",
            "await x",
            "1.5",
            "1e3",
            "2j",
            "True",
            "None",
            "...",
            "1000001",
            "9" * 1500,
            "0x10",
            "1_0",
            "x-5if x else 1",
            "x" + " + 1" * 400,
            "-" * 1500 + "x",
            "(" * 900 + "x" + ")" * 900,
            "x +",
        )
    ),
    GOOD + " " * 2000,
    GOOD + "\0",
    GOOD + "\\",
    GOOD + "\r",
    GOOD + "\x0c",
    GOOD + "# \u00e9",
    GOOD + "# \ud800",
    "def \uff46(x):\n return x",  # Python normalizes this letter to f
    "def f(x):\nreturn x",
    "".join("\n" + " " * depth + "if x:" for depth in range(60)),
]


@pytest.mark.parametrize("source", REFUSED, ids=lambda source: ascii(source[-40:]))
def test_everything_else_is_refused_with_a_short_reason(source):
    started = time.process_time()
    result = run_program(source, "f", [1])
    assert isinstance(result, str)
    assert result.startswith("refused: ")
    assert len(result) < 120
    assert refusal(source, "f") == result.removeprefix("refused: ")
    assert time.process_time() - started < 5, "it is refused, not tried"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return y", "error: NameError: name 'y' is not defined"),
        ("if x < 0:\n  y = 1\n return y", "error: UnboundLocalError"),
        ("return x < 3", "error: output of type bool, not int"),
        ("return f", "error: output of type function, not int"),
        ("return", "error: output of type NoneType, not int"),
        ("y = 1000000 * 1000000 * 1000000\n return y * y * 10000", "error: output of more than 40 digits"),
    ],
)
def test_an_allowed_program_can_fail(body, reason):
    result = run_program(f"def f(x):\n {body}", "f", [1])
    assert isinstance(result, str)
    assert result.startswith(reason)


def test_output_of_forty_digits_passes_with_either_sign():
    source = "def f(x):\n y = 1000000 * 1000000 * 1000000\n return (y * y * 10000 - 1) * x"
    assert run_program(source, "f", [1, -1]) == (10**40 - 1, 1 - 10**40)


def test_a_program_whose_numbers_explode_is_refused():
    """Each assignment doubles the digits; eight of them are allowed and end at once."""
    explosive = "def f(x):\n" + " x = x * x\n" * 150 + " return x"
    assert refusal(explosive, "f") == "more than 8 multiplications"
    longest = "def f(x):\n" + " x = x * x\n" * 8 + " return x - x"
    started = time.process_time()
    assert run_program(longest, "f", [999]) == (0,)
    assert time.process_time() - started < 5, "it is refused, not tried"


@pytest.mark.parametrize(
    "body",
    [
        "while 1: x = x",
        "for y in x: x = y",
        "return [0] * 2**28 and 1",
        "return [0] * 2147483648",
        "return f(x)",
        "return 9**9**9",
        "return 9 << 9999999999",
        "import os\n os._exit(0)",
        "raise SystemExit",
        "exit()",
        "print(1)",
        "return open(x)",
        "return 1, 2",
        "return 10**40",
        "return 1 if",
        "return '\ud800'",
        f"return {OS}['_exit'](0)",
        f"return {OS}['abort']()",
        f"return {OS}['kill'](0, 9)",
        f"return {OS}['sys'].exit(0)",
        f"return {OS}['open']('made', 65)",
        f"return {OS}['write'](1, b'x')",
        f"while 1:\n  try: {OS}['write'](4, b'x' * 999)\n  except {OS}['error']: x = 1",
    ],
)
def test_attacks_are_refused_before_anything_runs(monkeypatch, body):
    with monkeypatch.context() as patch:
        patch.setattr(arithmetic, "exec", lambda *_: pytest.fail("it ran"), raising=False)
        started = time.process_time()
        result = run_program(f"def f(x):\n {body}", "f", [1])
        assert isinstance(result, str) and result.startswith("refused: ")
        assert time.process_time() - started < 5, "it is refused, not tried"
    assert run_program(GOOD, "f", [0, 1, 8, -10]) == (4, 7, 23, -26)


def test_a_program_has_no_builtins_and_leaves_nothing_for_the_next():
    for name in ("print", "int", "exit", "SystemExit", "NameError", "y"):
        result = run_program(f"def f(x):\n return {name}", "f", [1])
        assert result == f"error: NameError: name '{name}' is not defined"
        run_program("def f(x):\n y = 1\n return y", "f", [1])


def test_many_inputs_pass():
    inputs = range(50_000)
    assert run_program("def f(x):\n return x + 1", "f", inputs) == tuple(range(1, 50_001))


def assert_ends_by_itself(source):
    """No instruction of the compiled function goes back, calls, imports or reaches into an object."""
    module = compile(source, "<program>", "exec", dont_inherit=True)
    (function,) = (constant for constant in module.co_consts if hasattr(constant, "co_code"))
    for instruction in dis.get_instructions(function):
        assert not {"BACKWARD", "CALL", "IMPORT", "ATTR", "SUBSCR", "ITER"} & set(
            instruction.opname.split("_")
        )
        if instruction.opcode in (*dis.hasjrel, *dis.hasjabs):
            assert instruction.argval > instruction.offset
    assert not any(hasattr(constant, "co_code") for constant in function.co_consts)


@pytest.mark.parametrize("source", [GOOD, *ALLOWED])
def test_every_instruction_of_an_allowed_program_runs_at_most_once(source):
    assert refusal(source, "f") is None
    assert_ends_by_itself(source)


@pytest.mark.parametrize(
    "body", ["while x: x = x - 1", "return f(x)", "return x.real", "return [x for x in x]"]
)
def test_that_check_of_instructions_can_fail(body):
    with pytest.raises(AssertionError):
        assert_ends_by_itself(f"def f(x):\n {body}")


MUTATION = st.tuples(
    st.integers(0, len(GOOD)),
    st.integers(0, 6),
    st.text(st.sampled_from(string.printable + "\0\u00e9\ud800"), max_size=6)
    | st.sampled_from(["x * x", " y", "\n ", "\n return ", "if ", "else ", "(", ")", "- ", "x", "y", "7"]),
)


@settings(max_examples=300, deadline=None)
@given(source=st.text(max_size=200) | st.lists(MUTATION, min_size=1, max_size=4))
def test_no_text_raises_or_hangs(source):
    if isinstance(source, list):
        mutations, source = source, GOOD
        for start, length, text in mutations:
            source = source[:start] + text + source[start + length :]
    started = time.process_time()
    result = run_program(source, "f", [0, 1, 8, -10])
    assert not isinstance(result, str) or result.startswith(("refused: ", "error: "))
    assert time.process_time() - started < 10
    if refusal(source, "f") is None:
        assert_ends_by_itself(source)

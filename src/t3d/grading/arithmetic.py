"""Check and run tiny model-written Python functions, in this process.

Only what :func:`refusal` lets through is run: arithmetic on integers, assignments, comparisons and branches.
Such a program has no way to the interpreter (no attribute, call, subscript, import or text, and no builtins),
and none to go on: nothing repeats or calls, so every part of its at most 2,000 characters is evaluated at
most once for an input, and eight multiplications keep its numbers to a few thousand digits. Therefore there
is no time limit on which a verdict could depend.
"""

import ast
import re
from collections.abc import Sequence
from typing import Any

MAX_SOURCE_LENGTH = 2000
MAX_CONSTANT = 10**6
MAX_DEPTH = 40
MAX_MULTIPLICATIONS = 8
"""Keeps numbers short: every ``x = x * x`` may double their length."""
MAX_OUTPUT_DIGITS = 40
OUTPUT_BOUND = 10**MAX_OUTPUT_DIGITS
MAX_REASON_LENGTH = 120
UNUSUAL_CHARACTER = re.compile(r"""[^\n\t -~]|["'\\]""")
# 5if, 0x1f, 1_000: the parser warns about some, and a verdict must not depend on the warning filter.
NUMBER_IN_WORD = re.compile(r"(?<!\w)\d+[A-Za-z_]")
STATEMENTS = (ast.Assign, ast.Return, ast.If)
EXPRESSIONS = (ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Load, ast.Store)
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.USub)
COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
ALLOWED_NODES = frozenset((*STATEMENTS, *EXPRESSIONS, *OPERATORS, *COMPARISONS))


def refusal(source: str, function_name: str) -> str | None:
    """Why the AST allow-list refuses this program; None if it is allowed.

    Allowed is one function of one plain argument, made of assignments to names, ``return`` and ``if``, with
    names, integers up to 10**6, ``+ - *``, unary minus, single comparisons and conditional expressions.
    """
    if len(source) > MAX_SOURCE_LENGTH:
        return f"longer than {MAX_SOURCE_LENGTH} characters"
    if character := UNUSUAL_CHARACTER.search(source):
        return f"character {character.group()!a}"
    if number := NUMBER_IN_WORD.search(source):
        return f"number that runs into a word: {number.group()}"
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"does not parse: {type(error).__name__}"
    if len(module.body) != 1 or not isinstance(module.body[0], ast.FunctionDef):
        return "not exactly one function"
    function = module.body[0]
    if function.name != function_name:
        return f"defines {function.name[:40]}, not {function_name}"
    return _refused_signature(function) or _refused_body(function)


def _refused_signature(function: ast.FunctionDef) -> str | None:
    # Any other child node is a decorator, annotation, default, type parameter or other kind of argument.
    if list(ast.iter_child_nodes(function)) != [function.args, *function.body]:
        return "decorator, annotation or type parameter"
    arguments = list(ast.iter_child_nodes(function.args))
    if len(arguments) != 1 or arguments != function.args.args or function.args.args[0].annotation:
        return "not exactly one plain argument"
    return "name with two underscores" if "__" in function.args.args[0].arg else None


def _refused_body(function: ast.FunctionDef) -> str | None:
    if sum(isinstance(node, ast.Mult) for node in ast.walk(function)) > MAX_MULTIPLICATIONS:
        return f"more than {MAX_MULTIPLICATIONS} multiplications"
    stack: list[tuple[ast.AST, int]] = [(statement, 1) for statement in function.body]
    while stack:
        node, depth = stack.pop()
        if type(node) not in ALLOWED_NODES:
            return f"{type(node).__name__} is not allowed"
        if depth > MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH}"
        if isinstance(node, ast.Name) and "__" in node.id:
            return "name with two underscores"
        if isinstance(node, ast.Constant) and (type(node.value) is not int or node.value > MAX_CONSTANT):
            return f"constant other than an integer up to {MAX_CONSTANT}"
        if isinstance(node, ast.Compare) and len(node.ops) != 1:
            return "chained comparison"
        stack.extend((child, depth + 1) for child in ast.iter_child_nodes(node))
    return None


def run_program(source: str, function_name: str, inputs: Sequence[int]) -> tuple[int, ...] | str:
    """Outputs of ``function_name`` for each input; or why there are none, as ``refused: ...`` (by the
    allow-list, and never run) or ``error: ...``."""
    if why := refusal(source, function_name):
        return f"refused: {why}"
    namespace: dict[str, Any] = {"__builtins__": {}}
    exec(compile(source, "<program>", "exec", dont_inherit=True), namespace)
    function = namespace[function_name]
    try:
        outputs = tuple(function(value) for value in inputs)
    except (NameError, TypeError) as error:  # no other follows from what is allowed
        return f"error: {type(error).__name__}: {error}"[:MAX_REASON_LENGTH]
    finally:
        namespace.clear()  # the function and its globals refer to each other: do not wait for the collector
    for output in outputs:
        if type(output) is not int:  # bool is refused too
            return f"error: output of type {type(output).__name__}, not int"
        if not -OUTPUT_BOUND < output < OUTPUT_BOUND:
            return f"error: output of more than {MAX_OUTPUT_DIGITS} digits"
    return outputs

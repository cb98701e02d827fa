"""The rules by which a program is found in a response, and where they differ."""

import json
import os
import textwrap
import time
from pathlib import Path

import pytest

from t3d.grading.program_text import fenced_blocks, find_program, last_python_block
from t3d.problems.prompt_styles import answer_prefix
from t3d.tasks.benchmarks import load_benchmark

DATA = Path(os.environ.get("T3D_DATA", ""))
STUB = 'def half(x):\n    """Half of x."""\n'
WHOLE = "def half(x):\n    return x // 2"
BODY = "    if x:\n        return x // 2\n    return 0"
OTHER = "def half(x):\n    return 3"


def opencompass(response, kind="completion"):
    return find_program(
        response, "opencompass", prefix=answer_prefix(STUB, kind), is_completion=kind == "completion"
    )


def dllm_rl(response):
    return find_program(response, "dllm_rl", prefix=answer_prefix(STUB, "completion"), is_completion=True)


@pytest.mark.parametrize("kind", ["completion", "function"])
@pytest.mark.parametrize(
    "response",
    [
        f"```python\n{WHOLE}\n```",
        f"```Python\n{WHOLE}\n```",
        f"```py\n{WHOLE}\n```",
        f"``` python\n{WHOLE}\n```",
        f"```python title=half.py\n{WHOLE}\n```",
        f"```\n{WHOLE}\n```",
        f"\n{WHOLE}\n",
        f"   \n\n{WHOLE}",
        f"Sure:\n\n```\n\n{WHOLE}\n\n```\nDone.",
        f"Sure: ```python\n{WHOLE}\n```",
        f"```python\n{WHOLE}```",
        f"```python\n{WHOLE}",
        f"```\n{WHOLE}",
        f"````python\n{WHOLE}\n````",
        f"```python\n{WHOLE}\n    ```\nNo other line closes it.",
        f"{WHOLE}\n```",
        f"{WHOLE}\n```\nThat is all.",  # goes on where a fence of the prompt's ends
        "  1. Like this:\n" + textwrap.indent(f"```python\n{WHOLE}\n```", "    "),
        f"```python\n{textwrap.indent(WHOLE, '  ')}\n```",
        f"    ```python\n{WHOLE}\n    ```",  # the fence alone is indented
        f"\t```python\n{textwrap.indent(WHOLE, chr(9))}\n\t```",
        f"```python\n{WHOLE}\n```\nUsage:\n```python\nprint(half(3))\n```",
        f"```python\n{WHOLE}\n```\nOutput:\n```\n1\n```",
        f"```python\n{WHOLE}\n```\nor\n```python\n{OTHER}\n```",
    ],
)
def test_opencompass_takes_the_first_block_whatever_its_fence_or_the_text(response, kind):
    assert opencompass(response, kind) == WHOLE


@pytest.mark.parametrize(
    "response",
    [
        "",
        " \n",
        "I cannot do that.",
        "Yes",
        "half",
        "```python\n```",
        "```python",
        "```\n\n```\nThat is all.",
        "from my side there is no code: import it yourself",
    ],
)
@pytest.mark.parametrize("kind", ["completion", "function"])
def test_where_there_is_no_program_none_is_found(response, kind):
    assert opencompass(response, kind) is None
    assert dllm_rl(response) is None


@pytest.mark.parametrize("response", [BODY, f"```python\n{BODY}\n```", f"{BODY}\n```", f"\n\n{BODY}\n"])
def test_the_body_of_a_function_keeps_its_indentation(response):
    assert opencompass(response) == BODY


def test_a_fence_within_a_program_does_not_end_it():
    in_line = 'def half(x):\n    """Use ```half(3)``` so."""\n    return x // 2'
    example = 'def half(x):\n    """\n    ```\n    half(3)\n    ```\n    """\n    return x // 2'
    inner = 'def half(x):\n    "a\\n```\\nb"\n    return x // 2'
    assert opencompass(f"```python\n{in_line}\n```") == in_line
    assert opencompass(f"```python\n{example}\n```") == example
    assert opencompass(f"````python\n{inner}\n````") == inner


def test_line_ends_of_windows_do_not_hide_a_fence():
    assert opencompass(f"```python\r\n{WHOLE}\r\n```\r\n") == WHOLE


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (f"[BEGIN]\n{WHOLE}\n[DONE]\nIt halves.", WHOLE),
        (f"[BEGIN]\n{WHOLE}", WHOLE),
        (f"[BEGIN]\n```python\n{WHOLE}\n```\n[DONE]", WHOLE),
        (f"```bash\npip install half\n```\n```python\n{WHOLE}\n```", WHOLE),
        (f"```text\nhalf(2) = 1\n```\n```\n{WHOLE}\n```", "half(2) = 1"),
        ("[BEGIN]\n[DONE]", None),
    ],
)
def test_functions_may_be_marked_and_blocks_in_python_come_first(response, code):
    """OpenCompass's rule for MBPP, which differs from that for HumanEval."""
    assert opencompass(response, "function") == code


def test_of_completions_the_first_block_counts_whatever_its_language():
    assert opencompass("```bash\npip install half\n```\n```python\nx = 1\n```") == "pip install half"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("First:\n```python\nx = 1\n```\nbetter:\n```python\n\n  x = 2\n```\nDone.", "x = 2"),
        ("```python\nx = 1", None),
        ("```\nx = 1\n```", None),
        ("", None),
        ("```python\nx = 1\n```\n```python\nx = 2", "x = 1"),
        ("```python```", None),
    ],
)
def test_dllm_rl_takes_the_last_closed_python_block(text, code):
    assert last_python_block(text, "") == code
    assert last_python_block(text, answer_prefix(STUB, "completion")) == code


def test_dllm_rl_goes_on_with_the_prefix_of_the_prompt():
    assert dllm_rl(f"{BODY}\n```\nThat is all.") == f"{STUB}\n{BODY}"
    assert dllm_rl(BODY) is None  # cut short
    assert (
        find_program(f"\n{WHOLE}\n```", "dllm_rl", prefix=answer_prefix("", "function"), is_completion=False)
        == WHOLE
    )


@pytest.mark.many_inputs
@pytest.mark.parametrize(
    "fence",
    ["```", "```\n", "````\n```\n", "    ```\n", "x```\n", " " * 9, "[BEGIN]\n", "a\n", "``` `````x````\n"],
)
def test_extraction_is_linear_in_the_length(fence):
    """The square of the length would be minutes at least."""
    text, started = fence * 12_000, time.process_time()
    fenced_blocks(text)
    opencompass(text)
    opencompass(text, "function")
    dllm_rl(text)
    assert time.process_time() - started < 20


@pytest.mark.skipif(
    not (DATA / "humaneval").is_dir() or not (DATA / "mbpp").is_dir(),
    reason="set T3D_DATA to the folder of the data sets",
)
@pytest.mark.parametrize(("name", "count"), [("humaneval", 164), ("mbpp", 974)])
def test_every_published_solution_is_found_in_every_form(name, count):
    task = load_benchmark(name, DATA)
    solutions = [
        entry.reference.replace("\r\n", "\n").strip("\n").rstrip() for entry in task.all_problems.values()
    ]
    assert len(solutions) == count
    forms = (
        "```python\n{}\n```",
        "```\n{}\n```",
        "{}",
        "```python\n{}\n```\n```python\nprint(1)\n```",
        "```python\n{}",
    )
    for form in forms:
        for solution in solutions:
            found = opencompass(form.replace("{}", solution), task.kind)
            assert found is not None and found.split() == solution.split(), json.dumps(solution)

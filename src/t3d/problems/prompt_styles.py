"""What a problem's prompt says besides the question: instructions by style and kind of problem.

``plain`` adds nothing. ``paper`` is Appendix C.3 as printed, where the box has no backslash. ``released`` is
what the model sees in T3D's released code. ``sdar`` is how SDAR was evaluated (OpenCompass configurations
gsm8k_0shot_v2_gen_17d799, math_prm800k_500_0shot_cot_gen_11c4b5, humaneval_openai_sample_evals_gen_dcae0e and
sanitized_mbpp_mdblock_0shot_nocot_gen_a2e416). Texts only; :mod:`t3d.problems.prompts` makes tokens of them.
"""

from typing import Literal

from t3d.errors import InputError

PromptStyle = Literal["plain", "paper", "released", "sdar"]
PromptKind = Literal["math", "function", "completion", "stdio"]
"""``function``: write a function that passes tests. ``completion``: complete the function that the question
begins. ``stdio``: write a program that reads input and prints output."""

BOXED_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."

_COMPLETION = "You need to complete this code:\n{question}\n"
"""The question about a function's beginning in the released data."""
_PAPER_CODE = (
    "This is the problem: {question}. Place your code within a single Python code block ```python```. "
    "Do not include more than one code block."
)
_USER_TURNS: dict[tuple[PromptStyle, PromptKind], str] = {
    ("paper", "math"): (
        "{question}. Please reason step by step, and put your final answer within boxed{}. "
        "You are a precise math problem solver. Solve the given math problem step by step."
    ),
    ("paper", "function"): _PAPER_CODE,
    ("paper", "completion"): _PAPER_CODE.replace("{question}", _COMPLETION),
    ("paper", "stdio"): _PAPER_CODE,
    ("sdar", "math"): "{question}\n" + BOXED_INSTRUCTION,
    ("sdar", "function"): (
        "You are an expert Python programmer, and here is your task:\n{question}\n"
        " You should submit your final solution in the following format: ```python\n\n```"
    ),
    ("sdar", "completion"): (
        "Read the following function signature and docstring, and fully implement the function described. "
        "Your response should only contain the code for this function.\n{question}"
    ),
}
"""The user's turn. The question replaces its mark literally: a brace in either has no meaning."""

_FUNCTION_RELEASED = (
    "<|im_start|>user\nThis is the problem:\n{question}\n"
    "Place your code within a single Python code block ```python ```. "
    "Do not include more than one code block. <|im_end|>\n<|im_start|>assistant\n"
)
_RELEASED: dict[PromptKind, str] = {
    "math": "<|im_start|>user\n{question}\n" + BOXED_INSTRUCTION + "<|im_end|>\n<|im_start|>assistant\n",
    "function": _FUNCTION_RELEASED,
    "completion": _FUNCTION_RELEASED.replace("{question}", _COMPLETION),
    "stdio": (
        "<|im_start|>user\nThis is the problem:\n{question}\nYou should put your code in ```python ```. "
        "Use input() to read input and print() to produce output in your script. <|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
}


def user_turn(question: str, style: PromptStyle, kind: PromptKind) -> str:
    """The user's message. Raises InputError where a style has no prompt of that kind."""
    if style == "plain":
        return question
    template = _USER_TURNS.get((style, kind))
    if template is None:
        raise InputError(
            "prompt_style", style, f"has no user's turn for problems of kind {kind!r}", "use plain"
        )
    return template.replace("{question}", question, 1)


def released_prompt(question: str, kind: PromptKind, prefix: str | None = None) -> str:
    """The released code's whole prompt, chat markup included.

    It renders markup, question and, for functions, ``prefix`` (the opening of the answer) with Jinja, which
    drops one line break at the end: that after ``assistant``, or the last one of the prefix. The model has to
    write it itself. Without a prefix it is that of the released data.
    """
    if kind in ("math", "stdio"):
        prefix = ""
    elif prefix is None:
        prefix = answer_prefix(question, kind)
    return (_RELEASED[kind] + prefix).removesuffix("\n").replace("{question}", question, 1)


def answer_prefix(question: str, kind: PromptKind) -> str:
    """How the released data begin the answer to a function problem for the model."""
    return "Here is the completed code:\n```python" + (f"\n{question}\n" if kind == "completion" else "")

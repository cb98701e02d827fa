"""What a misspelt command or flag was meant to be."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile

from t3d.cli.arguments import Fields, is_positional, usage
from t3d.errors import InputError

Name = tuple[str, ...]
"""The words of a command."""
_OF_A_TYPO, _OF_A_WORD = 0.6, 0.8
"""Least likeness (difflib) of what may be meant to a word of no meaning, and to one of another meaning."""


def check_command(words: Sequence[str], commands: Collection[Name]) -> None:
    """Raise InputError for words that begin no command, with the nearest one, and for none; flags pass."""
    said = list(takewhile(lambda word: not word.startswith("-"), words))[:2]
    if not said:
        if not words:
            raise InputError("command", None, "not given", "write for example t3d demo, or see t3d --help")
        return
    known = [" ".join(name) for name in commands]
    own = [name for name in known if name.startswith(f"{said[0]} ")]
    close = _nearest(" ".join(said), own or known) or (None if own else _nearest(said[0], known))
    fix = f"did you mean t3d {close}" if close else f"use one of {', '.join(own or known)}"
    raise InputError("command", " ".join(said) if own else said[0], "not known", fix)


def check_second_word(name: Name, arguments: Sequence[str], commands: Collection[Name]) -> None:
    """Raise InputError where the word after a command is nearly the second one of a longer command."""
    longer = [other[-1] for other in commands if len(other) > len(name) and other[: len(name)] == name]
    close = _nearest(arguments[0], longer) if arguments else None
    if close is not None:
        said = " ".join((*name, arguments[0]))
        raise InputError("command", said, "not known", f"did you mean t3d {' '.join((*name, close))}")


def check_flags(name: Name, arguments: Iterable[str], commands: Mapping[Name, Fields]) -> None:
    """Raise InputError for a flag that is none of the command's, with the nearest one or who has it.

    tyro would name a required flag that is missing, and say nothing of the misspelt one.
    """
    prog, fields = f"t3d {' '.join(name)}", commands[name]
    known = _flags(fields)
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in (*known, "--help", "--"):
            owners = [" ".join(("t3d", *other)) for other in commands if flag in _flags(commands[other])]
            close = _nearest(flag, known, _OF_A_WORD if owners else _OF_A_TYPO)
            close = close or _nearest(flag, ["--help"], _OF_A_WORD)
            is_meant = close and flag not in _flags(fields, positional=True)
            fix = f"did you mean {close}" if is_meant else _without(prog, fields, owners)
            raise InputError("flag", argument.partition("=")[0], "not one of this command", fix)


def _flags(fields: Fields, *, positional: bool = False) -> list[str]:
    """Of the fields that have flags or, ``positional``, would have them."""
    names = [name.replace("_", "-") for name, item in fields.items() if is_positional(item) == positional]
    return [*(f"--{each}" for each in names), *(f"--no-{each}" for each in names)]


def _without(prog: str, fields: Fields, owners: Sequence[str]) -> str:
    """What to do about a flag that is not there: it may be of other commands, or meant as a positional."""
    if any(map(is_positional, fields.values())):
        return f"write {usage(prog, fields)}, or see {prog} --help"
    of_others = f" (a flag of {', '.join(owners)})" if owners else ""
    return f"leave it out{of_others}, or see {prog} --help"


def _nearest(word: str, known: Sequence[str], likeness: float = _OF_A_TYPO) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=likeness)), None)

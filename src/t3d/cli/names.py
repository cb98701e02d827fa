"""What a misspelt command or flag was meant to be."""

import difflib
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile

from t3d.errors import InputError

Name = tuple[str, ...]
"""The words of a command."""


def check_command(words: Sequence[str], commands: Collection[Name]) -> None:
    """Raise InputError for words that begin no command, with the nearest one; flags in their place pass."""
    said = list(takewhile(lambda word: not word.startswith("-"), words))[:2]
    if not said:
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


def check_flags(name: Name, arguments: Iterable[str], fields: Iterable[str]) -> None:
    """Raise InputError for a flag that is none of the command's ``fields``, with the nearest one.

    tyro would name a required flag that is missing, and say nothing of the misspelt one.
    """
    names = [field.replace("_", "-") for field in fields]
    known = ["--help", *(f"--{each}" for each in names), *(f"--no-{each}" for each in names)]
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in known and flag != "--":
            close = _nearest(flag, known)
            fix = f"did you mean {close}" if close else f"see t3d {' '.join(name)} --help"
            raise InputError("flag", argument.partition("=")[0], "not one of this command", fix)


def _nearest(word: str, known: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)

"""Entry point: picks the command, reads ``--config``, turns bad input into a short error."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import tyro
from rich.console import Console

from t3d.cli import lm_eval
from t3d.cli.arguments import parsed
from t3d.cli.card import Card
from t3d.cli.compare import Compare
from t3d.cli.config_file import flags_from_file, flat_fields, without_replaced
from t3d.cli.convert import Convert
from t3d.cli.data import DataConvert, DataSolutions, DataStats, DataValidate
from t3d.cli.data_parts import DataMerge, DataSplit
from t3d.cli.data_prompts import DataPrompts
from t3d.cli.data_texts import DataTexts
from t3d.cli.demo import Demo
from t3d.cli.distil import Distil
from t3d.cli.env import Env
from t3d.cli.evaluate import Eval
from t3d.cli.fetch import Fetch
from t3d.cli.generate import Generate
from t3d.cli.grade import Grade
from t3d.cli.mini import MiniOracle, MiniPretrain
from t3d.cli.names import check_command, check_flags, check_second_word
from t3d.cli.plan import Plan
from t3d.cli.processes import check_one_process
from t3d.cli.push import Push
from t3d.cli.report import Report
from t3d.cli.reproduce import Reproduce, ReproduceCell, ReproduceStudy
from t3d.cli.rollout import Rollout
from t3d.cli.serve import Serve
from t3d.cli.stopping import Terminated, kept_text, terminable
from t3d.cli.theory import Theory
from t3d.cli.train import Train
from t3d.cli.view import View
from t3d.errors import InputError

COMMANDS: dict[tuple[str, ...], Any] = {
    ("demo",): Demo,
    ("rollout",): Rollout,
    ("train",): Train,
    ("distil",): Distil,
    ("eval",): Eval,
    ("grade",): Grade,
    ("lm-eval",): lm_eval.LmEval,
    ("compare",): Compare,
    ("generate",): Generate,
    ("view",): View,
    ("report",): Report,
    ("serve",): Serve,
    ("card",): Card,
    ("push",): Push,
    ("convert",): Convert,
    ("fetch",): Fetch,
    ("data", "stats"): DataStats,
    ("data", "validate"): DataValidate,
    ("data", "convert"): DataConvert,
    ("data", "merge"): DataMerge,
    ("data", "split"): DataSplit,
    ("data", "prompts"): DataPrompts,
    ("data", "solutions"): DataSolutions,
    ("data", "texts"): DataTexts,
    ("mini", "pretrain"): MiniPretrain,
    ("mini", "oracle"): MiniOracle,
    ("theory",): Theory,
    ("reproduce", "cell"): ReproduceCell,
    ("reproduce", "study"): ReproduceStudy,
    ("reproduce",): Reproduce,
    ("plan",): Plan,
    ("env",): Env,
}


_DESCRIPTION = """Few-step diffusion language models by trajectory self-distillation.

t3d COMMAND --help tells the flags of a command; data-stats may be written data stats, and so on.
Every command also takes --config FILE: a YAML file of its flags, such as the one it writes itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, or 2 after an error that the user can correct."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"t3d {version('t3d')}")
        return 0
    name, command = (), None
    try:
        with terminable():
            name, flags = _split_name(arguments)
            if name:
                check_one_process(name)
            if name == ("lm-eval",):
                _hide_loading_bars()
                lm_eval.forward(flags)  # flags of another program, its --config included
                return 0
            command = _parsed(name, flags)
            _hide_loading_bars()
            command.run()
    except InputError as error:
        return _say(error)
    except RuntimeError as error:
        from t3d.decoding.completion import DecodingError  # its import is left to commands that run

        if not isinstance(error, DecodingError) or error.__cause__ is not None:
            raise  # a forward failed
        return _say(error)  # each request has its reason
    except BrokenPipeError:  # whoever read what it prints, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, Terminated) as stop:
        said, status = ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
        print(f"{said}{kept_text(' '.join(name), command)}", file=sys.stderr)
        return status
    return 0


def _parsed(name: tuple[str, ...], arguments: list[str]) -> Any:
    """The command with its flags. Raises InputError for a name or a flag that is not known."""
    if name not in COMMANDS:
        check_command(arguments, COMMANDS)
        return parsed(_any_command(), "t3d", arguments, {}, description=_DESCRIPTION)
    check_second_word(name, arguments, COMMANDS)
    flags = _expand_config(arguments, COMMANDS[name])
    fields = {each: flat_fields(command) for each, command in COMMANDS.items()}
    check_flags(name, flags, fields)
    return parsed(COMMANDS[name], f"t3d {' '.join(name)}", flags, fields[name])


def _say(error: Exception) -> int:
    """Print an error that the user can correct; its exit status."""
    text = f"[bold red]error:[/] {str(error).replace('[', chr(92) + '[')}"
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)
    return 2


def _hide_loading_bars() -> None:
    """Switch off the bars of the hub and transformers, which ask when they are imported: a refusal needs
    neither."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.disable_progress_bar()


def _split_name(arguments: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The command that the line starts with, and its flags; an empty name if there is none.

    A command of two words may also be written as the list of commands spells it: ``data-stats``.
    """
    for name in COMMANDS:
        for spelling in (list(name), ["-".join(name)]):
            if arguments[: len(spelling)] == spelling:
                return name, arguments[len(spelling) :]
    return (), arguments


def _expand_config(arguments: list[str], command: Any) -> list[str]:
    """Replace ``--config FILE`` by the file's flags, placed first so that the line's own win."""
    rest: list[str] = []
    flags: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, is_joined, value = argument.partition("=")
        if name == "--config":
            file = value if is_joined else next(remaining, "")
            if not file or (not is_joined and file.startswith("--")):
                raise InputError("config", file or None, "names no file", "write --config FILE.yaml")
            flags += flags_from_file(file, command)
        else:
            rest.append(argument)
    return without_replaced(flags, rest) + rest


def _any_command() -> Any:
    """All commands as subcommands, for help and for the error on an unknown name."""
    union: Any = None
    for name, command in COMMANDS.items():
        option = Annotated[command, tyro.conf.subcommand("-".join(name), prefix_name=False)]
        union = option if union is None else union | option
    return union

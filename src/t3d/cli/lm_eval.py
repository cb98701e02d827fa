"""The command ``t3d lm-eval``: lm-evaluation-harness, with its own flags."""

from collections.abc import Sequence
from dataclasses import dataclass

from t3d.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LmEval:
    """lm-evaluation-harness with the model t3d and the tasks t3d_*; takes the harness's own flags."""

    def run(self) -> None:
        """Print the harness's help."""
        forward([])


def forward(arguments: Sequence[str]) -> None:
    """Run the harness's command line. Raises InputError where the harness is not installed."""
    try:
        from t3d.evaluation.lm_eval.plugin import main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "lm_eval":
            raise
        raise InputError("lm-eval", None, "not installed", "run pip install t3d[eval]") from error
    main(arguments)

"""The command line: ``t3d demo | rollout | train | eval | generate | data ... | mini ... | env``."""

from t3d.cli.main import main

__all__ = ["main"]

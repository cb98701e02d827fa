"""The command line: ``t3d demo | rollout | train | eval | generate | mini pretrain | env``."""

from t3d.cli.main import main

__all__ = ["main"]

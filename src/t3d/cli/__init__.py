"""The command line: ``t3d demo | rollout | train | eval | grade | compare | reproduce | generate | data``."""

from t3d.cli.main import main

__all__ = ["main"]

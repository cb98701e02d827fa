"""A ``t3d`` for processes that need one of its small modules only: without the models, they start at once."""

from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "src" / "t3d"

BARE_T3D = f"""
import sys, types
sys.modules["t3d"] = types.ModuleType("t3d")
sys.modules["t3d"].__path__ = [{str(_FOLDER)!r}]
"""
"""First lines of a script: ``import t3d`` then runs nothing, and its modules are imported as always."""

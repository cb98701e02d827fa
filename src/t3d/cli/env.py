"""The command ``t3d env``: what a bug report needs."""

import json
import sys
from dataclasses import dataclass

from t3d.work.versions import versions


@dataclass(frozen=True, kw_only=True)
class Env:
    """Print the versions and devices that a bug report needs."""

    def run(self) -> None:
        """Run the command."""
        import torch

        cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        facts = {**versions(), "platform": sys.platform, "cpu_threads": torch.get_num_threads(), "cuda": cuda}
        print(json.dumps(facts, indent=2))

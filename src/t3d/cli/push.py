"""The command ``t3d push``: a student onto the hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Push:
    """Upload a student with its card to the hub; HF_TOKEN or hf auth login says who."""

    student: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDENT")]
    """Folder of a checkpoint, with the card that t3d card wrote."""
    repo: str
    """Where to: ORGANISATION/NAME, made unless it is there."""
    private: bool = False
    """Make it a private one; one that is there and public is refused."""

    def run(self) -> None:
        """Run the command."""
        from t3d.models.push import push

        def tell(names: Sequence[str]) -> None:
            print(f"uploading {len(names)} files to {self.repo}: {', '.join(names)}", flush=True)

        print(push(self.student, self.repo, private=self.private, tell=tell))

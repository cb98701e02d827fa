"""The command ``t3d rollout``: a teacher decodes prompts, and its trajectories are kept."""

from dataclasses import dataclass, field

from t3d.cli.config_file import write_config
from t3d.cli.options import Flat, ModelChoice, ProblemChoice
from t3d.decoding.params import BATCH_SIZE, DecodeParams
from t3d.errors import require_positive
from t3d.work.kept import CHUNK_SIZE


@dataclass(frozen=True, kw_only=True)
class Rollout(ModelChoice, ProblemChoice):
    """Let a teacher decode prompts and keep its trajectories."""

    output: str
    """Parquet file to write; its settings go to OUTPUT.yaml."""
    split: str = "train"
    batch_size: int = BATCH_SIZE
    """Requests decoded together."""
    chunk_size: int = CHUNK_SIZE
    """Prompts decoded between two saves; a killed rollout continues after the last."""
    decode: Flat = field(default_factory=DecodeParams)

    def run(self) -> None:
        """Run the command."""
        from t3d.decoding.rollout import roll_out_to_file

        require_positive(self, "batch_size", "chunk_size")
        posed = self.resolve(self.split)
        trajectories = roll_out_to_file(
            self.load(),
            posed.problems,
            self.decode,
            self.output,
            style=posed.style,
            kind=posed.kind,
            batch_size=self.batch_size,
            chunk_size=self.chunk_size,
        )
        write_config(self, f"{self.output}.yaml")
        print(f"{len(trajectories)} trajectories in {self.output}")

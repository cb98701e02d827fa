"""The command ``t3d card``: the model card of a student."""

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Card:
    """Write a student's model card, README.md beside its weights, of what its run and evaluations left."""

    run_or_student: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_STUDENT")]
    """Output of t3d train, or the folder of a student."""
    evaluations: tuple[str, ...] = ()
    """Outputs of t3d eval of this student. Default: those in the run's folder that are of its weights."""
    base: str | None = None
    """The model that was trained: hub id or folder. Default: as the run's config.yaml says."""
    licence: str | None = None
    """Its licence as the hub spells it, such as apache-2.0. Default: as the base's own card says."""
    data: str | None = None
    """What it was trained on, in a sentence. Default: the settings beside the rollouts."""

    def run(self) -> None:
        """Run the command."""
        from t3d.report.card_facts import CARD, read_facts
        from t3d.report.model_card import card_text, is_own_card
        from t3d.work.files import check_output_file, write_text

        folder, facts = read_facts(
            self.run_or_student, self.evaluations, base=self.base, licence=self.licence, data=self.data
        )
        check_output_file(folder / CARD, is_own=is_own_card)
        write_text(folder / CARD, card_text(facts))
        num_rows = sum(len(record["results"]) for record in facts.evaluations)
        print(f"{folder / CARD}: {num_rows} results, licence {facts.licence or 'not recorded'}")

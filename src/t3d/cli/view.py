"""The command ``t3d view``: responses as a page that plays how they were decoded."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from t3d.errors import InputError, require_positive
from t3d.report.viewer.name import BEGINNING, check_given, page_of
from t3d.work.files import check_output_file, write_text
from t3d.work.own import text_from


@dataclass(frozen=True, kw_only=True)
class View:
    """Write one HTML file that plays responses step by step; it needs no network."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Parquet file of t3d rollout, evaluation of t3d eval or its samples.jsonl, file of t3d grade or of t3d
    generate --record, or the folder of a run that holds some, such as that of t3d demo."""
    compare: str | None = None
    """Another of these to stand beside it: responses of the same id, teacher and student for example."""
    output: str | None = None
    """File to write. Default: SOURCE/view.html of a folder, SOURCE.html of a file."""
    limit: int = 5000
    """At most so many responses of each file, and of each setting of an evaluation."""
    model: str | None = None
    """Checkpoint whose tokenizer reads the token ids: folder, hub id or mini. Default: what the records name,
    if it is a folder or a bundled model; without a tokenizer the ids are shown."""
    open: bool = False
    """Open the page in the browser."""

    def run(self) -> None:
        """Run the command."""
        require_positive(self, "limit")
        output = page_of(self.source) if self.output is None else Path(self.output)
        if output.suffix not in (".html", ".htm"):
            raise InputError("output", self.output, "not the name of a page", "end it in .html")
        check_output_file(output, self.source, self.compare, is_own=text_from(BEGINNING))
        check_given(self.source, "source")
        if self.compare is not None:
            check_given(self.compare, "compare")
        from t3d.report.viewer.sources import limited, read_sources

        left = read_sources(self.source)
        right = [] if self.compare is None else read_sources(self.compare, "compare")
        from t3d.report.viewer.page import page, page_data
        from t3d.report.viewer.token_texts import Tokenizers

        sources, tokenizers = limited([*left, *right], self.limit), Tokenizers(model=self.model)
        title = self.source if self.compare is None else f"{self.source} | {self.compare}"
        beside = len(left) + _same_setting(left[0].name, [one.name for one in right]) if right else None
        data = page_data(sources, tokenizers, right=beside, title=title)
        write_text(output, page(data))
        for note in data["notes"]:
            print(note)
        print(f"{sum(len(one.shown) for one in sources)} responses in {output}")
        if self.open:
            webbrowser.open(output.resolve().as_uri())


def _same_setting(name: str, others: list[str]) -> int:
    """The number of the source that has the setting of ``name``, else 0."""
    setting = name.partition(": ")[2]
    return next((index for index, other in enumerate(others) if other.partition(": ")[2] == setting), 0)

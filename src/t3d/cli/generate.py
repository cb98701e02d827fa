"""The command ``t3d generate``: answers on the terminal."""

from dataclasses import dataclass, field

from rich.console import Console

from t3d.cli.decode_flags import DecodeFlags, Flat
from t3d.cli.options import DraftedModelChoice, PromptChoice, check_kind_is_used, check_one_source
from t3d.decoding.params import BATCH_SIZE
from t3d.errors import InputError, require_positive
from t3d.problems.problem import Problem
from t3d.problems.prompt_file import read_prompt_file
from t3d.work.files import check_output_file, write_text
from t3d.work.own import text_from


@dataclass(frozen=True, kw_only=True)
class Generate(DraftedModelChoice, PromptChoice):
    """Answer prompts on the terminal."""

    model: str = "mini"
    """Local folder or hub id of a checkpoint: SDAR's, a student, or one of t3d convert. 'mini' and
    'mini-small' are bundled teachers."""
    prompt: str | None = None
    """One question."""
    prompts: str | None = None
    """JSONL or Parquet file with a "question", or "messages", per line."""
    limit: int | None = None
    """At most this many prompts of the file."""
    batch_size: int = BATCH_SIZE
    """Requests decoded together."""
    show_steps: bool = False
    """Colour each token by the denoising step that committed it, and print the step under it; of
    self_speculative also whether it was an accepted draft, a correction, a bonus, or had no draft (with
    --draft-groups auto: an accepted draft, or drawn)."""
    record: str | None = None
    """JSONL file to write for t3d view: steps, log-probabilities and drafts of each response."""
    decode: Flat = field(default_factory=DecodeFlags)

    def run(self) -> None:
        """Run the command."""
        problems = self._problems()
        self.check_model()
        from t3d.decoding.completion import check_requests
        from t3d.decoding.llm import LLM
        from t3d.decoding.posed_requests import decode_requests
        from t3d.evaluation.samples import jsonl
        from t3d.report.console import coloured_steps, draft_legend
        from t3d.report.viewer.recorded import BEGINNING, recorded

        if self.record is not None:
            check_output_file(self.record, self.prompts, is_own=text_from(BEGINNING))
        params = self.decode.resolve(self.own_settings()).params()
        self.check_drafter_is_used(drafts=params.remasking == "self_speculative")
        loaded = self.load()
        style, kind = self.prompt_style or "plain", self.prompt_kind or "math"
        requests = decode_requests(loaded.tokenizer, problems, style=style, kind=kind)
        check_requests(requests, params, loaded.model.config.max_position_embeddings)
        completions = LLM(loaded, max_batch_size=self.batch_size).decode(requests, params)
        if self.record is not None:
            origin = {"model": loaded.source, "tokenizer_hash": loaded.tokenizer_hash}
            pairs = zip(problems, completions, strict=True)
            write_text(self.record, jsonl(recorded(*pair, **origin) for pair in pairs))
        console = Console(highlight=False)
        for completion in completions:
            if self.show_steps:
                text = coloured_steps(loaded.tokenizer, completion, console.width)
                console.print(text, soft_wrap=True)
                steps, forwards = completion.num_denoising_steps, completion.num_forwards
                console.print(
                    f"{completion.visible_length} tokens, {steps} steps, {forwards} forwards", style="dim"
                )
                if legend := draft_legend(completion):
                    console.print(legend, style="dim", soft_wrap=True)
            else:
                print(completion.text)

    def _problems(self) -> list[Problem]:
        check_one_source("prompt", self.prompt, self.prompts)
        require_positive(self, "limit", "batch_size")
        check_kind_is_used(self.prompt_kind, self.prompt_style or "plain")
        if self.prompt is not None and self.limit is not None:
            raise InputError("limit", self.limit, "ignored: there is one prompt", "leave it out")
        if self.prompts is not None:
            return read_prompt_file(self.prompts)[: self.limit]
        if not str(self.prompt).strip():
            raise InputError("prompt", self.prompt, "empty", "give a question")
        return [Problem(id="prompt", question=str(self.prompt))]

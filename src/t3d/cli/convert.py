"""The command ``t3d convert``: an autoregressive checkpoint adopted as a block-diffusion model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from t3d.model_choice import check_source, checkpoint_of
from t3d.work.progress import Progress

if TYPE_CHECKING:
    from t3d.models.convert import Conversion


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Adopt an autoregressive checkpoint (Llama, Qwen2, Qwen3, Qwen3-MoE) as a block-diffusion model."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Local folder or hub id of the checkpoint."""
    output: str
    """Folder to write; one that is there is taken if the same command wrote it."""
    gguf_file: str | None = None
    """Name of a GGUF file in the source: its weights, dequantized to float32 (extra gguf)."""
    mask_token: str | None = None
    """Token to take as the mask, or to add. Default: the tokenizer's own, else a special token that nothing
    uses, else <|MASK|> is added."""
    block_size: int = 4
    """Tokens per diffusion block."""

    def run(self) -> None:
        """Run the command."""
        if not Path(self.source).exists():
            check_source(checkpoint_of(self.source), "source")
        from t3d.models.convert import STAGES, ConvertConfig, convert

        config = ConvertConfig(
            block_size=self.block_size, mask_token=self.mask_token, gguf_file=self.gguf_file
        )
        with Progress("convert", STAGES) as progress:
            made = convert(self.source, self.output, config, on_stage=progress.advance)
        print("\n".join(summary_lines(self.source, self.output, made)))


def summary_lines(source: str, output: str, made: "Conversion") -> Sequence[str]:
    """What was chosen, and what to do next."""
    grown = (
        "as they were" if made.rows == made.rows_before else f"{made.rows_before} before, new ones their mean"
    )
    stops = ", ".join(map(str, made.stop_token_ids))
    lines = [
        f"{source} as a block-diffusion model: {output}",
        f"  architecture  {made.architecture} (model_type {made.model_type})",
        f"  weights       {made.num_tensors} tensors, {made.dtype}, compared with the source's and equal",
        f"  embedding     {made.rows} rows, {grown}",
        f"  block size    {made.block_size}",
        f"  mask token    {made.mask_token} (id {made.mask_token_id}): {made.mask_reason}",
        f"  pad token     {made.pad_token} (id {made.pad_token_id}): {made.pad_reason}",
        f"  stop tokens   ids {stops}",
    ]
    if not made.has_chat_template:
        lines += ["  chat template none: put one into chat_template.jinja before prompts can be posed"]
    return [
        *lines,
        "It has not learnt to fill masks yet. Next, on problems with solutions:",
        f"  t3d data solutions --model {output} --prompts train.jsonl --block-size {made.block_size} \\",
        "      --output solutions.parquet",
        f"  t3d train --preset sft --model {output} --trajectories solutions.parquet \\",
        f"      --block-size {made.block_size} --output run",
    ]

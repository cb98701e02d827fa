"""The command ``t3d convert``: an autoregressive checkpoint adopted as a block-diffusion model."""

from dataclasses import dataclass

import tyro

from t3d.work.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Adopt an autoregressive checkpoint (Llama, Qwen2, Qwen3, Qwen3-MoE) as a block-diffusion model."""

    source: tyro.conf.Positional[str]
    """Local folder or hub id of the checkpoint."""
    output: str
    """Folder to write, which must not be there."""
    gguf_file: str | None = None
    """Name of a GGUF file in the source: its weights, dequantized to float32 (extra gguf)."""
    mask_token: str | None = None
    """Token to take as the mask, or to add. Default: the tokenizer's own, else a special token that nothing
    uses, else <|MASK|> is added."""
    block_size: int = 4
    """Tokens per diffusion block."""

    def run(self) -> None:
        """Run the command."""
        from t3d.models.convert import STAGES, ConvertConfig, convert, summary_lines

        config = ConvertConfig(
            block_size=self.block_size, mask_token=self.mask_token, gguf_file=self.gguf_file
        )
        with Progress("convert", STAGES) as progress:
            made = convert(self.source, self.output, config, on_stage=progress.advance)
        print("\n".join(summary_lines(self.source, self.output, made)))

"""Numbers computed from graded completions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from t3d.decoding.completion import Completion


@dataclass(frozen=True, kw_only=True)
class CostCounts:
    """What decoding took, as sums that add up over chunks."""

    num_completions: int
    committed_tokens: int
    visible_tokens: int
    denoising_steps: int
    forwards: int
    stopped: int
    seconds: float

    def __add__(self, other: "CostCounts") -> "CostCounts":
        return CostCounts(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    def cost(self) -> dict[str, float]:
        """What decoding took.

        ``tokens_per_step``: committed tokens per denoising step (TokPS). ``tokens_per_forward``: committed
        tokens per forward of a request, separate commit forwards counted (TPF). Committed tokens include the
        filler of a terminal block; ``tokens_per_second`` and ``mean_length`` count visible tokens only.
        """
        return {
            "tokens_per_step": self.committed_tokens / self.denoising_steps,
            "tokens_per_forward": self.committed_tokens / self.forwards,
            "tokens_per_second": self.visible_tokens / self.seconds,
            "seconds": self.seconds,
            "mean_denoising_steps": self.denoising_steps / self.num_completions,
            "mean_length": self.visible_tokens / self.num_completions,
            "stopped": self.stopped / self.num_completions,
        }


def count_cost(completions: Sequence[Completion], seconds: float) -> CostCounts:
    """The counts of these completions."""
    return CostCounts(
        num_completions=len(completions),
        committed_tokens=sum(len(completion.response_ids) for completion in completions),
        visible_tokens=sum(completion.visible_length for completion in completions),
        denoising_steps=sum(completion.num_denoising_steps for completion in completions),
        forwards=sum(completion.num_forwards for completion in completions),
        stopped=sum(completion.finish_reason == "stop" for completion in completions),
        seconds=seconds,
    )


def token_agreement(completions: Sequence[Completion], targets: Sequence[Completion]) -> float:
    """Share of the targets' visible tokens that the completions have at the same response position."""
    agreeing = total = 0
    for completion, target in zip(completions, targets, strict=True):
        pairs = zip(completion.response_ids, target.visible_ids, strict=False)
        agreeing += sum(ours == theirs for ours, theirs in pairs)
        total += target.visible_length
    return agreeing / total

"""Numbers computed from graded completions."""

import math
from collections.abc import Sequence

from t3d.decoding.completion import Completion


def wilson_interval(num_correct: float, num_total: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, 1927), as fractions; [0, 1] for no samples."""
    if num_total == 0:
        return 0.0, 1.0
    share, z2 = num_correct / num_total, z * z / num_total
    centre = (share + z2 / 2) / (1 + z2)
    half = z / (1 + z2) * math.sqrt(share * (1 - share) / num_total + z2 / (4 * num_total))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(
    accuracies: Sequence[float], counts: Sequence[int], z: float = 1.959964
) -> tuple[float, float]:
    """95 % interval of the unweighted mean of independent proportions, as fractions.

    Wilson's for one proportion, normal for several.
    """
    if len(accuracies) == 1:
        return wilson_interval(round(accuracies[0] * counts[0]), counts[0], z)
    mean = sum(accuracies) / len(accuracies)
    variance = sum(a * (1 - a) / n for a, n in zip(accuracies, counts, strict=True)) / len(accuracies) ** 2
    half = z * math.sqrt(variance)
    return max(0.0, mean - half), min(1.0, mean + half)


def decoding_cost(completions: Sequence[Completion], seconds: float) -> dict[str, float]:
    """What decoding took.

    ``tokens_per_step``: committed tokens per denoising step (TokPS). ``tokens_per_forward``:
    committed tokens per forward, commit forwards counted, prefill not (TPF). Committed tokens
    include the filler of a terminal block; ``tokens_per_second`` and ``mean_length`` count visible
    tokens only.
    """
    committed = sum(len(completion.response_ids) for completion in completions)
    visible = sum(completion.visible_length for completion in completions)
    steps = sum(completion.num_denoising_steps for completion in completions)
    return {
        "tokens_per_step": committed / steps,
        "tokens_per_forward": committed / sum(completion.num_forwards for completion in completions),
        "tokens_per_second": visible / seconds,
        "seconds": seconds,
        "mean_denoising_steps": steps / len(completions),
        "mean_length": visible / len(completions),
        "stopped": sum(completion.finish_reason == "stop" for completion in completions) / len(completions),
    }


def token_agreement(completions: Sequence[Completion], targets: Sequence[Completion]) -> float:
    """Share of the targets' visible tokens that the completions have at the same response position."""
    agreeing = total = 0
    for completion, target in zip(completions, targets, strict=True):
        pairs = zip(completion.response_ids, target.visible_ids, strict=False)
        agreeing += sum(ours == theirs for ours, theirs in pairs)
        total += target.visible_length
    return agreeing / total

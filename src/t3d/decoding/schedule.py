"""How many tokens a block commits at each denoising step."""

from t3d.errors import InputError


def check_block_schedule(block_size: int, steps_per_block: int) -> None:
    """Raise :class:`InputError` unless ``1 <= steps_per_block <= block_size``."""
    if block_size < 1:
        raise InputError("block_size", block_size, "not positive", "use a positive size, for example 4")
    if steps_per_block < 1:
        raise InputError("steps_per_block", steps_per_block, "not positive", f"use 1 to {block_size}")
    if steps_per_block > block_size:
        raise InputError(
            "steps_per_block",
            steps_per_block,
            f"exceeds block_size={block_size}, and each step commits at least one token",
            f"use at most steps_per_block={block_size}",
        )


def num_transfer_tokens(block_size: int, steps_per_block: int) -> tuple[int, ...]:
    """Tokens planned for commit at each step of a block; the remainder goes to the first steps.

    A block that starts with prompt tokens has fewer masks: each step then commits
    ``min(planned, masks left)`` and the block ends as soon as no mask is left.
    """
    check_block_schedule(block_size, steps_per_block)
    quotient, remainder = divmod(block_size, steps_per_block)
    return tuple(quotient + (step < remainder) for step in range(steps_per_block))

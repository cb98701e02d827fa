"""The masks of docs/concepts.md, drawn by the functions that make them.

python benchmarks/concept_pictures.py [--output docs/pictures/masks.png]
"""

import argparse
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from t3d.attention.masks import block_causal_mask, training_mask
from t3d.work.files import atomic_file
from t3d.work.own import SOFTWARE

BLOCK_SIZE, LENGTH = 4, 12


def decoding_mask() -> Tensor:
    """Of all tokens at once, bool [Q, N]."""
    place = torch.arange(LENGTH)[None]
    return block_causal_mask(place, place, torch.ones_like(place).bool(), BLOCK_SIZE)[0]


def sequence_mask() -> Tensor:
    """Of a training sequence whose prompt is the first block, bool [T, T]."""
    clean = torch.arange(LENGTH)
    place = torch.cat([clean, clean[BLOCK_SIZE:]])[None]
    is_noisy = torch.arange(place.shape[1])[None] >= LENGTH
    return training_mask(torch.zeros_like(place), place // BLOCK_SIZE, is_noisy)[0]


def draw(axes: Axes, mask: Tensor, title: str) -> None:
    """Who reads (rows) whom (columns); lines between blocks."""
    size = len(mask)
    axes.imshow(mask.numpy(), cmap="Blues", vmin=0, vmax=1.6)
    axes.set_title(title, fontsize=10)
    places = range(0, size, BLOCK_SIZE)
    clean = [f"clean {place // BLOCK_SIZE}" for place in places if place < LENGTH]
    noisy = [f"noisy {1 + (place - LENGTH) // BLOCK_SIZE}" for place in places if place >= LENGTH]
    names = clean + noisy
    for place in (*places, size):
        axes.axhline(place - 0.5, color="#444444", linewidth=0.8)
        axes.axvline(place - 0.5, color="#444444", linewidth=0.8)
    middle = [place + (BLOCK_SIZE - 1) / 2 for place in places]
    axes.set_xticks(middle, names, fontsize=8)
    axes.set_yticks(middle, names, fontsize=8)
    axes.tick_params(length=0)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/pictures/masks.png"))
    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw(left, decoding_mask(), "decoding")
    draw(right, sequence_mask(), "training")
    with atomic_file(parser.parse_args().output) as partial:
        figure.savefig(partial, format="png", dpi=100, metadata={"Software": SOFTWARE})


if __name__ == "__main__":
    main()

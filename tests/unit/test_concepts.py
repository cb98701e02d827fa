"""docs/concepts.md says of masks and states what the code does, and shows pictures that are there."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location(
        "concept_pictures", ROOT / "benchmarks" / "concept_pictures.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_state_after_two_steps_is_the_one_that_is_told(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(code, {})
    assert f"# {capsys.readouterr().out.strip()}: 0 is the mask" in code


def by_block(mask: torch.Tensor, size: int) -> list[list[int]]:
    """0 or 1 for each pair of blocks, all of whose pairs of tokens are alike."""
    parts = mask.unfold(0, size, size).unfold(1, size, size).flatten(2)
    assert torch.equal(parts.all(-1), parts.any(-1))
    return parts.all(-1).int().tolist()


def test_the_masks_that_are_drawn_are_those_that_are_described(pictures):
    size = pictures.BLOCK_SIZE
    assert f"blocks of {size}." in PAGE
    assert by_block(pictures.decoding_mask(), size) == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert by_block(pictures.sequence_mask(), size) == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_the_picture_of_the_masks_is_made_by_its_command(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["concept_pictures.py", "--output", str(tmp_path / "masks.png")])
    pictures.main()
    assert (tmp_path / "masks.png").read_bytes().startswith(b"\x89PNG")
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE)
    assert len(shown) == 3 and all((ROOT / "docs" / name).is_file() for name in shown)

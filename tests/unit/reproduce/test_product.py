"""What is kept counts as made only if the present configuration made it; the rest is made again."""

import time

import pytest

from t3d.reproduce.product import Product
from t3d.reproduce.resolve import Resolved


def product(folder, **config) -> Product:
    path = folder / "abc"
    return Product(
        path=path,
        resolved=Resolved(full={"seed": 0, **config}, hash="abc"),
        complete=path / "done",
        unfinished=folder / "checkpoints",
    )


def make(item: Product) -> None:
    item.begin()
    item.path.mkdir(parents=True, exist_ok=True)
    item.complete.write_text("made")
    item.end(time.perf_counter() - 2)


def test_what_was_made_is_found_with_its_seconds(tmp_path):
    item = product(tmp_path, refresh_every=10)
    assert not item.is_made and item.seconds == 0.0
    make(item)
    assert item.is_made and item.seconds == 2.0
    assert product(tmp_path, refresh_every=10, newer=1).is_made, (
        "what only one side knows is left to the hash"
    )


def test_what_was_made_under_another_default_is_removed_with_its_checkpoints(tmp_path):
    make(product(tmp_path, refresh_every=10))
    (tmp_path / "checkpoints").mkdir()
    now = product(tmp_path, refresh_every=5)
    assert not now.is_made
    now.begin()
    assert not now.path.exists() and not now.unfinished.exists() and now.seconds == 0.0
    make(now)
    assert now.is_made and not product(tmp_path, refresh_every=10).is_made


def test_a_cut_training_keeps_what_it_goes_on_from(tmp_path):
    item = product(tmp_path)
    item.begin()
    item.unfinished.mkdir()
    item.begin()
    assert item.unfinished.is_dir()


@pytest.mark.parametrize("text", [None, "{"])
def test_what_nothing_tells_the_configuration_of_is_made_again(text, tmp_path):
    item = product(tmp_path)
    make(item)
    config = tmp_path / "abc.config.json"
    config.unlink() if text is None else config.write_text(text)
    assert not item.is_made
    item.begin()
    assert not item.path.exists()


def test_a_file_is_removed_like_a_folder(tmp_path):
    path = tmp_path / "abc.parquet"
    path.write_text("of another configuration")
    unfinished = tmp_path / "abc.parquet.chunks"
    item = Product(path=path, resolved=Resolved(full={}, hash="abc"), complete=path, unfinished=unfinished)
    item.begin()
    assert not path.exists()

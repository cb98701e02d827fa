"""Counter-based random numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t3d.counter_rng import counter_hash, counter_uniform, stable_key

INT64 = st.integers(-(2**63), 2**63 - 1)
WORD = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def splitmix64_finaliser(value: int) -> int:
    """The published finaliser on unsigned Python integers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & WORD
    return value ^ (value >> 31)


def inverse_finaliser(value: int) -> int:
    """Undo :func:`splitmix64_finaliser`."""

    def unshift(word: int, bits: int) -> int:
        result = word
        for _ in range(64 // bits + 1):
            result = word ^ (result >> bits)
        return result

    value = (unshift(value, 31) * pow(0x94D049BB133111EB, -1, 2**64)) & WORD
    value = (unshift(value, 27) * pow(0xBF58476D1CE4E5B9, -1, 2**64)) & WORD
    return unshift(value, 30)


def hash_by_python_integers(counters: list[int]) -> int:
    state = 0
    for counter in counters:
        inner = splitmix64_finaliser((counter + GOLDEN) & WORD)
        state = splitmix64_finaliser(((state ^ inner) + GOLDEN) & WORD)
    return state - 2**64 if state >= 2**63 else state


def counter_that_hashes_to(word: int) -> int:
    """The one counter c with counter_hash(c) == word (every step of the hash is a bijection)."""
    inner = (inverse_finaliser(word) - GOLDEN) & WORD
    counter = (inverse_finaliser(inner) - GOLDEN) & WORD
    return counter - 2**64 if counter >= 2**63 else counter


def test_the_finaliser_is_the_published_splitmix64():
    """Splitmix64 seeded with 0 gives 0xE220A8397B1DCDAF first (the reference implementation's output)."""
    assert splitmix64_finaliser(GOLDEN) == 0xE220A8397B1DCDAF


@given(st.lists(INT64, min_size=1, max_size=5))
def test_the_hash_equals_its_definition_in_python_integers(counters):
    assert counter_hash(*counters).item() == hash_by_python_integers(counters)


def test_known_values_never_change():
    """Recorded runs can be replayed only while these stay."""
    assert counter_hash(0).item() == -6411193824288604561
    assert counter_uniform(0, 1, 2, 3).item() == 0.15112931595907064


@given(st.lists(INT64, min_size=1, max_size=5))
def test_equal_counters_give_equal_numbers(counters):
    as_tensors = [torch.tensor([counter]) for counter in counters]
    assert counter_uniform(*counters).item() == counter_uniform(*as_tensors).item()


@given(st.integers(1, 5), st.integers(1, 5), INT64)
def test_a_number_does_not_depend_on_the_shape_it_is_drawn_in(rows, columns, seed):
    row, column = torch.arange(rows), torch.arange(columns)
    table = counter_uniform(seed, row[:, None], column)
    assert table.shape == (rows, columns) and table.dtype == torch.float64
    one_by_one = [[counter_uniform(seed, r, c).item() for c in range(columns)] for r in range(rows)]
    assert table.tolist() == one_by_one
    full = counter_uniform(torch.full((rows, columns), seed), row[:, None].expand(rows, columns), column)
    assert torch.equal(full, table)


@given(INT64, INT64)
def test_the_order_of_counters_matters(first, second):
    if first != second:
        assert counter_hash(first, second).item() != counter_hash(second, first).item()


@given(st.lists(INT64, min_size=1, max_size=4))
def test_uniforms_lie_in_the_unit_interval(counters):
    assert 0 < counter_uniform(*counters).item() < 1


@pytest.mark.parametrize("word", [0, 1, WORD >> 1, WORD])
def test_the_ends_of_the_interval_are_never_reached(word):
    """Uniforms lie in the open interval (0, 1) for the smallest and the largest hash too.

    Token ids are drawn as floor(u * (V - 1)): u = 1 would give an id outside the vocabulary.
    """
    counter = counter_that_hashes_to(word)
    assert counter_hash(counter).item() & WORD == word
    assert 0 < counter_uniform(counter).item() < 1


def test_numbers_are_roughly_uniform():
    """100 bins of 40,000 draws: chi-square with 99 degrees of freedom lies within 5 standard deviations."""
    draws = counter_uniform(7, torch.arange(40_000))
    counts = torch.histc(draws, bins=100, min=0, max=1)
    chi_square = float(((counts - 400) ** 2 / 400).sum())
    assert abs(chi_square - 99) < 5 * math.sqrt(2 * 99)
    assert draws.mean().item() == pytest.approx(0.5, abs=5 / math.sqrt(12 * 40_000))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("shift", [1, 2, 64, 1 << 40])
def test_neighbouring_counters_are_uncorrelated(place, shift):
    """Changing any one of (seed, key, position, stream) by a little gives unrelated numbers."""
    size = 20_000
    counters = [torch.full((size,), 3) for _ in range(4)]
    counters[(place + 1) % 4] = torch.arange(size)
    here = counter_uniform(*counters)
    counters[place] = counters[place] + shift
    there = counter_uniform(*counters)
    correlation = torch.corrcoef(torch.stack([here, there]))[0, 1].item()
    assert abs(correlation) < 5 / math.sqrt(size)


def test_successive_counters_are_uncorrelated():
    draws = counter_uniform(0, torch.arange(40_001))
    correlation = torch.corrcoef(torch.stack([draws[1:], draws[:-1]]))[0, 1].item()
    assert abs(correlation) < 5 / math.sqrt(40_000)


def test_the_global_generator_is_neither_used_nor_moved():
    before = torch.random.get_rng_state()
    first = counter_uniform(1, torch.arange(4))
    torch.manual_seed(99)
    assert torch.equal(counter_uniform(1, torch.arange(4)), first)
    torch.random.set_rng_state(before)
    counter_uniform(1, torch.arange(4))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_stable_keys_never_change():
    """Equal on every machine and in every process, unlike the salted ``hash``."""
    assert stable_key("") == -5426141060434712860
    assert stable_key("gsm8k/17") == -3463740230176685509
    assert stable_key("é") == 3394012004367669963


@given(st.text(), st.text())
def test_different_texts_have_different_keys(first, second):
    assert (stable_key(first) == stable_key(second)) == (first == second)
    assert -(2**63) <= stable_key(first) < 2**63

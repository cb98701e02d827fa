"""Attention masks against the written rules, one triple loop each."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from t3d.attention.masks import block_causal_mask, training_mask


@st.composite
def block_causal_cases(draw):
    block_size = draw(st.sampled_from([1, 2, 3, 4, 8]))
    rows = draw(st.integers(1, 3))
    num_queries, num_keys = draw(st.integers(1, 9)), draw(st.integers(1, 12))

    def table(count, values):
        row = st.lists(values, min_size=count, max_size=count)
        return draw(st.lists(row, min_size=rows, max_size=rows))

    queries, keys = table(num_queries, st.integers(0, 24)), table(num_keys, st.integers(0, 24))
    return block_size, queries, keys, table(num_keys, st.booleans())


@given(block_causal_cases())
def test_decoding_mask_equals_the_rule(case):
    """A query sees every real key whose block is its own or an earlier one, and nothing else."""
    block_size, queries, keys, real = case
    mask = block_causal_mask(torch.tensor(queries), torch.tensor(keys), torch.tensor(real), block_size)
    for row, row_queries in enumerate(queries):
        for q, query in enumerate(row_queries):
            for k, key in enumerate(keys[row]):
                expected = real[row][k] and key // block_size <= query // block_size
                assert mask[row, q, k].item() == expected


def test_decoding_mask_by_hand():
    """Five tokens, block size 2: blocks {0, 1}, {2, 3}, {4}."""
    position = torch.arange(5)[None]
    mask = block_causal_mask(position, position, torch.ones(1, 5, dtype=torch.bool), 2)
    assert mask[0].int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_block_size_one_is_the_causal_mask():
    position = torch.arange(6)[None]
    mask = block_causal_mask(position, position, torch.ones(1, 6, dtype=torch.bool), 1)
    assert torch.equal(mask[0], torch.ones(6, 6).tril().bool())


@st.composite
def training_cases(draw):
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 14))

    def table(values):
        row = st.lists(values, min_size=length, max_size=length)
        return draw(st.lists(row, min_size=rows, max_size=rows))

    return table(st.integers(-1, 2)), table(st.integers(0, 4)), table(st.booleans())


def may_attend(document, block, noisy, query, key):
    """The rule of packed ``[clean | noisy]`` documents in words."""
    if document[query] < 0:
        return query == key
    if document[key] != document[query]:
        return False
    if noisy[query]:
        return block[key] == block[query] if noisy[key] else block[key] < block[query]
    return not noisy[key] and block[key] <= block[query]


@given(training_cases())
def test_training_mask_equals_the_rule(case):
    documents, blocks, noisy = case
    mask = training_mask(torch.tensor(documents), torch.tensor(blocks), torch.tensor(noisy))
    for row, block in enumerate(blocks):
        for query in range(len(block)):
            for key in range(len(block)):
                expected = may_attend(documents[row], block, noisy[row], query, key)
                assert mask[row, query, key].item() == expected


@given(training_cases())
def test_no_row_of_the_training_mask_is_empty(case):
    """An empty softmax row would be not-a-number and spoil the batch."""
    mask = training_mask(*(torch.tensor(part) for part in case))
    assert mask.any(-1).all()
    assert mask.diagonal(dim1=-2, dim2=-1).all()


def test_training_mask_by_hand():
    """Document 0: clean blocks 0 0 1, noisy blocks 1 1 2; one padding token; document 1: a noisy token."""
    document = torch.tensor([[0, 0, 0, 0, 0, 0, -1, 1]])
    block = torch.tensor([[0, 0, 1, 1, 1, 2, 2, 2]])
    noisy = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]]).bool()
    assert training_mask(document, block, noisy)[0].int().tolist() == [
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
    ]

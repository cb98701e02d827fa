"""What crosses between a program and its tests comes out as it went in, and nothing else comes out at all."""

import collections
import datetime
import math
import struct
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.sandbox.codec import MAX_DEPTH, Decoder, Encoder
from t3d.sandbox.values import (
    TYPES,
    CodecError,
    TooLargeError,
    contents,
    has_changed,
    refill,
)

LIMIT = 2**20


def no_foreign(*_):
    raise CodecError("foreign")


def encoded(value, known=()):
    return Encoder(no_foreign, max_bytes=LIMIT, known=known).encode(value)


def decoded(data, known=()):
    return Decoder(data, no_foreign, known=known).decode()


HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**300), max_value=2**300)
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())  # surrogates included
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.timedeltas()
    | st.sampled_from([Ellipsis, NotImplemented, *TYPES.values()])
    | st.builds(range, st.integers(-99, 99), st.integers(-99, 99), st.integers(1, 9)),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=8,
)
VALUES = st.recursive(
    HASHABLE | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(HASHABLE, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4).map(collections.OrderedDict)
        | st.dictionaries(HASHABLE, st.integers(), max_size=4).map(collections.Counter)
        | st.dictionaries(HASHABLE, inner, max_size=4).map(lambda d: collections.defaultdict(list, d))
        | st.lists(inner, max_size=4).map(lambda items: collections.deque(items, 9))
        | st.dictionaries(HASHABLE, inner, max_size=4).map(lambda d: d.keys())
        | st.builds(slice, st.none() | st.integers(), st.none() | st.integers())
    ),
    max_leaves=12,
)


def shape(value):
    """Types all the way down, and the order of what has one."""
    if isinstance(value, dict):
        return type(value), [(shape(key), shape(held)) for key, held in value.items()]
    if isinstance(value, list | tuple | collections.deque):
        return type(value), [shape(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), collections.Counter(type(item) for item in value)
    return type(value)


@given(VALUES)
def test_a_value_comes_out_as_it_went_in(value):
    result = decoded(encoded(value))
    assert result == value and shape(result) == shape(value)


@pytest.mark.parametrize("bits", [0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000000, 1 << 63, 1])
def test_every_float_keeps_its_bits(bits):
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    assert struct.pack("<d", decoded(encoded([value]))[0]) == struct.pack("<Q", bits)
    assert struct.pack("<d", decoded(encoded(complex(value, 1))).real) == struct.pack("<Q", bits)


def test_one_object_stays_one_object():
    row = [0]
    rows, other = decoded(encoded(([row] * 3, {"row": row})))
    rows[0].append(1)
    assert rows[1] is rows[2] is other["row"] == [0, 1]


@given(st.lists(VALUES, min_size=1, max_size=3))
def test_an_answer_names_the_containers_that_it_was_asked_with(arguments):
    question = Encoder(no_foreign, max_bytes=LIMIT)
    asked = question.encode(tuple(arguments))
    theirs = Decoder(asked, no_foreign)
    theirs.decode()
    answer = encoded(tuple(theirs.objects), known=theirs.objects)
    assert len(answer) < 6 * (len(theirs.objects) + 1)
    ours = decoded(answer, known=question.objects)
    assert len(ours) == len(question.objects)
    assert all(one is other for one, other in zip(ours, question.objects, strict=True))


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ([1, 2], lambda x: x.reverse()),
        ({1: 2}, lambda x: x.update({0: 1})),
        ({1, 2}, lambda x: x.add(3)),
        (bytearray(b"12"), lambda x: x.extend(b"3")),
        (collections.Counter("ab"), lambda x: x.update("b")),
        (collections.OrderedDict(a=1, b=2), lambda x: x.move_to_end("a")),
        (collections.defaultdict(list, a=[1]), lambda x: x["b"]),
        (collections.deque([1], 2), lambda x: x.extend([2, 3])),
    ],
)
def test_a_change_is_seen_and_made_again(value, change):
    copy = decoded(encoded(value))
    before = contents(value)
    assert not has_changed(before, contents(value))
    change(value)
    assert has_changed(before, contents(value))
    refill(copy, decoded(encoded(contents(value))))
    assert copy == value and list(copy) == list(value)
    with pytest.raises(CodecError):
        refill(copy, [1])


def test_what_no_tag_stands_for_is_not_written():
    class Number(int):
        pass

    zone = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    for value in (Number(1), object(), len, Number, zone, math, iter([]), [1, {2: Number(1)}]):
        with pytest.raises(CodecError):
            encoded(value)


def test_a_type_that_only_says_who_it_is_is_foreign():
    counter = type("Counter", (dict,), {"__module__": "collections"})
    with pytest.raises(CodecError):
        encoded(counter())


def test_values_that_hold_themselves_or_are_too_deep_or_too_large_are_refused():
    cyclic: list = []
    cyclic.append((cyclic,))
    deep: tuple = ()
    for _ in range(MAX_DEPTH + 2):
        deep = (deep,)
    for value in (cyclic, deep):
        with pytest.raises(CodecError):
            encoded(value)
    for value in ("x" * LIMIT, b"x" * LIMIT, [1.0] * LIMIT, 1 << (9 * LIMIT)):
        with pytest.raises(TooLargeError):
            encoded(value)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error(data):
    try:
        value = decoded(data)
    except CodecError:
        return
    assert decoded(encoded(value)) is not Ellipsis or data == b"E"


@given(VALUES, st.data())
def test_a_damaged_message_is_a_value_or_an_error(value, draw):
    data = bytearray(encoded(value))
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with suppress(CodecError):
        decoded(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"?",
        b"NN",
        b"f1",
        b"@\0\0\0\0",
        b"[\1\0\0\0@\0\0\0\0",  # itself
        b"[\xff\xff\xff\xff",
        b"i\xff\xff\xff\xff1",
        b"s\1\0\0\0\xff",
        b"{\1\0\0\0[\0\0\0\0",  # a list in a set
        b"d\1\0\0\0N",
        b"Q\0\0\0\0",  # a deque without its length
        b"D\1\0\0\0T",
        b"r\3\0\0\0TTN",
        b"/\2\0\0\0" + b"i\1\0\0\0\1" + b"i\1\0\0\0\0",  # by zero
        b"1\1\0\0\0N",
        b".\1\0\0\0s\1\0\0\0x",
        b"y\4\0\0\0eval",
        b"y\7\0\0\0os.exit",
        b"(\1\0\0\0" * 5000 + b"N",
    ],
)
def test_what_the_encoder_would_not_write_is_refused(data):
    with pytest.raises(CodecError):
        decoded(data)


def test_numbers_of_every_size_cross():
    for value in (Decimal("NaN"), Decimal("-0"), Decimal("1E+99"), Fraction(-1, 3), 2**200_000):
        assert str(decoded(encoded(value)).__class__) == str(value.__class__)
        assert decoded(encoded(value)) == value or value != value

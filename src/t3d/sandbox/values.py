"""The kinds of values that may cross between a tested program and its tests, taken apart and put together.

Exact types of Python only; this file is sent to both interpreters, see :mod:`t3d.sandbox.codec`.
"""

import builtins
import sys

TYPES = {
    name: kind
    for name, kind in {**vars(builtins), "NoneType": type(None)}.items()
    if isinstance(kind, type) and kind.__name__ == name
}
"""Types that may cross themselves, by name."""
TYPE_NAMES = {kind: name for name, kind in TYPES.items()}
LIBRARY_TYPES = {
    ("collections", "Counter"): b"C",
    ("collections", "OrderedDict"): b"O",
    ("collections", "defaultdict"): b"D",
    ("collections", "deque"): b"Q",
    ("decimal", "Decimal"): b".",
    ("fractions", "Fraction"): b"/",
    ("datetime", "date"): b"1",
    ("datetime", "time"): b"2",
    ("datetime", "datetime"): b"3",
    ("datetime", "timedelta"): b"4",
}
"""Types of the standard library that cross, with their tags."""
LIBRARY_TAGS = {tag: name for name, tag in LIBRARY_TYPES.items()}
DATES = {
    b"1": ("year", "month", "day"),
    b"2": ("hour", "minute", "second", "microsecond"),
    b"3": ("year", "month", "day", "hour", "minute", "second", "microsecond"),
    b"4": ("days", "seconds", "microseconds"),
}
VIEWS = {type({}.keys()): b"k", type({}.values()): b"v", type({}.items()): b"m"}
SEQUENCES = {list: b"[", tuple: b"(", set: b"{", frozenset: b"<"}
CONSTANTS = {b"N": None, b"T": True, b"F": False, b"E": Ellipsis, b"P": NotImplemented}
CONSTANT_TAGS = {id(value): tag for tag, value in CONSTANTS.items()}
CHANGING = b"[{dCDOQa"
"""Tags of containers that can change, which have numbers."""


class CodecError(ValueError):
    """This value cannot cross, or these bytes are no value."""


class TooLargeError(ValueError):
    """A message would be longer than allowed."""


def library_type(module, name):
    """A type of the standard library, imported where nobody has yet."""
    return getattr(__import__(module), name)


def library_tag(kind):
    """The tag of a type of the standard library; None for a type that only says it is one."""
    tag = LIBRARY_TYPES.get((kind.__module__, kind.__qualname__))
    if tag is None:
        return None
    module, name = LIBRARY_TAGS[tag]
    return tag if getattr(sys.modules.get(module), name, None) is kind else None


def flat(pairs):
    """Keys and values in turn."""
    return tuple([part for pair in pairs for part in pair])


def contents(value):
    """What a container holds: bytes of a bytearray, else a tuple, of a dictionary keys and values in turn."""
    if isinstance(value, dict):
        return flat(value.items())  # of dict itself, an OrderedDict has another order
    return bytes(value) if isinstance(value, bytearray) else tuple(value)


def head(value, tag):
    """What a container has beside its contents."""
    return {b"D": lambda: (value.default_factory,), b"Q": lambda: (value.maxlen,)}.get(tag, tuple)()


def refill(value, held):
    """Give a container other contents, as :func:`contents` has them. Raises CodecError."""
    kind = type(value)
    if type(held) is not (bytes if kind is bytearray else tuple):
        raise CodecError("no contents")
    if kind is list or kind is bytearray:
        value[:] = held
        return
    value.clear()
    if isinstance(value, dict):
        fill(value, pairs(held))
    elif kind is set:
        value.update(held)
    else:
        value.extend(held)


def fill(value, items):
    """Put pairs into an empty dictionary: a Counter's own update would count them."""
    if library_tag(type(value)) == b"C":
        dict.update(value, items)
    else:
        value.update(items)


def pairs(parts):
    """Keys and values in turn, as pairs."""
    if len(parts) % 2:
        raise CodecError("a key without a value")
    return list(zip(parts[::2], parts[1::2], strict=True))


def has_changed(before, after):
    """Whether two contents are not the same objects."""
    if isinstance(before, bytes):
        return before != after
    return len(before) != len(after) or any(a is not b for a, b in zip(before, after, strict=True))


def make_changing(tag, parts):
    """The container with this tag and these parts."""
    if tag == b"[":
        return list(parts)
    if tag == b"{":
        return set(parts)
    if tag == b"d":
        return dict(pairs(parts))
    kind = library_type(*LIBRARY_TAGS[tag])
    if tag == b"Q":
        return kind(parts[1:], parts[0])
    if tag == b"D":
        if parts[0] is not None and not callable(parts[0]):
            raise CodecError("no factory")
        return kind(parts[0], pairs(parts[1:]))
    value = kind()
    fill(value, pairs(parts))
    return value


def make_fixed(tag, parts):
    """The value that cannot change with this tag and these parts."""
    if tag == b"(":
        return parts
    if tag == b"<":
        return frozenset(parts)
    if tag == b"r":
        return range(*parts)
    if tag == b"l":
        return slice(*parts)
    if tag == b"k":
        return dict.fromkeys(parts).keys()
    if tag == b"v":
        return dict(enumerate(parts)).values()
    if tag == b"m":
        return dict(pairs(parts)).items()
    if tag not in LIBRARY_TAGS:
        raise CodecError("no such tag")
    if any(type(part) is not (str if tag == b"." else int) for part in parts):
        raise CodecError("no such part")
    return library_type(*LIBRARY_TAGS[tag])(*parts)

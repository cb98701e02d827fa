"""Plain values as bytes, and back: all that crosses between a tested program and its tests.

One tag a value, then its length or its parts; no code, no class of anyone's own. The decoder takes every byte
for a lie: it makes exact types of Python only, calls nothing by a name that the bytes hold, and raises
CodecError for whatever the encoder would not have written. This file is sent to both interpreters, so it
uses as little of the standard library as it can.

A container that can change is written once in a message; where it comes again, in the same message or in
the answer to the message that brought it, stands its number, so that one object stays one object. What no tag
stands for is up to the two sides: ``foreign`` turns such a value into bytes and a plain value beside them.
"""

import struct

from t3d.sandbox.values import (
    CHANGING,
    CONSTANT_TAGS,
    CONSTANTS,
    DATES,
    SEQUENCES,
    TYPE_NAMES,
    TYPES,
    VIEWS,
    CodecError,
    TooLargeError,
    contents,
    flat,
    head,
    library_tag,
    make_changing,
    make_fixed,
)

MAX_DEPTH = 100


class Encoder:
    """Writes one message. ``known`` are the numbered containers of the message that it answers.

    ``foreign``: from a value to bytes and a plain value. ``objects`` are the numbered containers afterwards.
    """

    def __init__(self, foreign, *, max_bytes, known=()):
        self.objects: list = list(known)
        self._foreign, self._max_bytes = foreign, max_bytes
        self._numbers = {id(value): number for number, value in enumerate(self.objects)}
        self._open = set()
        self._out = bytearray()

    def encode(self, value):
        """The message. Raises CodecError, or TooLargeError."""
        self._write(value, 0)
        return bytes(self._out)

    def _write(self, value, depth):
        kind = type(value)
        if kind is int:
            self._sized(b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        elif kind is str:
            self._sized(b"s", value.encode("utf-8", "surrogatepass"))
        elif kind is float:
            self._out += b"f" + struct.pack("<d", value)
        elif id(value) in CONSTANT_TAGS:
            self._out += CONSTANT_TAGS[id(value)]
        elif depth > MAX_DEPTH:
            raise CodecError("a value is nested too deeply to leave its process")
        elif id(value) in self._numbers:
            self._again(value)
        else:
            self._write_other(value, kind, depth)
        if len(self._out) > self._max_bytes:
            raise TooLargeError(f"a value takes more than {self._max_bytes} bytes")

    def _again(self, value):
        if id(value) in self._open:
            raise CodecError("a value that holds itself cannot leave its process")
        self._out += b"@" + struct.pack("<I", self._numbers[id(value)])

    def _write_other(self, value, kind, depth):
        tag = SEQUENCES.get(kind) or (b"d" if kind is dict else None) or library_tag(kind)
        if kind is complex:
            self._out += b"c" + struct.pack("<dd", value.real, value.imag)
        elif kind is bytes:
            self._sized(b"b", value)
        elif kind is bytearray:
            self._number(value)
            self._sized(b"a", value)
        elif kind is range or kind is slice:
            self._parts(b"r" if kind is range else b"l", (value.start, value.stop, value.step), depth)
        elif kind in VIEWS:
            self._parts(VIEWS[kind], flat(value) if VIEWS[kind] == b"m" else tuple(value), depth)
        elif kind is type and value in TYPE_NAMES:
            self._sized(b"y", TYPE_NAMES[value].encode())
        elif tag is None or (tag in DATES and getattr(value, "tzinfo", None) is not None):
            self._write_foreign(value, depth)
        elif tag in DATES:
            self._parts(tag, tuple(getattr(value, name) for name in DATES[tag]), depth)
        elif tag == b".":
            self._parts(tag, (str(value),), depth)
        elif tag == b"/":
            self._parts(tag, (value.numerator, value.denominator), depth)
        elif tag in CHANGING:
            self._number(value)
            self._open.add(id(value))
            self._parts(tag, head(value, tag) + contents(value), depth)
            self._open.discard(id(value))
        else:
            self._parts(tag, contents(value), depth)

    def _write_foreign(self, value, depth):
        data, beside = self._foreign(value)
        self._sized(b"X", data)
        self._write(beside, depth + 1)

    def _number(self, value):
        self._numbers[id(value)] = len(self.objects)
        self.objects.append(value)  # and is kept, so that nothing else gets its id

    def _parts(self, tag, parts, depth):
        self._out += tag + struct.pack("<I", len(parts))
        for part in parts:
            self._write(part, depth + 1)

    def _sized(self, tag, data):
        if len(data) > self._max_bytes:
            raise TooLargeError(f"a value takes more than {self._max_bytes} bytes")
        self._out += tag + struct.pack("<I", len(data)) + data


class Decoder:
    """Reads one message. ``foreign``: from what the other side's wrote to a value; ``known`` as there."""

    def __init__(self, data, foreign, *, known=()):
        self.objects: list = list(known)
        self._data, self._foreign, self._position = data, foreign, 0
        self._open = set()

    def decode(self):
        """The value. Raises CodecError."""
        try:
            value = self._read(0)
        except CodecError:
            raise
        except (struct.error, ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
            raise CodecError(f"no value: {error}") from None
        if self._position != len(self._data):
            raise CodecError("more than a value")
        return value

    def _read(self, depth):
        tag = self._take(1)
        if tag == b"i":
            return int.from_bytes(self._sized(), "little", signed=True)
        if tag == b"s":
            return self._sized().decode("utf-8", "surrogatepass")
        if tag == b"f":
            return struct.unpack("<d", self._take(8))[0]
        if tag in CONSTANTS:
            return CONSTANTS[tag]
        if depth > MAX_DEPTH + 1:
            raise CodecError("too deep")
        if tag == b"@":
            return self._again(self._number())
        if tag in CHANGING:
            return self._read_changing(tag, depth)
        return self._read_other(tag, depth)

    def _take(self, count):
        data = self._data[self._position : self._position + count]
        if len(data) != count:
            raise CodecError("cut short")
        self._position += count
        return data

    def _number(self):
        return struct.unpack("<I", self._take(4))[0]

    def _sized(self):
        return self._take(self._number())

    def _parts(self, depth):
        count = self._number()
        if count > len(self._data) - self._position:
            raise CodecError("cut short")
        return tuple([self._read(depth + 1) for _ in range(count)])

    def _again(self, number):
        if number >= len(self.objects) or number in self._open:
            raise CodecError("no such object")
        return self.objects[number]

    def _read_changing(self, tag, depth):
        if tag == b"a":
            self.objects.append(bytearray(self._sized()))
            return self.objects[-1]
        number = len(self.objects)
        self.objects.append(None)
        self._open.add(number)
        parts = self._parts(depth)
        value = self.objects[number] = make_changing(tag, parts)
        self._open.discard(number)
        return value

    def _read_other(self, tag, depth):
        if tag == b"c":
            return complex(*struct.unpack("<dd", self._take(16)))
        if tag == b"b":
            return bytes(self._sized())
        if tag == b"y":
            return TYPES[self._name()]
        if tag == b"X":
            return self._foreign(bytes(self._sized()), self._read(depth + 1))
        return make_fixed(tag, self._parts(depth))

    def _name(self):
        name = self._sized().decode("ascii")
        if name not in TYPES:
            raise CodecError("no such type")
        return name

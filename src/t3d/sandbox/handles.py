"""Objects of the program's own, as the tests see them: their number, and nothing of themselves.

What a handle is asked, the program answers, with plain values and other handles; a handle is equal to itself
only, and the tests never ask the program to compare. Sent to both interpreters.
"""

import operator
import struct

OTHER_NAMES = (
    "__name__ __qualname__ __dict__ __annotations__ __defaults__ __kwdefaults__ __code__ __wrapped__ "
    "__enter__ __exit__ __int__ __float__ __complex__ __round__ __format__"
)
FORWARDED = {*dir(operator), *OTHER_NAMES.split()}
"""Names with two underscores that an object is asked for: Python's own. By others a library would take it for
more than an object: numpy reads memory where ``__array_interface__`` says."""


def pack_handle(number, comparing):
    """How a handle is written: ``comparing`` names its class if that says itself what it is equal to."""
    return struct.pack("<I", number) + comparing.encode("utf-8", "replace")


def unpack_handle(data):
    """Number and name of what :func:`pack_handle` wrote."""
    return struct.unpack("<I", data[:4])[0], data[4:].decode()


class Handle:
    """An object in the program's process. Methods here have names of Python's; others are the object's."""

    __slots__ = ("__comparing", "__link", "__number")

    def __init__(self, link, number, comparing):
        object.__setattr__(self, "_Handle__link", link)
        object.__setattr__(self, "_Handle__number", number)
        object.__setattr__(self, "_Handle__comparing", comparing)

    def __eq__(self, other):
        if self is not other and self.__comparing and not isinstance(other, Handle):
            self.__link.suspect(f"{self.__comparing} was compared and says itself what it is equal to")
        return self is other

    def __hash__(self):
        return object.__hash__(self)

    def __call__(self, /, *arguments, **named):
        """What a call of the object returns."""
        return self.__link.ask("call", self, arguments, named)

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__") and name not in FORWARDED:
            raise AttributeError(name)
        return self.__link.ask("getattr", self, name)

    def __setattr__(self, name, value):
        self.__link.ask("setattr", self, name, value)

    def __delattr__(self, name):
        self.__link.ask("delattr", self, name)

    def __getitem__(self, key):
        return self.__link.ask("getitem", self, key)

    def __setitem__(self, key, value):
        self.__link.ask("setitem", self, key, value)

    def __delitem__(self, key):
        self.__link.ask("delitem", self, key)

    def __iter__(self):
        return self.__link.ask("iter", self)

    def __next__(self):
        return self.__link.ask("next", self)

    def __len__(self):
        return self.__link.ask("len", self)

    def __bool__(self):
        return self.__link.ask("truth", self)

    def __str__(self):
        return self.__link.ask("str", self)

    def __repr__(self):
        return self.__link.ask("repr", self)

    def __instancecheck__(self, value):
        return self.__link.ask("isinstance", value, self)


class TupleHandle(tuple):
    """A tuple of a type of the program's own, such as a named tuple: the plain tuple, and who it is."""

    def __getattr__(self, name):
        return self.__dict__["the handle"].__getattr__(name)

    def __repr__(self):
        return repr(self.__dict__["the handle"])


def with_handle(values, handle):
    """A tuple that is passed back as the object that it was."""
    value = TupleHandle(values)
    value.__dict__["the handle"] = handle
    return value


def written_handle(value):
    """The bytes of a handle; None if the value has none."""
    if type(value) is TupleHandle:
        value = value.__dict__["the handle"]
    return pack_handle(value._Handle__number, "") if type(value) is Handle else None

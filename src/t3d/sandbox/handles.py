"""Objects of the program's own, as the tests see them: their number, and nothing of themselves.

What a handle is asked, the program answers, with plain values and other handles; a handle is equal to itself
only, and the tests never ask the program to compare. One of a container with methods of the program's own is
also equal to what the program says that it holds. Sent to both interpreters.
"""

import operator
import struct

OTHER_NAMES = (
    "__name__ __qualname__ __dict__ __annotations__ __defaults__ __kwdefaults__ __code__ __wrapped__ "
    "__enter__ __exit__ __int__ __float__ __complex__ __round__ __format__ __closure__ __self__ __func__ "
    "__members__ __mro__ __bases__ __slots__ __dataclass_fields__"
)
FORWARDED = {*dir(operator), *OTHER_NAMES.split()}
"""Names with two underscores that an object is asked for: Python's own. By others a library would take it for
more than an object: numpy reads memory where ``__array_interface__`` says."""


CONTAINERS = (None, list, dict, set, bytearray)


def pack_handle(number, comparing="", container=None):
    """How a handle is written: ``comparing`` names its class if that says itself what it is equal to.

    ``container`` is the type that the class derives from if it is one of CONTAINERS.
    """
    return struct.pack("<IB", number, CONTAINERS.index(container)) + comparing.encode("utf-8", "replace")


def unpack_handle(data):
    """What :func:`pack_handle` was given."""
    number, index = struct.unpack("<IB", data[:5])
    return number, data[5:].decode(), CONTAINERS[index]


class Handle:
    """An object in the program's process. Methods here have names of Python's; others are the object's."""

    __slots__ = ("__comparing", "__container", "__link", "__number")

    def __init__(self, link, number, comparing, container):
        object.__setattr__(self, "_Handle__link", link)
        object.__setattr__(self, "_Handle__number", number)
        object.__setattr__(self, "_Handle__comparing", comparing)
        object.__setattr__(self, "_Handle__container", container)

    @property
    def __class__(self):
        """For ``isinstance``."""
        return self.__container or Handle

    def __contents(self):
        """The plain container that it is, or itself."""
        if not self.__container:
            return self
        held = self.__link.ask("contents", self)
        if type(held) is not self.__container:
            self.__link.suspect("a container that holds no values")
        return held

    def __eq__(self, other):
        if self is not other and self.__container:
            return self.__contents() == (other.__contents() if type(other) is Handle else other)
        if self is not other and self.__comparing and type(other) is not Handle:
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
    return pack_handle(value._Handle__number) if type(value) is Handle else None

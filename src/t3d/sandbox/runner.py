"""What runs in the process of a tested program: confines itself, runs it, answers for it. Never imported.

:mod:`t3d.sandbox.process` sends this code and a request (see ``Request`` there) to a bare interpreter. Then
the tests' interpreter (:mod:`t3d.sandbox.judge`) asks by messages: run the program, what is this global,
call that with these values. The program can do to this process what it likes, answers included: nothing here
knows a test, and nothing that is sent from here is believed to be more than a value. What is said here of
objects of a class of the program's own only names a trick where one is seen.
"""

import _sitebuiltins
import builtins
import operator
import os
import sys

from t3d.sandbox.channel import receive, send
from t3d.sandbox.codec import Decoder, Encoder
from t3d.sandbox.handles import CONTAINERS, pack_handle, unpack_handle
from t3d.sandbox.values import CodecError, TooLargeError, contents, flat, has_changed
from t3d.sandbox.walls import enter, seal

NAME = "program"
"""Of the program's module."""
OWN_COMPARISONS = ("__eq__", "__ne__", "__class__")
FUNCTION = type(lambda: None)
VALUE_TYPES = (int, float, complex, str, bytes, tuple, list, dict, set, frozenset, bytearray)
WRAPPERS = {"ChainMap": dict, "UserDict": dict, "UserList": list, "UserString": str}
NO_METHODS = "__module__ __qualname__ __doc__ __dict__ __weakref__ __slots__ __annotations__ __init__"
MAX_TEXT = 1000


class SuspiciousError(Exception):
    """An object that stands where only a value belongs, and says itself what it is equal to."""


def main(request):
    """Confine this process, then serve the tests; does not return."""
    for path in request["packages"]:
        sys.path.append(path)
    add_site_builtins()
    enter(request)
    seal(request, request["parent"])
    sys.argv = ["program.py"]
    program = Program(request["source"], new_module(), request["max_bytes"])
    send(request["channel"], b"ready")
    while (asked := receive(request["channel"], request["max_bytes"])) is not None:
        send(request["channel"], program.answer(asked))
    os._exit(0)


def add_site_builtins():
    """The names that the module ``site``, which is not run here, gives to programs."""
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D")
    builtins.help = _sitebuiltins._Helper()


def new_module():
    """The namespace of a fresh module, which also takes the place of ``__main__``; ours are forgotten."""
    for name in [name for name in sys.modules if name.startswith("t3d.")]:
        del sys.modules[name]
    module = type(sys)(NAME)
    module.__dict__["__builtins__"] = builtins  # else it would get this file's own copy
    sys.modules[NAME] = sys.modules["__main__"] = module
    return module.__dict__


class Program:
    """A program and the objects of its own that the tests hold, by number."""

    def __init__(self, source, namespace, max_bytes):
        self._source, self._namespace, self._max_bytes = source, namespace, max_bytes
        self._objects, self._numbers = [], {}

    def answer(self, asked):
        """The message that answers a message: number, how it went, what changed in the arguments, result."""
        decoder = Decoder(asked, self._own)
        number, operation, *operands = decoder.decode()
        given = decoder.objects
        before = [contents(value) for value in given]
        try:
            status, result = "returned", OPERATIONS[operation](self, *operands)
        except BaseException as error:
            status, result = "raised", describe(error)
        try:
            changed = tuple(
                (index, held)
                for index, value in enumerate(given)
                if has_changed(before[index], held := contents(value))
            )
            return self._encode((number, status, changed, result), given)
        except SuspiciousError as error:
            return self._encode((number, "suspicious", (), str(error)), ())
        except TooLargeError as error:
            return self._encode((number, "too large", (), str(error)), ())
        except BaseException as error:
            return self._encode((number, "raised", (), describe(error)), ())

    def _encode(self, reply, given):
        return Encoder(self._foreign, max_bytes=self._max_bytes, known=given).encode(reply)

    def _own(self, data, _):
        """The object that a handle of the tests stands for."""
        return self._objects[unpack_handle(data)[0]]

    def _foreign(self, value):
        """How an object of a type that does not cross is written; values of derived types become plain."""
        kind = type(value)
        compares = own_comparison(kind)
        plain = plain_value(value, kind)
        if plain is not None and compares:
            raise SuspiciousError(f"{kind.__name__} is a value with its own {compares}"[:MAX_TEXT])
        container = type(plain) if type(plain) in CONTAINERS and has_methods(kind) else None
        if plain is not None and type(plain) is not tuple and container is None:
            return b"", plain
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        name = str(kind.__name__)[:MAX_TEXT] if compares else ""
        return pack_handle(self._numbers[id(value)], name, container), plain if container is None else None

    def run(self, names):
        """Run the program itself, and give those of these names that are functions, with the functions."""
        exec(compile(self._source, "<string>", "exec", dont_inherit=True), self._namespace)
        found = ((name, self._namespace.get(name)) for name in names)
        return flat([(name, value) for name, value in found if type(value) is FUNCTION])

    def look_up(self, name):
        """The program's global of that name. Raises KeyError."""
        return self._namespace[name]


def own_comparison(kind):
    """The first method by which a class of the program's own decides what it is equal to, or None."""
    for base in kind.__mro__:
        if base.__module__ == NAME:
            for name in OWN_COMPARISONS:
                if name in vars(base):
                    return name
    return None


def has_methods(kind):
    """Whether a class of the program's own does more than to derive from a container and fill it."""
    return any(
        set(vars(base)).difference(NO_METHODS.split()) for base in kind.__mro__ if base.__module__ == NAME
    )


def plain_value(value, kind):
    """The plain value that an object of a derived type, or a library's, is; None if it is none."""
    if kind.__module__ == "numpy":
        read = getattr(value, "tolist", None)
        return None if read is None or type(value.tolist()) is kind else value.tolist()
    if kind.__module__ == "collections" and kind.__name__ in WRAPPERS:
        return WRAPPERS[kind.__name__](value)
    if kind.__module__ != NAME and hasattr(kind, "__index__"):
        return operator.index(value)  # a number of sympy's, say
    base = next((base for base in kind.__mro__ if base in VALUE_TYPES), None)
    if base is None:
        return None
    if base in (int, float, complex):
        return base.__pos__(value)
    if base is str:
        return str.__str__(value)
    if base is dict:
        return dict(dict.items(value))
    if base in (bytes, bytearray):
        return base.__add__(value, b"")
    return base(base.__iter__(value))


def describe(error):
    """Of an exception: the nearest built-in class, its own name, arguments that may cross, and the text."""
    kinds = type(error).__mro__
    base = next(kind.__name__ for kind in kinds if getattr(builtins, kind.__name__, None) is kind)
    try:
        text = str(error)[:MAX_TEXT]
    except BaseException:
        text = ""
    return base, str(kinds[0].__name__)[:MAX_TEXT], plain_arguments(error), str.__str__(text)


def plain_arguments(error):
    """The exception's arguments, or None if they are more than short plain values."""
    try:
        arguments = tuple(vars(BaseException)["args"].__get__(error))
        Encoder(refuse, max_bytes=MAX_TEXT).encode(arguments)
    except BaseException:
        return None
    return arguments


def refuse(value):
    """No object of the program's crosses here."""
    raise CodecError(type(value).__name__)


OPERATIONS = {
    "run": Program.run,
    "global": Program.look_up,
    "call": lambda _, target, arguments, named: target(*arguments, **named),
    "getattr": lambda _, target, name: getattr(target, name),
    "setattr": lambda _, target, name, value: setattr(target, name, value),
    "delattr": lambda _, target, name: delattr(target, name),
    "getitem": lambda _, target, key: target[key],
    "setitem": lambda _, target, key, value: operator.setitem(target, key, value),
    "delitem": lambda _, target, key: operator.delitem(target, key),
    "iter": lambda _, target: iter(target),
    "next": lambda _, target: next(target),
    "len": lambda _, target: len(target),
    "truth": lambda _, target: bool(target),
    "str": lambda _, target: str(target),
    "repr": lambda _, target: repr(target),
    "isinstance": lambda _, value, target: isinstance(value, target),
    "contents": lambda _, target: plain_value(target, type(target)),
}

"""What runs the tests: a server of processes, each of which judges one program. Never imported.

Its code, and a request, come as those of :mod:`t3d.sandbox.runner` do. No code of a program's runs here,
ever: what the tests take from it are values that came as bytes (:mod:`t3d.sandbox.codec`) and handles
(:mod:`t3d.sandbox.handles`). All tests are compiled before the program's first word. What is no value, or
comes unasked, ends the run at once; no test can catch that.
"""

import builtins
import gc
import marshal
import os
import random
import select
import signal
import socket
import sys

from t3d.sandbox.channel import ChannelError, receive, send
from t3d.sandbox.codec import Decoder, Encoder
from t3d.sandbox.handles import Handle, unpack_handle, with_handle, written_handle
from t3d.sandbox.values import CodecError, refill
from t3d.sandbox.walls import enter, seal

NAME = "program"
PRELOADED = (
    "bisect cmath collections copy datetime decimal fractions functools heapq itertools math operator re "
    "string typing"
)
"""What tests and prompts often import, so that no process has to by itself."""
EXCEPTIONS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
}
MAX_DETAIL_LENGTH = 200
WITHOUT_CONTROLS = bytes(code if 32 <= code < 127 else 32 for code in range(256))
ONE_MORE_SECOND = 1.0
"""After its time a stage ends here by itself, in case that nobody is left to end it."""


# ---- the server ----


def main(request):
    """Confine this process and fork one for every pair of sockets that comes; does not return."""
    for path in request["packages"]:
        sys.path.append(path)
    enter(request)
    for name in PRELOADED.split():
        __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel then forgets children that have ended
    gc.freeze()
    server, itself = socket.socket(fileno=request["socket"]), os.getpid()
    while True:
        message, descriptors, _, _ = socket.recv_fds(server, 1, 2)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            server.close()
            judge(request, itself, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def judge(request, parent, reports, program):
    """Judge one program in this process; does not return."""
    try:
        with socket.socket(fileno=reports) as connection:
            job = receive_job(connection)
            seal({**request, "limits": job["limits"]}, parent)
            random.seed()
            run_stages(job, connection, program)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)  # into the server's log
    os._exit(1)


def receive_job(connection):
    """What the parent wants judged."""
    return marshal.loads(receive(connection.fileno(), sys.maxsize))


# ---- one program ----


class Verdicts:
    """Tells the parent how each stage went."""

    def __init__(self, connection):
        self._connection = connection

    def send(self, status, detail=""):
        """One line: a stage passed, or why it is the last. Nothing in it commands a terminal."""
        text = detail[:MAX_DETAIL_LENGTH].encode("ascii", "backslashreplace")[:MAX_DETAIL_LENGTH]
        self._connection.sendall(b"%s\t%s\n" % (status.encode(), text.translate(WITHOUT_CONTROLS)))

    def stop(self, status, detail=""):
        """Say why the run ends, and end it."""
        self.send(status, detail)
        os._exit(0)


def run_stages(job, connection, program):
    """Run the program in its process and then stage after stage here, until one raises an exception."""
    verdicts = Verdicts(connection)
    stages = [compiled(text) for text in job["stages"]]
    link = Link(program, job["max_bytes"], verdicts.stop)
    names = Names(link, frozenset(job["program_names"]))
    link.wait()
    verdicts.send("ready")
    try:
        for stage in (lambda: names.run_program(stages), *stages):
            signal.setitimer(signal.ITIMER_REAL, job["time_limit_s"] + ONE_MORE_SECOND)
            if callable(stage):
                stage()
            else:
                exec(stage, names)
            link.expect_silence()
            verdicts.send("passed")
    except BaseException as error:
        verdicts.stop(*describe(error))
    os._exit(0)


def compiled(text):
    """The code of a stage, or a function that raises why there is none."""
    try:
        return compile(text, "<string>", "exec", dont_inherit=True)
    except Exception as error:
        found = error

    def fail():
        raise found

    return fail


def describe(error):
    """``wrong``, ``memory``, ``exit`` or ``error``, and the name and text of the exception."""
    kinds = ((AssertionError, "wrong"), (MemoryError, "memory"), (SystemExit, "exit"))
    status = next((status for kind, status in kinds if isinstance(error, kind)), "error")
    try:
        text = str(error)
    except BaseException:
        text = ""
    return status, type(error).__name__ + (": " + text if text else "")


class Names(dict):
    """The tests' global names. What is neither theirs nor Python's is asked of the program, every time.

    ``program_names`` are names of Python's that mean the program's own function.
    """

    def __init__(self, link, program_names):
        super().__init__(__name__=NAME, __builtins__=builtins)
        self._link, self._program_names = link, program_names

    def __missing__(self, name):
        if not self._may_be_the_programs(name):
            raise KeyError(name)
        return self._link.ask("global", name)

    def run_program(self, stages):
        """Have the program run, and take its functions that the stages name at once, to save questions."""
        asked = sorted(filter(self._may_be_the_programs, set().union(*map(names_in, stages))))
        found = self._link.ask("run", tuple(asked))
        if type(found) is not tuple or any(type(function) is not Handle for function in found[1::2]):
            self._link.suspect("no functions")
        self.update((name, found[1::2][index]) for index, name in enumerate(found[::2]) if name in asked)

    def _may_be_the_programs(self, name):
        return name in self._program_names or not hasattr(builtins, name)


def names_in(code):
    """Names that a stage and the functions in it use."""
    inner = [part for part in getattr(code, "co_consts", ()) if hasattr(part, "co_names")]
    return set(getattr(code, "co_names", ())).union(*map(names_in, inner))


class Link:
    """Asks the program by messages, one answer for each."""

    def __init__(self, descriptor, max_bytes, stop):
        self._socket, self._max_bytes, self._stop = socket.socket(fileno=descriptor), max_bytes, stop
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._count, self._handles = 0, {}

    def wait(self):
        """Until the program's process is ready to run it."""
        if self._receive() != b"ready":
            self._stop("gone")

    def suspect(self, detail):
        """End the run because of a trick."""
        self._stop("suspicious", detail)

    def expect_silence(self):
        """End the run if there is something that nobody asked for."""
        try:
            spoken = self._poll.poll(0) and self._socket.recv(1, socket.MSG_PEEK)
        except ConnectionResetError:  # it has ended
            return
        if spoken:
            self.suspect("an answer that was not asked for")

    def ask(self, operation, *operands):
        """The program's answer: returns the value, or raises the exception."""
        self._count += 1
        encoder = Encoder(self._given, max_bytes=self._max_bytes)
        asked = encoder.encode((self._count, operation, *operands))
        self.expect_silence()
        try:
            send(self._socket.fileno(), asked)
        except ConnectionError:
            self._stop("gone")
        try:
            status, result = self._read(self._receive(), encoder.objects)
            failure = made_exception(*result) if status == "raised" else None
        except (CodecError, TypeError, ValueError, IndexError) as error:
            self.suspect(f"no answer: {error}")
        if isinstance(failure, StopIteration) and operation != "next":
            # As in a generator: it would end loops of the tests, such as that over a map.
            failure = RuntimeError(f"{operation} raised StopIteration")
        if failure is not None:
            raise failure
        return result

    def _receive(self):
        try:
            data = receive(self._socket.fileno(), self._max_bytes)
        except ChannelError as error:
            self.suspect(str(error))
        except ConnectionResetError:
            data = None
        if data is None:
            self._stop("gone")
        return data

    def _read(self, data, given):
        """Status and result of an answer; what the program did to its arguments is done to ours."""
        answer = Decoder(data, self._made, known=given).decode()
        if type(answer) is not tuple:
            raise CodecError("none at all")
        number, status, changed, result = answer
        if (type(number), type(status), type(changed)) != (int, str, tuple) or number != self._count:
            raise CodecError("to another question")
        if status == "raised" and type(result) is not tuple:
            raise CodecError("no exception")
        if status == "too large":
            self._stop("output limit", str(result))
        if status == "suspicious":
            self.suspect(str(result))
        if status not in ("returned", "raised"):
            raise CodecError("of no kind")
        for index, held in changed:
            if type(index) is not int or index < 0:
                raise CodecError("about no argument")
            refill(given[index], held)
        return status, result

    def _given(self, value):
        """How the program is told of what is no plain value of ours: only of its own objects."""
        data = written_handle(value)
        if data is None:
            raise CodecError(f"{type(value).__name__} cannot be given to the program")
        return data, None

    def _made(self, data, beside):
        """What stands here for an object of the program's."""
        if not data:
            return beside
        number, *kind = unpack_handle(data)
        handle = self._handles.setdefault(number, Handle(self, number, *kind))
        return with_handle(beside, handle) if type(beside) is tuple else handle


def made_exception(base, name, arguments, text):
    """The exception that the program raised, of a built-in class or one derived from it here."""
    if base not in EXCEPTIONS or type(name) is not str or type(text) is not str:
        raise CodecError("no exception")
    kind = EXCEPTIONS[base]
    if name != base and name.isidentifier():  # reasons are counted by it, and shown
        kind = type(name, (kind,), {"__str__": lambda _: text, "__module__": NAME})
    try:
        return kind(text) if arguments is None else kind(*arguments)
    except Exception:  # it wants other arguments
        return Exception(text)

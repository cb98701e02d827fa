"""What runs inside the sandbox: confines itself, then runs one program. Never imported.

:mod:`t3d.sandbox.process` sends this file's code and then a request (see ``Request`` there) to a
bare interpreter, both by ``marshal`` through standard input. Before the program has its first word, this
code says ``ready``. Then every stage that ends well sends a receipt of its own, and the first that fails says
why. This file uses as little of the standard library as it can, since it starts for every program.

A program could look for the receipts of later stages. They are held, with the source of those stages, by a
chain of C iterators that no variable names, and while a stage runs no Python code of this file does either:
frames, closures and module contents lead nowhere, and :func:`refuse_inspection` keeps the garbage collector
from telling. A receipt that has been sent is worth nothing more.
"""

import _sitebuiltins
import builtins
import ctypes
import itertools
import marshal
import operator
import os
import resource
import struct
import sys

MAX_DETAIL_LENGTH = 200
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
SIGKILL = 9

write, leave = os.write, os._exit


def main(request):
    """Confine this process, then run the program of the request; does not return."""
    report = make_report(request["report_to"], request["mark"])
    for path in request["packages"]:
        sys.path.append(path)
    add_site_builtins()
    confine(request)
    sys.argv = ["program.py"]
    run_stages(request, report)


def make_report(descriptor, mark):
    """The function that tells the parent that the runner is ready, or why a stage failed."""

    def report(status, detail=""):
        text = detail.encode("ascii", "backslashreplace")[:MAX_DETAIL_LENGTH].replace(b"\n", b" ")
        write(descriptor, b"%s %s %s\n" % (mark, status.encode(), text))

    return report


def add_site_builtins():
    """The names that the module ``site``, which is not run here, gives to programs."""
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D")
    builtins.help = _sitebuiltins._Helper()


# ---- walls ----


def confine(request):
    """Put up the walls that the request asks for, in the order in which one does not prevent the next."""
    ruleset = None
    if request["seccomp"] is not None:
        libc = ctypes.CDLL(None, use_errno=True)
        if request["landlock"] is not None:
            ruleset = make_ruleset(libc, **request["landlock"])
    if request["uid"] is not None:
        if request["landlock"] is not None:
            reach_modules_by_descriptor()
        os.setgroups([])
        os.setresgid(request["uid"], request["uid"], request["uid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])
    if request["seccomp"] is not None:
        # Losing user id 0 cancels this signal, so it is asked for after that.
        call(libc.prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if request["parent"] is not None and os.getppid() != request["parent"]:
        leave(1)
    if ruleset is not None:
        call(libc.syscall, LANDLOCK_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)
    set_limits(request["limits"])
    if request["seccomp"] is not None:
        install_filter(libc, request["seccomp"])


def call(function, *arguments):
    """Call a C function with longs and pointers. Raises OSError if it returns a negative number."""
    given = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = function(*given)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def make_ruleset(libc, handled, rules):
    """A Landlock ruleset: ``handled`` are the struct's bytes, ``rules`` pairs of path and allowed access."""
    ruleset = call(libc.syscall, LANDLOCK_CREATE_RULESET, handled, len(handled), 0)
    for path, access in rules:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", access, descriptor)
        call(libc.syscall, LANDLOCK_ADD_RULE, ruleset, 1, rule, 0)
        os.close(descriptor)
    return ruleset


def reach_modules_by_descriptor():
    """Keep modules importable for a user who may not walk to them, such as into the home of root.

    Every folder of ``sys.path`` is opened now and named by its descriptor from here on.
    """
    names = {}
    for path in sys.path:
        if os.path.isdir(path):
            descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            names[path] = f"/proc/self/fd/{descriptor}"
    sys.path[:] = [names[path] for path in sys.path if path in names]
    for module in list(sys.modules.values()):
        folders = getattr(module, "__path__", None)
        if isinstance(folders, list):
            for path, name in names.items():
                folders[:] = [name + f[len(path) :] if f.startswith(path + "/") else f for f in folders]
    sys.path_importer_cache.clear()


def set_limits(limits):
    """Lower the resource limits: ``limits`` maps names such as ``AS`` to values."""
    for name, value in limits.items():
        kind = getattr(resource, "RLIMIT_" + name, None)
        if kind is None:
            continue
        hard = resource.getrlimit(kind)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (limit, limit))
        except ValueError:  # macOS refuses some; it has no sandbox, so this run is declared unsafe anyway
            if sys.platform == "linux":
                raise


def install_filter(libc, steps):
    """Hand a seccomp filter to the kernel: 8 bytes a step."""
    buffer = ctypes.create_string_buffer(steps, len(steps))
    program = struct.pack("@HP", len(steps) // 8, ctypes.addressof(buffer))
    call(libc.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)


# ---- programs ----


def run_stages(request, report):
    """Run stage after stage in one namespace, until one raises an exception."""
    namespace = new_module("program")
    refuse_inspection()
    report("ready")
    try:
        # Popped, so that only the iterator holds them; and a loop keeps its iterator to itself.
        for _ in receipts_of(request.pop("stages"), namespace, request.pop("receipts"), request["report_to"]):
            pass
        report("error", "StopIteration")  # which only ends a loop; after the last receipt nobody listens
    except BaseException as error:
        report(*describe(error))
    leave(0)


def receipts_of(sources, namespace, receipts, descriptor):
    """An iterator that runs the next stage and then sends its receipt, both in C."""
    outcomes = map(exec, iter(sources), itertools.repeat(namespace))
    # compress takes a receipt, then an outcome, and lets the receipt pass if exec returned (None).
    passed = itertools.compress(iter(receipts), map(operator.not_, outcomes))
    return map(write, itertools.repeat(descriptor), passed)


def refuse_inspection():
    """Refuse lists of all objects, and tracing, which can jump over lines of a test; for good."""

    def refuse(event, _):
        # The names stand here because a program cannot replace a constant.
        if event in {
            "gc.get_objects",
            "gc.get_referents",
            "gc.get_referrers",
            "sys.monitoring.register_callback",
            "sys.settrace",
        }:
            raise RuntimeError(f"{event} is refused to tested programs")

    sys.addaudithook(refuse)  # which alone has the function


def new_module(name):
    """The namespace of a fresh module, which also takes the place of ``__main__``."""
    module = type(sys)(name)
    module.__dict__["__builtins__"] = builtins  # else it would get this file's own copy
    sys.modules[name] = sys.modules["__main__"] = module
    return module.__dict__


def describe(error):
    """``wrong``, ``memory``, ``exit`` or ``error``, and the name and text of the exception."""
    kinds = ((AssertionError, "wrong"), (MemoryError, "memory"), (SystemExit, "exit"))
    status = next((status for kind, status in kinds if isinstance(error, kind)), "error")
    try:
        text = str(error)
    except BaseException:
        text = ""
    return status, type(error).__name__ + (": " + text if text else "")


if __name__ == "__main__":
    main(marshal.load(sys.stdin.buffer))

"""The walls around an interpreter, which it puts up for itself. Never imported: sent to where it is needed.

:func:`enter` gives up files and user, for good; :func:`seal` then ends what a later process would need, so a
server of processes enters once and each of its children is sealed. Calls C functions by ``_ctypes``, since to
import ``ctypes`` around it takes a quarter of the time in which an interpreter starts.
"""

import _ctypes
import os
import resource
import struct
import sys

MS_NOSUID, MS_NODEV, MS_REMOUNT = 2, 4, 32
CAPABILITY_VERSION = 0x20080522
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
SIGKILL = 9
ITSELF: tuple = (None, 0)
"""What dlopen takes for the process itself."""


class Long(_ctypes._SimpleCData):
    """A C long."""

    _type_ = "l"


class Int(_ctypes._SimpleCData):
    """A C int."""

    _type_ = "i"


class Function(_ctypes.CFuncPtr):
    """A C function that returns an int, or a long that fits one, and sets errno."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = Int


class Byte(_ctypes._SimpleCData):
    """A C char."""

    _type_ = "c"


def c_function(name):
    """A function of the C library, which this process holds."""
    return Function(_ctypes.dlsym(_ctypes.dlopen(*ITSELF), name))


def enter(request):
    """Give up files and user as requested, in the order in which one does not prevent the next."""
    if request["seccomp"] is None:
        return
    if request["max_files"] is not None:
        limit_files(request["max_files"])
    ruleset = None if request["landlock"] is None else make_ruleset(**request["landlock"])
    if request["uid"] is not None:
        if request["landlock"] is not None:
            reach_modules_by_descriptor()
        os.setgroups([])
        os.setresgid(request["uid"], request["uid"], request["uid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])
    call("capset", struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if ruleset is not None:
        call("syscall", LANDLOCK_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)


def seal(request, parent):
    """Limit this process, refuse it system calls, and end it when its parent ends, if that is ``parent``."""
    if request["seccomp"] is not None:
        # Losing user id 0 cancels this signal, so it is asked for after that.
        call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
    set_limits(request["limits"])
    if request["seccomp"] is not None:
        install_filter(request["seccomp"])


def call(name, *arguments):
    """Call a C function with longs and pointers. Raises OSError if it returns a negative number."""
    given = [Long(value) if isinstance(value, int) else value for value in arguments]
    result = c_function(name)(*given)
    if result < 0:
        number = _ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def limit_files(count):
    """Limit how many files the current folder, a file system of its own, may hold: they take memory."""
    options = b"nr_inodes=%d" % count
    flags = Long(MS_REMOUNT | MS_NOSUID | MS_NODEV)
    # Where AppArmor refuses it the number is not limited.
    c_function("mount")(b"tmpfs", os.getcwdb(), b"tmpfs", flags, options)


def make_ruleset(handled, rules):
    """A Landlock ruleset: ``handled`` are the struct's bytes, ``rules`` pairs of path and allowed access."""
    ruleset = call("syscall", LANDLOCK_CREATE_RULESET, handled, len(handled), 0)
    for path, access in rules:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", access, descriptor)
        call("syscall", LANDLOCK_ADD_RULE, ruleset, 1, rule, 0)
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


def install_filter(steps):
    """Hand a seccomp filter to the kernel: 8 bytes a step."""
    kind = type("Bytes", (_ctypes.Array,), {"_type_": Byte, "_length_": len(steps)})
    buffer = kind.from_buffer_copy(steps)
    program = struct.pack("@HP", len(steps) // 8, _ctypes.addressof(buffer))
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)

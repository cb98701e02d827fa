"""The process in which :mod:`t3d.mini.programs` runs model-written functions. Run by path, never imported.

It uses the standard library only, so that it starts in milliseconds. Argument: the CPU seconds that one
program may use. It writes ``ready`` once its limits hold; then each line of standard input is a request
``{"nonce", "source", "function_name", "inputs"}`` and gets one line back, ``{"nonce", "outputs", "reason"}``.
"""

import json
import os
import resource
import sys
import time

MAX_OUTPUT_DIGITS = 40
OUTPUT_BOUND = 10**MAX_OUTPUT_DIGITS
MAX_REASON_LENGTH = 120
# Open descriptors stay usable under RLIMIT_NOFILE 0; no new one can be made. RLIMIT_NPROC does not bind root.
LIMITS = {"AS": 256 * 2**20, "FSIZE": 0, "NOFILE": 0, "NPROC": 0, "CORE": 0}


def main() -> None:
    """Answer requests until standard input ends."""
    cpu_seconds = int(sys.argv[1])
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    _close_standard_streams()
    _apply_limits()
    replies.write(b"ready\n")
    replies.flush()
    for line in requests:
        request = json.loads(line)
        nonce = request.pop("nonce")
        _allow_cpu_seconds(cpu_seconds)
        outputs, reason = run(**request)
        reply = {"nonce": nonce, "outputs": outputs, "reason": reason}
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


def run(source: str, function_name: str, inputs: list[int]) -> tuple[list[int] | None, str]:
    """The function's outputs and ``ok``, or None and what went wrong."""
    namespace: dict = {"__builtins__": {}}
    try:
        exec(compile(source, "<program>", "exec", dont_inherit=True), namespace)
        function = namespace[function_name]
        outputs = [function(value) for value in inputs]
    except MemoryError:
        return None, "memory limit"
    except BaseException as error:  # SystemExit too: meant, and its name and text are the reason returned
        return None, f"error: {type(error).__name__}: {error}"[:MAX_REASON_LENGTH]
    finally:
        namespace.clear()  # the function and its globals refer to each other: do not wait for the collector
    for output in outputs:
        if type(output) is not int:  # bool is refused too
            return None, f"error: output of type {type(output).__name__}, not int"
        if not -OUTPUT_BOUND < output < OUTPUT_BOUND:
            return None, f"error: output of more than {MAX_OUTPUT_DIGITS} digits"
    return outputs, "ok"


def _close_standard_streams() -> None:
    """Point descriptors 0, 1 and 2 at the null device, so that nothing printed reaches the parent."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _apply_limits() -> None:
    for name, value in LIMITS.items():
        kind = f"RLIMIT_{name}"
        if not hasattr(resource, kind):
            continue
        _, hard = resource.getrlimit(getattr(resource, kind))
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(getattr(resource, kind), (limit, limit))
        except ValueError:  # macOS has RLIMIT_AS but refuses values below what is mapped already
            continue


def _allow_cpu_seconds(seconds: int) -> None:
    """End this process if it uses that much CPU time from now on: for when the parent is no longer there."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, hard))


if __name__ == "__main__":
    main()

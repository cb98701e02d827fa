"""Workers on Ray that make the chunks of one output: actors, each with a model of its own.

A chunk is made as by a run of its own with ``--shard I/N``, where N is the number of chunks: under a lock,
into the folder that all share, under the name it always has. So it does not matter which worker makes it, how
often, or whether an earlier run's lie there, and Ray sends a number. Who finds all makes the output.
"""

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar, cast

import ray
from ray.exceptions import RayActorError, RayTaskError

from t3d.errors import InputError
from t3d.scale.alike import Alike
from t3d.scale.chunked import LOCAL, ChunkedWork, Made, Workers
from t3d.scale.room import check_room
from t3d.scale.worker import Hello, OtherWorkError, Worker
from t3d.work.failures import TooManyErrors
from t3d.work.lock import InUseError
from t3d.work.progress import Progress
from t3d.work.shards import Shard

T = TypeVar("T")
OBJECT_STORE_BYTES = 80 * 2**20
"""Of such a cluster, which sends numbers; Ray takes no less than 75 MiB."""
LOCAL_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""Of such a cluster: nothing is reported to anyone, and its workers have the priority of the command."""
NUM_RETRIES = 3
"""How often a worker that dies is started again, and a chunk that kills its worker is tried again."""
MAX_FAILED = 8
"""Chunks that may fail; then no other is begun."""
SECONDS_WITHOUT_WORKERS = 60.0
"""After so many without a worker the cluster's resources are told."""
SECONDS_TO_GROW = 300.0
"""So long a cluster none of whose machines has room for a worker is given to gain one."""
SECONDS_TO_SAY = 5.0
"""So long those that made the last chunks beside the worker that found all are given to say so."""
MAX_ASKED = 20
"""How often, a second apart, workers are asked for the result of chunks that are all made."""

_logger = logging.getLogger(__name__)


def make_on_ray(
    prepare: Callable[[], ChunkedWork[T]],
    workers: Workers,
    label: str,
    told: Callable[[], Mapping[str, Any]] | None = None,
) -> Made[T]:
    """The result of work that every worker prepares for itself in the folder where this process runs.

    Prints the work's notes. A chunk that fails does not stop the others, which are kept; a worker that dies
    is replaced. One that would make something else (packages, weights) is left out: than what this machine
    says of the plan (``told``, as :class:`~t3d.scale.alike.Alike` asks for it), or than the first worker.

    Raises InputError where there is no such cluster or it has no room for a worker, for input that the
    workers refuse, and where all are left out; TooManyErrors beyond the work's own bound; RuntimeError if
    chunks failed otherwise.
    """
    started = time.perf_counter()
    with _connected(workers), _Run(prepare, workers, label, Alike(told), started) as run:
        return run.made()


@contextmanager
def _connected(workers: Workers) -> Generator[None]:
    """Inside, this process is a driver; of the cluster that it is one of already, or of the given one."""
    if ray.is_initialized():
        yield
        return
    how: dict[str, Any] = {"address": workers.address}
    if workers.address == LOCAL:
        for name, value in LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        how |= {"num_cpus": workers.num_workers * workers.num_cpus, "include_dashboard": False}
        how["object_store_memory"] = OBJECT_STORE_BYTES
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**how, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # a bare one where its processes do not start in time
        problem = f"no Ray cluster ({str(error).partition(chr(10))[0]})"
        fix = "start one (ray start --head), give its HOST:PORT, or leave the flag out"
        raise InputError("address", workers.address, problem, fix) from error
    if threading.current_thread() is threading.main_thread():  # Ray's own ends it, whatever is open
        signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        ray.shutdown()


class _Run(Generic[T]):
    """One call: which worker does what, which chunks are left, which failed."""

    def __init__(
        self,
        prepare: Callable[[], ChunkedWork[T]],
        workers: Workers,
        label: str,
        alike: Alike,
        started: float,
    ) -> None:
        self._started, self._workers, self._label, self._open = started, workers, label, ExitStack()
        self._alike, self._left_out = alike, list[str]()
        self._arguments, self._num_gpus = (prepare, Path.cwd()), self._gpus()
        self._calls: dict[Any, tuple[Any, Shard | None]] = {}
        self._todo: deque[Shard] = deque()
        self._progress: Progress | None = None
        self._seconds_to_start, self._num_new = 0.0, 0
        self._failures: list[tuple[Shard | None, Exception]] = []
        self._made, self._waiting = set[Shard](), set[Shard]()
        self._num_asked = 0
        self._result: T | None = None

    def __enter__(self) -> "_Run[T]":
        check_room(self._workers, self._num_gpus, may_grow=True)
        for _ in range(self._workers.num_workers):
            self._start()
        return self

    def __exit__(self, *error: Any) -> None:
        for actor, _ in self._calls.values():
            ray.kill(actor)
        self._open.__exit__(*error)

    def made(self) -> Made[T]:
        """Run to the end, without waiting for workers that have nothing left to do."""
        self._alike.ask()
        while self._calls and self._result is None:
            done, _ = ray.wait(list(self._calls), timeout=SECONDS_WITHOUT_WORKERS)
            for call in done:
                self._answered(call, *self._calls.pop(call))
            if not done and self._alike.first is None:
                may_grow = time.perf_counter() - self._started < SECONDS_TO_GROW
                check_room(self._workers, self._num_gpus, may_grow=may_grow)
                asked = {"CPU": self._workers.num_cpus, "GPU": self._num_gpus}
                _logger.warning("no worker yet: each asks for %s of %s", asked, ray.cluster_resources())
        if self._result is None:
            self._fail()
        self._count_last()
        seconds = time.perf_counter() - self._started - self._seconds_to_start
        return Made(self._result, self._num_new, self._seconds_to_start, seconds, len(self._left_out))

    def _gpus(self) -> float:
        """Of each worker."""
        has_any, wanted = ray.cluster_resources().get("GPU", 0) > 0, self._workers.gpus_per_worker
        return self._workers.tensor_parallel * (float(has_any) if wanted is None else wanted)

    def _start(self) -> None:
        actor: Any = (
            ray.remote(Worker)
            .options(
                num_cpus=self._workers.num_cpus,
                num_gpus=self._num_gpus,
                max_restarts=NUM_RETRIES,
                max_task_retries=NUM_RETRIES,
            )
            .remote(*self._arguments)
        )
        self._calls[actor.hello.remote()] = actor, None

    def _answered(self, call: Any, actor: Any, shard: Shard | None) -> None:
        try:
            answer = ray.get(call)
        except (RayTaskError, RayActorError) as error:
            self._erred(error, actor, shard)
            return
        if shard is not None:
            self._take(shard, *answer)
        elif refusal := self._alike.refusal(answer):
            self._leave_out(actor, refusal)
            return
        elif answer is self._alike.first:
            self._begin(answer)
        self._give(actor)

    def _erred(self, error: RayTaskError | RayActorError, actor: Any, shard: Shard | None) -> None:
        """Raises what ends the run: too many errors, and input that every worker would refuse."""
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, TooManyErrors):
            raise cause from None  # the bound is that of the whole run
        if shard is None and isinstance(cause, InputError):
            if self._alike.first is None:
                raise cause
            self._leave_out(actor, str(cause))  # another one took the same
        elif shard is not None and isinstance(cause, InUseError):
            self._later(shard, cause)
            self._give(actor)
        elif shard is not None and isinstance(cause, OtherWorkError):
            if len(self._failures) < MAX_FAILED:
                self._todo.appendleft(shard)
            self._leave_out(actor, str(cause))
            if self._todo and not self._calls:
                self._start()  # all others have ended, since nothing was left
        else:
            self._failed(error, shard)
            is_dead = isinstance(error, RayActorError)
            if is_dead and shard is not None and self._todo:
                self._start()  # a worker that died before it was ready is not: it would die again
            elif shard is not None and not is_dead:
                self._give(actor)
            elif not is_dead:
                ray.kill(actor)  # others may wait for its place

    def _leave_out(self, actor: Any, refusal: str) -> None:
        """End a worker that would make something else, or nothing; no other one is started for it."""
        self._left_out.append(refusal)
        _logger.warning("a worker is left out: %s", refusal)
        ray.kill(actor)

    def _begin(self, hello: Hello) -> None:
        """What there is to do, as the first worker says."""
        self._seconds_to_start = time.perf_counter() - self._started
        self._todo.extend(Shard(number, len(hello.sizes)) for number in range(1, len(hello.sizes) + 1))
        for note in hello.notes:
            print(note)
        label = f"{self._label}, {self._workers.num_workers} workers"
        self._progress = self._open.enter_context(Progress(label, sum(hello.sizes)))

    def _take(self, shard: Shard, was_made: bool, result: T | None) -> None:
        assert self._alike.first is not None and self._progress is not None, "it has greeted"
        size = self._alike.first.sizes[shard.number - 1] if shard not in self._made else 0
        self._made.add(shard)
        if was_made:
            self._progress.skip(size)
        else:
            self._progress.advance(size)
            self._num_new += size
        if result is not None:
            self._result = result
            self._todo.clear()  # the output is there, and with it all chunks

    def _count_last(self) -> None:
        """Chunks that were made while another worker found that all were, and not told of yet."""
        calls = [call for call, (_, shard) in self._calls.items() if shard not in {None, *self._made}]
        done, _ = ray.wait(calls, num_returns=len(calls), timeout=SECONDS_TO_SAY) if calls else ([], [])
        for call in done:
            _, shard = self._calls[call]
            with suppress(RayTaskError, RayActorError):  # the output is there
                self._take(cast(Shard, shard), *ray.get(call))

    def _later(self, shard: Shard, error: InUseError) -> None:
        """Put a chunk that another run holds behind all others, unless no other is begun any more."""
        if shard not in self._waiting:
            _logger.warning("chunk %s waits: %s", shard, error.problem)
        self._waiting.add(shard)
        if len(self._failures) < MAX_FAILED:
            self._todo.append(shard)

    def _ask_again(self) -> None:
        """Another run may have been in the folder when the last chunk was made, and may make the output."""
        assert self._made, "a worker was given all chunks"
        if self._num_asked == MAX_ASKED:
            problem = "all chunks are made, but another run uses them, or has removed some"
            raise InputError("ray", True, problem, "wait for it to end, then give the same command again")
        self._num_asked += 1
        time.sleep(1)
        self._todo.append(min(self._made, key=lambda shard: shard.number))

    def _give(self, actor: Any) -> None:
        """The next chunk for a worker, if one is left; else it ends."""
        if self._result is None and not (self._todo or self._calls or self._failures):
            self._ask_again()
        if self._todo:
            shard = self._todo.popleft()
            assert self._alike.first is not None, "it said what there is to do"
            self._calls[actor.make.remote(shard, self._alike.first.plan)] = actor, shard
        else:
            ray.kill(actor)

    def _failed(self, error: Exception, shard: Shard | None) -> None:
        self._failures.append((shard, error))
        what = "a worker was lost" if shard is None else f"chunk {shard} failed"
        _logger.warning("%s: %s", what, error)
        if len(self._failures) >= MAX_FAILED:
            self._todo.clear()

    def _fail(self) -> NoReturn:
        """Say which chunks failed, and why the first did. Workers that were lost do no harm by themselves."""
        if not self._failures:
            assert self._left_out, "the last of all chunks gives the result"
            problem = f"no worker is left: {self._left_out[0]}"
            fix = "give all machines the same packages and the same files"
            raise InputError("num_workers", self._workers.num_workers, problem, fix)
        failed = [shard for shard, _ in self._failures if shard is not None]
        _, first = next((pair for pair in self._failures if pair[0] is not None), self._failures[0])
        named = f"chunks {', '.join(map(str, failed))} failed" if failed else "no worker is left"
        rest = "the others are kept, and the same command makes what is missing"
        if isinstance(first, RayTaskError) and isinstance(first.cause, InputError):
            cause = first.cause
            raise InputError(cause.field, cause.value, f"{cause.problem} ({named}; {rest})", cause.fix)
        raise RuntimeError(f"{named}; {rest}") from first

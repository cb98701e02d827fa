"""A worker of several processes that share its model: itself, which leads, and others, which it starts.

It alone is an actor of Ray, has files, locks and failures, and answers. The others are told each call of
:meth:`t3d.decoding.llm.LLM.decode` and make it, too (:mod:`t3d.decoding.followed`). If one of them ends, or
one raises where another goes on, nobody could finish a forward: the worker ends itself, which is handled as
any worker's death, and with it end the others.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Thread, Timer
from typing import Any, NoReturn, cast

import torch

from t3d.decoding.followed import Outcome, lead
from t3d.errors import InputError
from t3d.models.loading import LoadedModel

HOST = "127.0.0.1"
"""Where they find each other: they are on one machine."""
SECONDS_TO_AGREE = 60.0
"""So much later than another one may a process end a call, or find the same error."""


def load_shared(load: Callable[[], LoadedModel], num_processes: int, num_threads: int) -> LoadedModel:
    """This process's share of a model, by a ``load`` that shares it as under torchrun; started processes have
    the others, and follow it. Each of all computes with ``num_threads``.

    Raises InputError as ``load`` does, and where there are too few devices; RuntimeError where another
    process cannot load its share.
    """
    _check_devices(num_processes)
    torch.set_num_threads(num_threads)
    store = _store()
    shared = {
        **_gloo_interface(),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # as under torchrun, the store is there already
    }
    of_others = {"OMP_NUM_THREADS": str(num_threads), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    others = [_started(shared | of_others | _numbered(rank)) for rank in range(1, num_processes)]
    followers = _Processes(others, store)
    try:
        followers.tell(load)
        with _environment(shared | _numbered(0)):
            loaded = load()
        followers.check_loaded()
    except BaseException as error:
        followers.end()
        if not isinstance(error, InputError) or error.field != "tp_plan":
            raise
        raise InputError("tensor_parallel", num_processes, error.problem, error.fix) from error
    lead(loaded.model, followers)
    return loaded


class _Processes:
    """Those that follow this one. A thread listens to them, as this one may wait for them in a forward."""

    def __init__(self, started: Sequence[tuple[subprocess.Popen[bytes], Connection]], store: Any) -> None:
        self._processes = [process for process, _ in started]
        self._connections = [connection for _, connection in started]
        self._store = store  # it ends with its last reference
        self._outcomes, self._late = SimpleQueue[Outcome](), list[Timer]()
        self._is_ended = False
        Thread(target=self._listen, daemon=True).start()

    def tell(self, what: Any) -> None:
        """Send it to all."""
        try:
            for connection in self._connections:
                connection.send(what)
        except OSError:
            self._lose("one is gone")

    def check_loaded(self) -> None:
        """Wait until all have loaded. Raises RuntimeError where one cannot."""
        for outcome in self._told():
            if outcome.error:
                raise RuntimeError(f"a process that shares the model cannot load it: {outcome.error}")

    def agree(self, outcome: Outcome) -> None:
        """Wait until all have told theirs; does not return where one has failed otherwise, or does not come.

        Raises RuntimeError where they have decoded something else.
        """
        self._allow(SECONDS_TO_AGREE, "one has not ended its call")
        found = self._told()
        if any(other.error != outcome.error for other in found):
            self._lose(f"here it was {outcome.error!r}, there {[other.error for other in found]}")
        if any(other.digest != outcome.digest for other in found):
            raise RuntimeError("processes that share a model have decoded something else")

    def _told(self) -> list[Outcome]:
        found = [self._outcomes.get() for _ in self._connections]
        self._wait_no_more()
        return found

    def _wait_no_more(self) -> None:
        for timer in self._late:
            timer.cancel()
        self._late.clear()

    def end(self) -> None:
        """End them."""
        self._is_ended = True
        self._wait_no_more()
        for process in self._processes:
            process.kill()
            process.wait()

    def _listen(self) -> None:
        while not self._is_ended:
            for ready in wait(self._connections):
                try:
                    outcome = cast(Connection, ready).recv()
                except (EOFError, OSError):
                    if self._is_ended:
                        return
                    self._lose("one has ended")
                if outcome.error:  # this process finds the same at once, or would wait for ever
                    self._allow(SECONDS_TO_AGREE, f"one has failed: {outcome.error}")
                self._outcomes.put(outcome)

    def _allow(self, seconds: float, reason: str) -> None:
        timer = Timer(seconds, self._lose, [reason])
        timer.daemon = True
        self._late.append(timer)
        timer.start()

    def _lose(self, reason: str) -> NoReturn:
        """End this process, which may be in a forward that nobody will finish."""
        print(f"the processes that share a model have parted: {reason}", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        raise SystemExit(1)


def _started(environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], Connection]:
    """Another process, which imports what this one can."""
    own, other = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "t3d.scale.follower", str(other.fileno())],
        stdin=subprocess.DEVNULL,
        pass_fds=(other.fileno(),),
        env={**os.environ, **environment},
    )
    other.close()
    return process, own


def _store() -> torch.distributed.TCPStore:
    """Where they find each other. By itself PyTorch would listen to the whole network."""
    with socket.create_server((HOST, 0)) as listening:
        port, own = listening.getsockname()[1], listening.detach()
    how: dict[str, Any] = {"is_master": True, "wait_for_workers": False, "master_listen_fd": own}
    return torch.distributed.TCPStore(HOST, port, **how)


def _gloo_interface() -> dict[str, str]:
    """That gloo listens to this machine alone, unless the user has said another one."""
    own = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    return {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", own[0])} if own else {}


def _numbered(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


@contextmanager
def _environment(values: Mapping[str, str]) -> Generator[None]:
    """Inside, this process looks like one of torchrun, which elsewhere would mean a shard of its own."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _check_devices(num_processes: int) -> None:
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or (count := torch.accelerator.device_count()) >= num_processes:
        return
    problem = f"each process needs a {accelerator.type} device, and this worker has {count}"
    fix = "use fewer, or --gpus-per-worker 1; on CPUs, a PyTorch built for them alone"
    raise InputError("tensor_parallel", num_processes, problem, fix)

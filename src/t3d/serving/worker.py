"""The one thread that decodes for all requests: those that come join the batch that is running."""

import asyncio
import threading
import traceback
from collections.abc import Iterable, Sequence

from t3d.decoding.completion import BlockUpdate, Completion, DecodingError
from t3d.decoding.jobs import Arrivals, Job
from t3d.decoding.llm import LLM

MAX_WAITING = 512
"""Updates that a request may have in its queue before drafts are left out: the next ones tell more."""


class Worker:
    """Decodes jobs and puts their updates into queues of an event loop."""

    def __init__(self, llm: LLM) -> None:
        self._llm, self._arrivals = llm, Arrivals()
        self._guard = threading.Lock()
        self._asking: dict[str, tuple[Job, asyncio.AbstractEventLoop, asyncio.Queue[BlockUpdate]]] = {}
        self._thread = threading.Thread(target=self._run, name="t3d-engine", daemon=True)

    def start(self) -> None:
        """Begin to decode."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it decodes what is submitted."""
        return self._thread.is_alive()

    @property
    def num_open(self) -> int:
        """Jobs that are decoded or wait."""
        return len(self._asking)

    def submit(self, jobs: Sequence[Job], queue: "asyncio.Queue[BlockUpdate]") -> None:
        """Decode these; their updates go into a queue of the running loop, the last with a completion."""
        loop = asyncio.get_running_loop()
        with self._guard:
            for job in jobs:
                self._asking[job.request.id] = (job, loop, queue)
        if not (self.is_alive and self._arrivals.add(jobs)):
            self._fail([job.request.id for job in jobs], "the server is stopping")

    def cancel(self, ids: Iterable[str]) -> None:
        """End these; nothing is told of them any more."""
        ids = list(ids)
        with self._guard:
            for name in ids:
                self._asking.pop(name, None)
        self._arrivals.cancel(ids)

    def stop(self) -> None:
        """End all that is open, and the thread with it."""
        self._arrivals.close()
        self._arrivals.cancel(list(self._asking))
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._arrivals.is_over:
                try:
                    for update in self._llm.serve(self._arrivals):
                        self._tell(update)
                except DecodingError as error:  # a forward failed: those that come later get new slots
                    for name, problem in error.problems.items():
                        self._fail([name], problem)
                except Exception as error:
                    open_ones = list(self._asking)
                    if not open_ones:
                        raise
                    traceback.print_exc()
                    self._arrivals.cancel(open_ones)
                    self._fail(open_ones, f"the engine failed: {type(error).__name__}")
        finally:
            self._arrivals.close()
            self._fail(list(self._asking), "the engine has stopped")

    def _tell(self, update: BlockUpdate) -> None:
        with self._guard:
            asking = self._asking.get(update.id)
            if update.completion is not None:
                self._asking.pop(update.id, None)
        if asking is not None:
            _, loop, queue = asking
            loop.call_soon_threadsafe(_put, queue, update)

    def _fail(self, ids: Iterable[str], problem: str) -> None:
        for name in ids:
            asking = self._asking.get(name)
            if asking is not None:
                job = asking[0]
                failed = Completion.of_failure(job.request, job.params, -1, problem)
                self._tell(BlockUpdate.of_end(failed))


def _put(queue: "asyncio.Queue[BlockUpdate]", update: BlockUpdate) -> None:
    if update.is_committed or queue.qsize() < MAX_WAITING:
        queue.put_nowait(update)

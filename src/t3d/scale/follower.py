"""A process that a worker starts to share its model: it decodes what it is told, and has no files.

It ends with the worker, in whatever it is doing: the worker's end closes the connection.
"""

import os
import sys
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any, cast

from t3d.decoding.followed import Outcome


def main() -> None:
    """Say how loading went, then how each call did."""
    connection, told = Connection(int(sys.argv[1])), SimpleQueue[Any]()
    Thread(target=_receive, args=(connection, told), daemon=True).start()
    load, loaded, outcome = told.get(), cast(Any, None), Outcome()
    try:
        loaded = load()
    except Exception as error:
        traceback.print_exc()
        outcome = Outcome(f"{type(error).__name__}: {error}")
    connection.send(outcome)
    while True:
        call = told.get()  # for ever, where loading failed: the worker ends it
        connection.send(call.outcome(loaded.model))


def _receive(connection: Connection, told: "SimpleQueue[Any]") -> None:
    """In a thread of its own, since a forward may wait for a worker that is gone."""
    try:
        while True:
            told.put(connection.recv())
    except EOFError:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main()

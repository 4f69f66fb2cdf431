"""The inside of a worker process: `python -m toolchain.workers.serve DESCRIPTOR` of its connection.

It ends when the other end of the connection is closed, even while it computes.
"""

from __future__ import annotations

import os
import pickle
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any


def main() -> None:
    """Compute parts until the process that sends them ends."""
    connection = Connection(int(sys.argv[1]))
    received: SimpleQueue[tuple[bytes | None, Any]] = SimpleQueue()
    Thread(target=_receive, args=(connection, received), daemon=True).start()
    compute: Any = None
    while True:
        work, part = received.get()
        try:
            compute = compute if work is None else pickle.loads(work)
            answer = pickle.dumps((compute(part), None))
        except Exception as error:  # noqa: BLE001 - raised where the result is wanted
            answer = pickle.dumps((None, error))
        connection.send_bytes(answer)


def _receive(connection: Connection, received: SimpleQueue[Any]) -> None:
    try:
        while True:
            received.put(connection.recv())
    except EOFError:
        os._exit(0)


if __name__ == "__main__":
    main()

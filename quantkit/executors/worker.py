"""The process of a worker on this machine: it reads shards from its standard input, and writes outcomes to its output.

It ends with the process that started it, however that ended: the pipe is closed then, and a thread waits for that.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
import warnings
from typing import Any, BinaryIO

from quantkit.executors.task import ShardServer
from quantkit.sharding import Shard

READY = "ready"


def serve() -> None:
    """Run shards until the pipe is closed. What code of the user prints goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the starting process decides
    warnings.simplefilter("ignore")  # the starting process has given them
    outcomes = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests = sys.stdin.buffer
    task, threads = pickle.load(requests)
    shards: queue.SimpleQueue[Shard] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(requests, shards), daemon=True).start()
    server = ShardServer(task, threads)
    send(outcomes, READY)
    while True:
        send(outcomes, server.run(shards.get()))


def listen(requests: BinaryIO, shards: queue.SimpleQueue[Shard]) -> None:
    """Take in shards, and leave at once when the starting process is gone."""
    try:
        while True:
            shards.put(pickle.load(requests))
    finally:
        os._exit(0)


def send(outcomes: BinaryIO, outcome: Any) -> None:
    """Write an outcome."""
    pickle.dump(outcome, outcomes)
    outcomes.flush()

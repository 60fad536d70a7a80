"""The threads in which synchronous services run their handlers, and synchronous clients map."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

log = logging.getLogger(__name__)

_Job = tuple[Callable[..., object], tuple[Any, ...]]


class Threads:
    """Runs functions in at most ``threads`` threads, started as they are needed, until ``stop``. At most
    ``room`` functions run or wait. Threads that run do not keep the process from ending.

    The executor of the standard library makes a future for each, with a lock and a condition of its own; for
    a small request that takes longer than everything else.
    """

    def __init__(self, threads: int, name: str, room: float = math.inf):
        self._threads = threads
        self._room = room
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards what follows
        self._load = 0
        self._started = 0
        self._stopped = self._drop = False

    def submit(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Have it run; returns false when there is no room, or no more."""
        with self._lock:
            if self._stopped or self._load >= self._room:
                return False
            self._load += 1
            if self._load > self._started < self._threads:
                self._started += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
            self._jobs.put((function, arguments))
        return True

    def stop(self, *, drop: bool) -> None:
        """What runs goes on to its end; what waits is dropped, or has its turn yet."""
        with self._lock:
            self._stopped = True
            self._drop = drop
            for _ in range(self._started):
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._drop:
                continue
            function, arguments = job
            try:
                function(*arguments)
            except BaseException:
                log.exception("what ran in a thread raised")
            # Nothing is held while this waits for the next one.
            del job, function, arguments
            with self._lock:
                self._load -= 1

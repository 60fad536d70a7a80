"""The threads in which synchronous services run their handlers, and synchronous clients map."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

log = logging.getLogger(__name__)

_Job = tuple[Callable[..., object], tuple[Any, ...]]


class Threads:
    """Runs functions, at most ``threads`` at a time, until ``stop``. At most ``room`` functions run or wait.

    All that have the same ``name`` share their threads, which are started as they are needed and end with the
    last one that uses them: of many small jobs that come together a thread that is awake does most, whoever
    they are for. Threads that run do not keep the process from ending.

    The executor of the standard library makes a future for each, with a lock and a condition of its own; for
    a small request that takes longer than everything else.
    """

    def __init__(self, threads: int, name: str, room: float = math.inf):
        self._threads = threads
        self._room = room
        self._name = name
        # What follows is guarded by the lock.
        self._pool: _Pool | None = None  # with the first job
        self._waiting: deque[_Job] = deque()  # for one that runs to end
        self._load = self._running = 0
        self._stopped = self._drop = False

    def submit(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Have it run; returns false when there is no room, or no more."""
        with _Pool.lock:
            if self._stopped or self._load >= self._room:
                return False
            self._load += 1
            if self._running == self._threads:
                self._waiting.append((function, arguments))
                return True
            self._running += 1
            if self._pool is None:
                self._pool = _Pool.join(self._name)
            self._pool.run(self, function, arguments)
        return True

    def stop(self, *, drop: bool) -> None:
        """What runs goes on to its end; what waits is dropped, or has its turn yet."""
        with _Pool.lock:
            self._stopped = True
            self._drop = drop
            if self._pool is not None:
                self._pool.leave()
                self._pool = None

    def run(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        """Run it, and after it what has waited for that; called by a thread of the pool."""
        while True:
            if not self._drop:
                try:
                    function(*arguments)
                except BaseException:
                    log.exception("what ran in a thread raised")
            with _Pool.lock:
                self._load -= 1
                if not self._waiting:
                    self._running -= 1
                    return
                function, arguments = self._waiting.popleft()


class _Pool:
    """Threads that are shared by name. All but ``_work`` is called with the lock, which is one for all.

    Who comes to wait last is woken first, and at most one thread is on its way at a time: it wakes the next
    one if there is still something to do when it has come. So a thread that is awake does all of what is done
    sooner than another one could come, and jobs that take their time do not wait for each other.
    """

    lock = threading.Lock()
    _pools: ClassVar[dict[str, _Pool]] = {}

    def __init__(self, name: str):
        self._name = name
        self._users = 0
        self._jobs: deque[tuple[Threads, Callable[..., object], tuple[Any, ...]]] = deque()
        self._idle: list[threading.Lock] = []  # each is what its thread waits for
        self._started = 0
        self._coming = False  # a thread that was woken, or started

    @classmethod
    def join(cls, name: str) -> _Pool:
        pool = cls._pools.setdefault(name, cls(name))
        pool._users += 1
        return pool

    def leave(self) -> None:
        self._users -= 1
        if not self._users:
            del self._pools[self._name]
            while self._idle:
                self._idle.pop().release()

    def run(self, threads: Threads, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._jobs.append((threads, function, arguments))
        self._wake()

    def _wake(self) -> None:
        """Have a thread come for a job that waits, unless one does."""
        if self._coming or not self._jobs:
            return
        self._coming = True
        if self._idle:
            self._idle.pop().release()
        else:
            self._started += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()

    def _work(self) -> None:
        woken = threading.Lock()
        woken.acquire()
        came = True
        while True:
            with self.lock:
                if came:
                    self._coming = False
                if self._jobs:
                    threads, function, arguments = self._jobs.popleft()
                    came = False
                    self._wake()
                elif self._users:
                    self._idle.append(woken)
                    came = True
                else:
                    return
            if came:
                woken.acquire()
            else:
                threads.run(function, arguments)
                # Nothing is held while this waits for the next one.
                del threads, function, arguments

    @classmethod
    def after_fork(cls) -> None:
        # Threads do not survive a fork, and one of them may have held the lock.
        cls.lock = threading.Lock()
        cls._pools = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Pool.after_fork)

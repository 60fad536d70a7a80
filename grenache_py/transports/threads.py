"""The threads in which synchronous services run their handlers, and synchronous clients map."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, ClassVar, Protocol

log = logging.getLogger(__name__)


class Loop(Protocol):
    """What an event loop is used for here."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


_Job = tuple[Callable[..., object], tuple[Any, ...]]

# For so long the jobs that wait are left to who has just taken one; where that was in vain, not for so long.
_PATIENCE_S, _IMPATIENCE_S = 0.001, 1.0


class Threads:
    """Runs functions, at most ``threads`` at a time, until ``stop``. At most ``room`` functions run or wait.

    All that have the same ``name`` share their threads, which are started as they are needed and end with the
    last one that uses them: of many small jobs that come together a thread that is awake does most, whoever
    they are for. Threads that run do not keep the process from ending.

    The executor of the standard library makes a future for each, with a lock and a condition of its own; for
    a small request that takes longer than everything else.

    ``loop()`` is the event loop on which all is submitted, if there is one. Then nobody is woken before it
    has done what came together: the two would take the interpreter from each other at each step.
    """

    def __init__(
        self, threads: int, name: str, room: float = math.inf, loop: Callable[[], Loop] | None = None
    ):
        self._threads = threads
        self._room = room
        self._name = name
        self._loop = loop
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
                self._pool = _Pool.join(self._name, None if self._loop is None else self._loop())
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
    """Threads that are shared by name and loop. All but ``_work`` and the two looks is called with the lock,
    which is one for all.

    Who comes to wait last is woken first, and at most one thread is on its way at a time: it wakes the next
    one if there is still something to do when it has come. So a thread that is awake does all of what is done
    sooner than another one could come, and jobs that take their time do not wait for each other.

    Where a loop looks after the jobs, the next one is woken only when who is awake has not come for another
    job for a moment: as long as jobs are that quick, one thread does them all.
    """

    lock: ClassVar[threading.Lock] = threading.Lock()
    _pools: ClassVar[dict[tuple[str, Loop | None], _Pool]] = {}

    def __init__(self, name: str, loop: Loop | None):
        self._name = name
        self._loop = loop
        self._users = 0
        self._jobs: deque[tuple[Threads, Callable[..., object], tuple[Any, ...]]] = deque()
        self._idle: list[threading.Lock] = []  # each is what its thread waits for
        self._started = self._at_work = 0
        self._coming = False  # a thread that was woken, or started
        self._taken_at = 0.0  # when the last job was
        # Whether the loop is about to look, and whether it watches; when it may be patient again.
        self._looks = self._watches = False
        self._patient_at = 0.0

    @classmethod
    def join(cls, name: str, loop: Loop | None) -> _Pool:
        pool = cls._pools.setdefault((name, loop), cls(name, loop))
        pool._users += 1
        return pool

    def leave(self) -> None:
        self._users -= 1
        if not self._users:
            del self._pools[self._name, self._loop]
            while self._idle:
                self._idle.pop().release()

    def run(self, threads: Threads, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._jobs.append((threads, function, arguments))
        if self._loop is None:
            self._wake()
        elif not self._looks:
            self._looks = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """What the loop does about the jobs that came together."""
        with self.lock:
            self._looks = False
            now = monotonic()
            if not self._at_work or now - self._taken_at >= _PATIENCE_S or now < self._patient_at:
                self._wake()
            self._watch()

    def _look_again(self) -> None:
        """What it does about jobs that still wait."""
        with self.lock:
            self._watches = False
            now = monotonic()
            if self._jobs and not self._coming and now - self._taken_at >= _PATIENCE_S / 2:
                self._patient_at = now + _IMPATIENCE_S
                self._wake()
            self._watch()

    def _watch(self) -> None:
        if self._loop is not None and len(self._jobs) > self._coming and not self._watches:
            self._watches = True
            self._loop.call_later(_PATIENCE_S, self._look_again)

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
                    self._at_work += 1
                if self._jobs:
                    threads, function, arguments = self._jobs.popleft()
                    came = False
                    self._taken_at = monotonic()
                    if self._taken_at < self._patient_at or not (self._looks or self._watches):
                        self._wake()
                else:
                    self._at_work -= 1
                    if not self._users:
                        return
                    self._idle.append(woken)
                    came = True
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

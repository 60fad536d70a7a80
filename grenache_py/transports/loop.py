"""One event loop in a thread of its own, shared by all synchronous services of the process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakSet

from ..errors import ClosedError
from ..fastest_loop import new_event_loop

Result = TypeVar("Result")

# Tasks that do not take their cancellation for an end are left behind after this.
_END_S = 1.0


class LoopThread:
    """A running loop. ``borrow`` the shared one, and ``give_back`` it: it ends with its last borrower."""

    _lock = threading.Lock()
    _shared: LoopThread | None = None
    _borrowers = 0

    def __init__(self) -> None:
        self.loop = new_event_loop()
        self._thread = threading.Thread(target=self._run, name="grenache-loop", daemon=True)
        self._thread.start()

    @classmethod
    def borrow(cls) -> LoopThread:
        """The shared loop, started if need be."""
        with cls._lock:
            if cls._shared is None:
                cls._shared = cls()
            cls._borrowers += 1
            return cls._shared

    @classmethod
    def give_back(cls) -> None:
        """One borrower less; with the last one the thread ends. Not to be called on the loop."""
        with cls._lock:
            cls._borrowers -= 1
            if cls._borrowers:
                return
            shared, cls._shared = cls._shared, None
        assert shared is not None
        shared.loop.call_soon_threadsafe(shared.loop.stop)
        shared._thread.join()

    @classmethod
    def _after_fork(cls) -> None:
        # Threads do not survive a fork; the child starts its own loop.
        cls._lock = threading.Lock()
        cls._shared = None
        cls._borrowers = 0

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run ``coroutine`` on the loop; returns its result or raises its exception. Not to be called on the
        loop.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        finally:
            future.cancel()  # where Ctrl-C has ended the wait; else it is done

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            # Who waits for a task in another thread is told that it comes to nothing.
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self.loop.run_until_complete(asyncio.wait(tasks, timeout=_END_S))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


class LoopUser:
    """The shared loop in the hands of one object, from ``begin`` or the first ``borrow`` until ``end``.
    Thread-safe. In a process that was forked it has borrowed nothing.
    """

    def __init__(self) -> None:
        self._ended = False
        self._begin()
        _users.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None

    @property
    def thread(self) -> LoopThread | None:
        """The loop, while it is borrowed."""
        return self._thread

    def borrow(self) -> LoopThread:
        """The loop, borrowed if need be. Raises ``ClosedError`` after ``end``."""
        with self._lock:
            if self._ended:
                raise ClosedError("stopped before the call")
            if self._thread is None:
                self._thread = LoopThread.borrow()
            return self._thread

    def begin(self, first: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Borrow the loop and run ``first()`` on it; what that raises comes out, and nothing is borrowed."""
        thread = LoopThread.borrow()
        try:
            thread.run(first())
        except BaseException:
            LoopThread.give_back()
            raise
        with self._lock:
            self._thread = thread
            self._ended = False

    def end(self, last: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        """Run ``last()`` there, and give the loop back; returns whether it was borrowed at all."""
        with self._lock:
            self._ended = True
            thread, self._thread = self._thread, None
        if thread is None:
            return False
        try:
            thread.run(last())
        finally:
            LoopThread.give_back()
        return True


_users: WeakSet[LoopUser] = WeakSet()


def _after_fork() -> None:
    LoopThread._after_fork()
    for user in list(_users):
        user._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

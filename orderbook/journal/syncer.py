"""Makes a file durable while an event loop goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from . import disk
from .thread import JobThread

try:
    from caio import linux_uring as uring
except ImportError:  # it is for Linux only
    uring = None  # type: ignore[assignment]

Synced = Callable[[OSError | None], None]
"""Is told why a sync has failed, or None."""


class Syncer(Protocol):
    """Makes one file durable."""

    def start(self, then: Synced) -> None:
        """Have all that is written by now made durable; the loop calls ``then``, perhaps at once. Not while
        another one is under way. For the loop only."""

    def sync(self) -> None:
        """The same, blocking. Raises OSError."""

    def close(self) -> None:
        """Let go of the file; nothing may be under way. For the loop only."""


class UringSyncer:
    """By the kernel, over io_uring: no thread of ours has to wait for the interpreter, neither to begin nor
    to say that it is done.

    Raises OSError or SystemError where the kernel does not let us.
    """

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop):
        self._descriptor = descriptor
        self._loop = loop
        # Without a thread of the kernel that polls: it would take a processor for itself.
        self._ring: Any = uring.Context(max_requests=1, sqpoll=False)
        loop.add_reader(self._ring.fileno, self._completed)

    def start(self, then: Synced) -> None:
        sync: Any = uring.Operation.fdsync(self._descriptor)
        sync.set_callback(partial(_done, then))
        self._ring.submit(sync)
        try:
            self._ring.flush()
        except SystemError as error:  # the kernel has no memory for it; what it does later tells nobody
            sync.set_callback(int)
            then(OSError(str(error)))

    def sync(self) -> None:
        disk.sync_data(self._descriptor)

    def _completed(self) -> None:
        try:
            self._ring.poll()
        except BlockingIOError:
            pass
        self._ring.process_events()

    def close(self) -> None:
        self._loop.remove_reader(self._ring.fileno)
        os.close(self._descriptor)


def _done(then: Synced, result: int) -> None:
    then(None if result >= 0 else OSError(-result, os.strerror(-result)))


class ThreadSyncer:
    """By a thread, where there is no io_uring: on other systems, and in containers that forbid it."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop):
        self._descriptor = descriptor
        self._jobs = JobThread("journal sync", loop)

    def start(self, then: Synced) -> None:
        self._jobs.do(self._try_to_sync, then)

    def sync(self) -> None:
        disk.sync_data(self._descriptor)

    def _try_to_sync(self) -> OSError | None:
        try:
            self.sync()
        except OSError as error:
            return error
        return None

    def close(self) -> None:
        self._jobs.end()
        os.close(self._descriptor)


def best_syncer(descriptor: int, loop: asyncio.AbstractEventLoop) -> Syncer:
    """Of the file behind ``descriptor``, which it closes in the end."""
    if uring is not None:
        try:
            return UringSyncer(descriptor, loop)
        except (OSError, SystemError):
            pass
    return ThreadSyncer(descriptor, loop)

"""A thread that does one job at a time for an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class JobThread:
    """Used by the event loop only; a job must not raise.

    Attributes:
        busy: Whether a job is under way: then there may not be another.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop):
        self.busy = False
        self._loop = loop
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], Result], then: Callable[[Result], None]) -> None:
        """Have ``job`` done by the thread, and ``then`` called by the loop, with what it returned."""
        assert not self.busy, "one job at a time"
        self.busy = True
        self._jobs.put(lambda: self.tell(self._done, then, job()))

    def _done(self, then: Callable[[Result], None], result: Result) -> None:
        self.busy = False
        then(result)

    def tell(self, what: Callable[..., None], *args: Any) -> None:
        """Have the loop call ``what``; for jobs."""
        try:
            self._loop.call_soon_threadsafe(what, *args)
        except RuntimeError:
            pass  # the loop has ended; so has everybody who waited

    def end(self) -> None:
        """Returns when the job under way, if any, is done. Blocking: not for the loop itself."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

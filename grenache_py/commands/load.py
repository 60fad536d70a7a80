"""Load on a service: when calls begin, how they are timed, what is counted. Clock and calls are passed in."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from .. import limits
from ..errors import GrapeError, GrenacheError, PeerError, RemoteError
from .latency import Histogram, summary
from .status import ExitStatus, status_of

TIMER_S = 0.002
"""An event loop's timers may be this late; it is no lateness of the service."""


class Load:
    """Calls, at most ``concurrency`` at the same time, for ``duration_s`` or until ``count`` were begun.

    Without ``rate`` the next call begins when one has ended (a closed loop): a service that is slow is asked
    less. With it, calls are due at so many a second, whatever the service does (an open loop), and one that
    could not begin when it was due is timed from then: what its caller would have waited. Those that were
    due and never began count with the time they have waited. So a stall is seen by all the calls that it
    would have hit (the "coordinated omission" of closed loops leaves them out).
    """

    def __init__(
        self,
        call: Callable[[], Awaitable[Any]],
        *,
        concurrency: int,
        duration_s: float,
        count: int | None,
        rate: float | None,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ):
        self._call = call
        self.concurrency = concurrency
        self._duration_s = duration_s
        self._count = count
        self.rate = rate
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._sleep = sleep
        self._begun = 0
        self._started = 0.0
        #: from when a call was due, or began, to its answer
        self.latency = Histogram()
        #: from when it began
        self.service = Histogram()
        #: those that have ended, one way or another
        self.calls = 0
        #: those that were answered, be it with an error
        self.answered = 0
        self.errors: Counter[str] = Counter()
        self.statuses: Counter[ExitStatus] = Counter()
        self.first_failure: GrenacheError | None = None
        self.never_begun = 0
        self.elapsed_s = 0.0
        #: processor time of this process, as a share of ``elapsed_s``
        self.cpu_share = 0.0

    async def run(self) -> None:
        """Until all is done or this is cancelled; what was measured until then stands."""
        self._started = self._clock()
        cpu_started = self._cpu_clock()
        workers = [asyncio.ensure_future(self._work()) for _ in range(self.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            self.elapsed_s = self._clock() - self._started
            if self.elapsed_s:
                self.cpu_share = (self._cpu_clock() - cpu_started) / self.elapsed_s
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._count_never_begun()

    async def _work(self) -> None:
        while (due := self._next()) is not None:
            wait_s = due - self._clock()
            if wait_s > 0:
                await self._sleep(wait_s)
            began = self._clock()
            late = self.rate is not None and began - due > (TIMER_S if wait_s > 0 else 0)
            await self._once(due if late else began, began)

    def _next(self) -> float | None:
        """When the next call is due; ``None`` when there is none."""
        now = self._clock()
        if self._count is not None:
            if self._begun >= self._count:
                return None
        elif now >= self._started + self._duration_s:
            return None
        due = now if self.rate is None else self._started + self._begun / self.rate
        if self._count is None and due >= self._started + self._duration_s:
            return None
        self._begun += 1
        return due

    async def _once(self, due: float, began: float) -> None:
        failure: GrenacheError | None = None
        try:
            await self._call()
        except (PeerError, GrapeError) as error:
            failure = error
        ended = self._clock()
        self.calls += 1
        if failure is not None:
            self.first_failure = self.first_failure or failure
            known = failure.code in self.errors or len(self.errors) < limits.BENCH_CODES_MAX
            self.errors[failure.code if known else "others"] += 1
            self.statuses[status_of(failure)] += 1
        if failure is None or isinstance(failure, RemoteError):
            self.answered += 1
        elif not isinstance(failure, TimeoutError):
            return  # how fast a connection is refused says nothing about the service
        self.latency.add(ended - due)
        self.service.add(ended - began)

    def _count_never_begun(self) -> None:
        if self.rate is None or self._count is not None:
            return
        ended = min(self._clock(), self._started + self._duration_s)
        due = int((ended - self._started) * self.rate)
        self.never_begun = max(0, due - self._begun)
        if self.never_begun:
            # In at most a thousand steps, each with the wait of its middle.
            step = -(-self.never_begun // 1000)
            for first in range(self._begun, due, step):
                many = min(step, due - first)
                waited_s = self._clock() - (self._started + (first + many / 2) / self.rate)
                self.latency.add(max(0.0, waited_s), many)

    def as_object(self) -> dict[str, Any]:
        """For programs; times in seconds."""
        return {
            "concurrency": self.concurrency,
            "rate": self.rate,
            "elapsed_s": round(self.elapsed_s, 3),
            "calls": self.calls,
            "calls_per_s": round(self.calls / self.elapsed_s, 1) if self.elapsed_s else None,
            "answered": self.answered,
            "errors": dict(self.errors),
            "never_begun": self.never_begun,
            "cpu_share": round(self.cpu_share, 3),
            "latency": summary(self.latency),
            "service_time": summary(self.service) if self.rate is not None else None,
        }

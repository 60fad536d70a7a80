"""Calls of the synchronous flavour that are waited for together, on the thread that makes them.

A call is a generator: it yields its file descriptor when it waits for something to be read there, goes on
when there is, and returns its result or raises ``GrenacheError``. Thrown a ``TimeoutError`` it raises what
that means for it; closed, it gives up its connection.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

from ..errors import PeerError

ResultT = TypeVar("ResultT")
Steps = Generator[int, None, ResultT]
_Outcome: TypeAlias = "tuple[str, Any, PeerError | None]"

#: what waits for many; not on Windows
can_poll = hasattr(select, "poll")


def finish(steps: Steps[ResultT]) -> ResultT:
    """One call alone: what it reads may block until its own time is over."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: ResultT = end.value
            return result


def finish_all(calls: Iterable[tuple[str, Steps[Any]]], ends: float) -> Iterator[_Outcome]:
    """Calls with their names, until ``ends`` on the clock of ``time.monotonic``: name, result and error of
    each as it comes. All are begun first. What is no ``PeerError`` comes out, and the rest is given up.
    """
    left: dict[str, Steps[Any]] = {}
    waiting: dict[int, str] = {}
    poll: Any = None  # made for the first that waits

    def go_on(name: str, over: bool = False) -> _Outcome | None:
        nonlocal poll
        try:
            fd = left[name].throw(TimeoutError("timed out")) if over else next(left[name])
        except StopIteration as end:
            outcome: _Outcome = (name, end.value, None)
        except PeerError as error:
            outcome = (name, None, error)
        else:
            if fd not in waiting:
                poll = poll or select.poll()
                waiting[fd] = name
                poll.register(fd, select.POLLIN)
            return None
        del left[name]
        return outcome

    try:
        for name, steps in calls:
            left[name] = steps
            if outcome := go_on(name):
                yield outcome
        while left:
            ready = poll.poll(math.ceil(max(ends - time.monotonic(), 0) * 1000))
            for fd, _ in ready:
                if outcome := go_on(waiting[fd]):
                    poll.unregister(fd)
                    del waiting[fd]
                    yield outcome
            if not ready:
                for name in list(left):
                    if outcome := go_on(name, over=True):
                        yield outcome
    finally:
        for steps in left.values():
            steps.close()

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
Outcome: TypeAlias = "tuple[str, Any, PeerError | None]"

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


def finish_all(calls: Iterable[tuple[str, Steps[Any]]], ends: float) -> Iterator[Outcome]:
    """Calls with their names, until ``ends`` on the clock of ``time.monotonic``: name, result and error of
    each as it comes. What is no ``PeerError`` comes out, and the rest is given up.

    All are there before the first one is begun: requests that leave close together wake their peers less
    often.
    """
    left = dict(calls)
    waiting: dict[int, str] = {}
    poll = select.poll()
    try:
        for name, steps in list(left.items()):
            outcome = _go_on(name, steps)
            if isinstance(outcome, int):
                waiting[outcome] = name
                poll.register(outcome, select.POLLIN)
            else:
                del left[name]
                yield outcome
        while left:
            ready = poll.poll(math.ceil(max(ends - time.monotonic(), 0) * 1000))
            for fd, _ in ready:
                name = waiting[fd]
                outcome = _go_on(name, left[name])
                if not isinstance(outcome, int):
                    poll.unregister(fd)
                    del waiting[fd], left[name]
                    yield outcome
            if not ready:
                for name, steps in list(left.items()):
                    outcome = _go_on(name, steps, over=True)
                    if not isinstance(outcome, int):
                        del left[name]
                        yield outcome
    finally:
        for steps in left.values():
            steps.close()


def _go_on(name: str, steps: Steps[Any], over: bool = False) -> Outcome | int:
    """What has come of a call; while nothing has, the file descriptor that it waits for."""
    try:
        return steps.throw(TimeoutError("timed out")) if over else next(steps)
    except StopIteration as end:
        return name, end.value, None
    except PeerError as error:
        return name, None, error

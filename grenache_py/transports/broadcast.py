"""Calls of the asyncio flavour that are made at once, and what comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import Any, Protocol, cast

from ..discovery import MapResult
from ..errors import PeerError


class Waiting(Protocol):
    """Who is told what comes of a call; a future is one."""

    def done(self) -> bool:
        """Whether it has been told, or does not want to know any more."""

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, error: BaseException, /) -> None: ...


class Call:
    """One of them. It takes what comes at once, where a future would take another turn of the loop."""

    def __init__(self, broadcast: Broadcast, started: float, destination: str):
        self._broadcast = broadcast
        self._started = started
        self.destination = destination
        self.result: Any = None
        self.error: BaseException | None = None
        #: from its start to this outcome
        self.elapsed_s = 0.0
        self._done = False
        self._future: asyncio.Future[Any] | None = None

    def done(self) -> bool:
        """See ``Waiting``."""
        return self._done

    def set_result(self, result: Any) -> None:
        """See ``Waiting``."""
        self.result = result
        self._end()

    def set_exception(self, error: BaseException) -> None:
        """See ``Waiting``."""
        self.error = error
        self._end()

    def follow(self, future: asyncio.Future[Any]) -> None:
        """Take what comes of the future."""
        self._future = future
        future.add_done_callback(self._take)

    def give_up(self) -> None:
        """Nobody wants to know any more."""
        self._done = True
        if self._future is not None:
            self._future.cancel()

    def _take(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self.error = asyncio.CancelledError()
        else:
            self.error = future.exception()
        if self._done:
            return
        if self.error is None:
            self.result = future.result()
        self._end()

    def _end(self) -> None:
        self._done = True
        self.elapsed_s = monotonic() - self._started
        self._broadcast.take(self)

    def outcome(self) -> MapResult:
        """Of a call that has ended, with a result or a ``PeerError``."""
        return MapResult(self.destination, self.result, cast("PeerError | None", self.error), self.elapsed_s)


class Broadcast:
    """Calls under way."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        #: in the order in which they did
        self.ended: list[Call] = []
        #: of these, those with an error
        self.failed: list[Call] = []
        #: how many somebody waits for
        self.wanted = 0
        self._waiter: asyncio.Future[None] | None = None

    def begin(self, destinations: Iterable[str]) -> list[Call]:
        """Calls that begin now."""
        now = monotonic()
        self.calls = [Call(self, now, destination) for destination in destinations]
        return self.calls

    def take(self, call: Call) -> None:
        """One has ended."""
        self.ended.append(call)
        if call.error is not None:
            self.failed.append(call)
        if len(self.ended) == self.wanted:
            self.wake()

    def outcomes(self) -> list[MapResult]:
        """Of all that have ended, in their order."""
        return [call.outcome() for call in self.ended]

    async def wait(self, count: int) -> None:
        """Returns when ``ended`` has so many."""
        if len(self.ended) < count:
            self.wanted = count
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def wake(self) -> None:
        """``ended`` has as many as are ``wanted``."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def give_up(self) -> None:
        """Those that are still under way end, and all is forgotten."""
        for call in self.calls:
            call.give_up()
        self.calls = []
        self.ended = []
        self.failed = []

"""Answers that wait for an order to close or to trade. A market is looked at once for all who wait there, and
no step of it costs more because somebody does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .. import limits
from ..hosted import HostedMarket
from .readers import Readers


class Waits:
    """Who waits for orders, :data:`limits.WAITS` at the most."""

    def __init__(self) -> None:
        self.readers = Readers(limits.WAITS, "that wait for orders")
        self._markets: dict[HostedMarket, _Waiting] = {}

    async def until(
        self, hosted: HostedMarket, over: Callable[[], bool], gone: Callable[[], bool], wait_s: float
    ) -> None:
        """Wait until ``over``, which a step of the market may change, for ``wait_s`` seconds at the most.

        Args:
            gone: Whether who waits has gone.

        Raises:
            BusyError: Too many wait.
        """
        with self.readers.one():
            if over():
                return
            waiting = self._markets.get(hosted)
            if waiting is None:
                waiting = self._markets[hosted] = _Waiting(hosted)
            try:
                await waiting.until(over, gone, wait_s)
            finally:
                if waiting.nobody and self._markets.get(hosted) is waiting:
                    del self._markets[hosted]
                    waiting.end()


class _Waiting:
    """Who waits for orders of one market."""

    def __init__(self, hosted: HostedMarket):
        self._hosted = hosted
        self._conditions: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self._changed = asyncio.Event()
        hosted.watchers.add(self._changed)
        self._looks = asyncio.get_running_loop().create_task(self._look())

    @property
    def nobody(self) -> bool:
        return not self._conditions

    def end(self) -> None:
        self._hosted.watchers.discard(self._changed)
        self._looks.cancel()

    async def until(self, over: Callable[[], bool], gone: Callable[[], bool], wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        is_over: asyncio.Future[None] = loop.create_future()
        self._conditions[is_over] = over
        ends = loop.time() + wait_s
        try:
            # Nobody tells a handler that its client has closed the connection.
            while not is_over.done() and not gone() and (left := ends - loop.time()) > 0:
                await asyncio.wait([is_over], timeout=min(left, limits.WAIT_GONE_S))
        finally:
            del self._conditions[is_over]

    async def _look(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            for is_over, over in self._conditions.items():
                if not is_over.done() and over():
                    is_over.set_result(None)
            await asyncio.sleep(limits.FEED_PAUSE_S)

"""For tests with asyncio: as ``grenache_py.testing``, with ``await``."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ..checks import check_count
from ..deadlines import ends_at
from ..errors import LookupEmptyError
from ..grape.aio import Grape
from ..testing import (
    POLL_S,
    WAIT_S,
    Answer,
    StubCall,
    check_services,
    find_stub,
)
from ..transports.rpc_server import Handler
from .link import Link
from .peer import PeerRPCServer

__all__ = ["Grapes", "StubCall", "Stubs"]


class Grapes:
    """Two Grapes that know each other, or ``count`` of them; they run on the running loop."""

    def __init__(self, count: int = 2):
        self._count = check_count(count, "count")
        #: while they run
        self.grapes: list[Grape] = []
        self._links: list[Link] = []

    async def __aenter__(self) -> Grapes:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def __iter__(self) -> Iterator[Grape]:
        return iter(self.grapes)

    @property
    def urls(self) -> list[str]:
        """The Grapes' URLs, for a Link."""
        return [grape.url for grape in self.grapes]

    @property
    def url(self) -> str:
        """The URL of the first one."""
        return self.urls[0]

    async def start(self) -> None:
        """Start them; they know each other when it returns."""
        try:
            while len(self.grapes) < self._count:
                known = [self.grapes[0].dht_address] if self.grapes else []
                grape = Grape(host="127.0.0.1", bootstrap=known)
                await grape.start()
                self.grapes.append(grape)
                self._links.append(Link(grape.url))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop them; doing it again changes nothing."""
        while self._links:
            await self._links.pop().stop()
        while self.grapes:
            await self.grapes.pop().stop()

    async def wait_for(self, name: str, count: int = 1, *, timeout: float = WAIT_S) -> list[str]:
        """Wait until every Grape finds ``name`` announced by ``count`` services or more.

        Returns where they are, ``["host:port", …]``. Raises ``TimeoutError`` after ``timeout`` seconds.
        """
        check_count(count, "count")
        ends = ends_at(timeout)
        while True:
            found = [await self._find(link, name) for link in self._links]
            if all(len(places) >= count for places in found):
                return sorted(found[0])
            if time.monotonic() > ends:
                raise TimeoutError(
                    f"{name!r} is not announced by {count} within {timeout:g} s; the Grapes find {found}"
                )
            await asyncio.sleep(POLL_S)

    @staticmethod
    async def _find(link: Link, name: str) -> list[str]:
        try:
            return await link.lookup(name, fresh=True)
        except LookupEmptyError:
            return []


class Stubs:
    """Services that answer as told, announced at ``grape`` (a URL) on one port, as ``{name: answer}``:

        {"rest:util:net": {"getIpInfo": lambda ip: [ip, "US"], "version": "1.0"},   # actions
         "echo": lambda payload: payload}

    A function may be a coroutine function, and may raise ``Refusal``. An action that there is not is answered
    ``ERR_API_ACTION_NOTFOUND``. ``calls`` are those that were answered, in order.
    """

    def __init__(self, grape: str, services: Mapping[str, Answer]):
        self._services = check_services(services)
        self._grape = grape
        self._link: Link | None = None
        self.calls: list[StubCall] = []

    async def __aenter__(self) -> Stubs:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen and announce; they can be found when it returns."""
        link = self._link = Link(self._grape)
        try:
            service = PeerRPCServer(link).transport("server")
            service.on("request", self._handle)
            await service.listen(0, "127.0.0.1")
            for name in self._services:
                await link.announce(name, service.port)  # raises, unlike start_announcing
                await link.start_announcing(name, service.port)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Withdraw and stop; doing it again changes nothing."""
        link, self._link = self._link, None
        if link is not None:
            await link.stop()

    async def _handle(self, rid: Any, key: Any, payload: Any, handler: Handler) -> None:
        call, answer = find_stub(self._services, key, payload)
        self.calls.append(call)
        result = answer(*call.args) if callable(answer) else answer
        handler.reply(None, await result if inspect.isawaitable(result) else result)

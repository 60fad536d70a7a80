"""The client of either transport, with asyncio. Mirrors grenache-nodejs-base 1.1.0 (lib/PeerRPCClient.js)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from .. import limits
from ..checks import check_count, check_destination, check_name, check_seconds
from ..codec import encode_json
from ..deadlines import ends_at, left_s
from ..discovery import Attempts, Chooser, MapResult, sample
from ..errors import ConnectError, ConnectionLost, PeerError
from ..middleware import Middleware, OutgoingCall, chain, check_middleware
from ..transports.broadcast import Broadcast, Call
from ..wire import typed
from .link import Link

Self = TypeVar("Self", bound="Client")


class Transport(Protocol):
    """How calls travel; used on one loop."""

    def call(
        self,
        destination: str,
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> Awaitable[Any]:
        """Call the peer at ``destination`` once; returns the result. Raises ``PeerError`` within
        ``timeout_s`` seconds, ``ArgumentError``, and ``ClosedError`` after ``close``.
        """

    def begin(
        self,
        calls: list[Call],
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> list[Call]:
        """The same request to the peer of each of ``calls``, which are told what comes of it. Returns those
        that it has not begun, since their request cannot leave at once.
        """

    async def close(self) -> None:
        """End all connections; calls under way fail. Doing it again changes nothing."""


class Client:
    """Calls the peers that announce a name, by the ``transport`` it is given."""

    def __init__(
        self,
        link: Link,
        transport: Transport,
        choice: str,
        middleware: Iterable[Middleware[OutgoingCall]] = (),
    ):
        self._link = link
        self._transport = transport
        self._chooser = Chooser(choice, random.choice, random.random)
        self._middleware = check_middleware(middleware, coroutines=True)
        # Every call to one peer, whatever it is part of and by whichever transport, goes through here.
        self._call = self._call_through if self._middleware else transport.call
        # By ``random`` there is nothing to be remembered.
        self._attempt = self._call if choice == "random" else self._timed_call
        link.attach(self)

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close the connections; calls under way fail. Doing it again changes nothing."""
        self._link.detach(self)
        await self._transport.close()

    async def request(
        self,
        key: str,
        payload: Any,
        *,
        timeout: float = limits.REQUEST_TIMEOUT_S,
        retry: int = 1,
        idempotent: bool = False,
        compress: bool = False,
        headers: Mapping[str, Any] | None = None,
        type: Any = None,
    ) -> Any:
        """Call one of the peers that announce ``key``; returns the result.

        A peer that cannot be connected to, or is too busy to begin, is followed by another one, as long as
        there is one that was not asked. ``idempotent``, doing it twice does no harm: so is a peer that breaks
        off before it has answered.

        ``retry`` is how many attempts are made in all at peers that fail otherwise (as with Node); the time
        is divided among those that are left. Any failure but a ``RemoteError`` leads to the next attempt,
        also one after which the first peer may have done the work.
        """
        ends = ends_at(timeout)
        attempts = Attempts(check_count(retry, "retry"), idempotent)
        while True:
            known = self._link.known(check_name(key, "key"))
            destinations = known or await self._link.lookup(key, timeout=left_s(ends))
            destination = self._chooser.choose(destinations, attempts.tried)
            try:
                limit_s = left_s(ends) / attempts.left
                result = await self._attempt(destination, key, payload, limit_s, compress, headers)
                return result if type is None else typed(result, type, destination)
            except PeerError as error:
                self._failed(key, destination, error)
                others = self._link.known(key) or ()
                if not attempts.go_on(destination, error, others) or time.monotonic() >= ends:
                    raise

    async def request_to(
        self,
        destination: str,
        key: str,
        payload: Any,
        *,
        timeout: float = limits.REQUEST_TIMEOUT_S,
        compress: bool = False,
        headers: Mapping[str, Any] | None = None,
        type: Any = None,
    ) -> Any:
        """Call the peer at ``destination`` (``host:port``), without a look-up; returns the result."""
        check_destination(destination)
        limit_s = check_seconds(timeout)
        try:
            result = await self._call(destination, key, payload, limit_s, compress, headers)
        except PeerError as error:
            self._failed(key, destination, error)
            raise
        return typed(result, type, destination)

    async def map(
        self,
        key: str,
        payload: Any,
        *,
        limit: int | None = None,
        timeout: float = limits.REQUEST_TIMEOUT_S,
        compress: bool = False,
        headers: Mapping[str, Any] | None = None,
    ) -> list[MapResult]:
        """Call all peers that announce ``key`` at once, or ``limit`` of them chosen at random.

        Returns one ``MapResult`` for each peer called, in the order in which they came. A peer that fails is
        reported in its own result and changes nothing for the others (in Node the first error fails all).
        Raises only what concerns the call as a whole: ``LookupEmptyError`` when there are no peers.
        """
        broadcast = Broadcast()
        try:
            await self._begin(broadcast, key, payload, limit, timeout, compress, headers)
            await broadcast.wait(len(broadcast.calls))
            for call in broadcast.failed:
                self._failed_in_map(key, call)
            return broadcast.outcomes()
        finally:
            broadcast.give_up()

    async def map_stream(
        self,
        key: str,
        payload: Any,
        *,
        limit: int | None = None,
        timeout: float = limits.REQUEST_TIMEOUT_S,
        compress: bool = False,
        headers: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[MapResult]:
        """As ``map``, but gives each result when it comes. Calls under way end with the iteration."""
        broadcast = Broadcast()
        try:
            await self._begin(broadcast, key, payload, limit, timeout, compress, headers)
            for place in range(len(broadcast.calls)):
                await broadcast.wait(place + 1)
                call = broadcast.ended[place]
                if call.error is not None:
                    self._failed_in_map(key, call)
                yield call.outcome()
        finally:
            broadcast.give_up()

    async def _begin(
        self,
        broadcast: Broadcast,
        key: str,
        payload: Any,
        limit: int | None,
        timeout: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> None:
        """Begin the calls of a ``map``."""
        ends = ends_at(timeout)
        if limit is not None:
            check_count(limit, "limit")
        # Encoded once for all, unless somebody wants to look at it.
        encoded = payload if self._middleware else msgspec.Raw(encode_json(payload))
        calls = broadcast.begin(sample(await self._destinations(key, ends), limit, random.sample))
        request = (key, encoded, left_s(ends), compress, headers)
        for call in calls if self._middleware else self._transport.begin(calls, *request):
            call.follow(asyncio.ensure_future(self._call(call.destination, *request)))

    def _failed_in_map(self, key: str, call: Call) -> None:
        """One call of a ``map`` has an error; raises it when it concerns the ``map`` as a whole."""
        error = call.error
        if isinstance(error, PeerError):
            self._failed(key, call.destination, error)
        elif error is not None:
            raise error

    async def _timed_call(self, destination: str, *call: Any) -> Any:
        with self._chooser.timed(destination, time.monotonic):
            return await self._call(destination, *call)

    async def _call_through(
        self,
        destination: str,
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> Any:
        """As ``Transport.call``, through the middleware."""
        call = OutgoingCall(destination, key, payload, ends_at(timeout_s), dict(headers or ()), compress)
        return await chain(self._middleware, self._proceed)(call)

    async def _proceed(self, call: OutgoingCall) -> Any:
        arguments = (call.destination, call.key, call.payload, left_s(call.ends), call.compress, call.headers)
        try:
            return await self._transport.call(*arguments)
        except (ConnectError, ConnectionLost):
            self._link.forget(call.key, call.destination)
            raise

    def _failed(self, key: str, destination: str, error: PeerError) -> None:
        """Forget a peer that does not work, unless that was done below the middleware."""
        if isinstance(error, (ConnectError, ConnectionLost)) and not self._middleware:
            self._link.forget(key, destination)

    async def _destinations(self, key: str, ends: float) -> list[str]:
        # Straight from memory in the usual case.
        known = self._link.known(check_name(key, "key"))
        return known or await self._link.lookup(key, timeout=left_s(ends))

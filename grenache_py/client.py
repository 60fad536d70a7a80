"""The client of either transport. Mirrors grenache-nodejs-base 1.1.0 (lib/PeerRPCClient.js)."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from queue import SimpleQueue
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from . import limits
from .checks import check_count, check_destination, check_name, check_seconds
from .codec import encode_json
from .deadlines import ends_at, left_s
from .discovery import Attempts, Chooser, MapResult, sample
from .errors import ClosedError, ConnectError, ConnectionLost, PeerError
from .link import Link
from .middleware import Middleware, OutgoingCall, chain, check_middleware
from .transports.steps import Steps, can_poll, finish_all
from .transports.threads import Threads
from .wire import typed

Self = TypeVar("Self", bound="Client")
# What concerns a call as a whole is an exception in the place of a result.
_Outcomes: TypeAlias = "SimpleQueue[MapResult | BaseException]"


class Transport(Protocol):
    """How calls travel. Thread-safe."""

    def call(
        self,
        destination: str,
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> Any:
        """Call the peer at ``destination`` once; returns the result. Raises ``PeerError`` within
        ``timeout_s`` seconds, ``ArgumentError``, and ``ClosedError`` after ``close``.
        """

    def begin(
        self,
        destination: str,
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> Steps[Any] | None:
        """As ``call``, to be gone through by ``finish_all``; ``None`` where the request could not leave at
        once, since there is no idle connection or it is too large.
        """

    def close(self) -> None:
        """Take no further calls; doing it again changes nothing."""


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
        self._middleware = check_middleware(middleware, coroutines=False)
        # Every call to one peer, whatever it is part of and by whichever transport, goes through here.
        self._call = self._call_through if self._middleware else transport.call
        # By ``random`` there is nothing to be remembered.
        self._attempt = self._call if choice == "random" else self._timed_call
        self._begin()
        link.attach(self)

    def _begin(self) -> None:
        # Threads for ``map``, started as they are needed; they do not survive a fork.
        self._pool = Threads(limits.DESTINATIONS_MAX, "grenache-map")
        self._pid = os.getpid()

    def _threads(self) -> Threads:
        if self._pid != os.getpid():
            self._begin()
        return self._pool

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse further calls and close idle connections; calls under way end within their limits."""
        self._link.detach(self)
        self._transport.close()
        self._threads().stop(drop=False)  # a call whose turn comes now is told that it is over

    def request(
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
            destination = self._chooser.choose(self._destinations(key, ends), attempts.tried)
            try:
                limit_s = left_s(ends) / attempts.left
                result = self._attempt(destination, key, payload, limit_s, compress, headers)
                return result if type is None else typed(result, type, destination)
            except PeerError as error:
                self._failed(key, destination, error)
                others = self._link.known(key) or ()
                if not attempts.go_on(destination, error, others) or time.monotonic() >= ends:
                    raise

    def request_to(
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
            result = self._call(destination, key, payload, limit_s, compress, headers)
        except PeerError as error:
            self._failed(key, destination, error)
            raise
        return typed(result, type, destination)

    def map(
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
        ends = ends_at(timeout)
        chosen, encoded = self._broadcast(key, payload, limit, ends)
        # On this thread what needs no other: a thread costs more than the call.
        here = can_poll and not self._middleware
        rest: list[str] = []
        outcomes: _Outcomes = SimpleQueue()

        def begin() -> Iterator[tuple[str, Steps[Any]]]:
            for destination in chosen:
                call = (destination, key, encoded, left_s(ends), compress, headers)
                steps = self._transport.begin(*call) if here else None
                if steps is None:
                    rest.append(destination)
                else:
                    yield destination, steps
            self._start(rest, outcomes, key, encoded, ends, compress, headers)

        started = time.monotonic()
        results = []
        for destination, result, failure in finish_all(begin(), ends):
            if failure is not None:
                self._failed(key, destination, failure)
            results.append(MapResult(destination, result, failure, time.monotonic() - started))
        if rest:
            results += map(_outcome, (outcomes.get() for _ in rest))
            results.sort(key=lambda result: result.elapsed_s)
        return results

    def map_stream(
        self,
        key: str,
        payload: Any,
        *,
        limit: int | None = None,
        timeout: float = limits.REQUEST_TIMEOUT_S,
        compress: bool = False,
        headers: Mapping[str, Any] | None = None,
    ) -> Iterator[MapResult]:
        """As ``map``, but gives each result when it comes."""
        ends = ends_at(timeout)
        chosen, encoded = self._broadcast(key, payload, limit, ends)
        outcomes: _Outcomes = SimpleQueue()
        self._start(chosen, outcomes, key, encoded, ends, compress, headers)
        for _ in chosen:
            yield _outcome(outcomes.get())

    def _broadcast(self, key: str, payload: Any, limit: int | None, ends: float) -> tuple[list[str], Any]:
        """The peers that a ``map`` calls, and what it sends."""
        if limit is not None:
            check_count(limit, "limit")
        # Encoded once for all, unless somebody wants to look at it.
        encoded = payload if self._middleware else msgspec.Raw(encode_json(payload))
        destinations = self._destinations(key, ends)
        return sample(destinations, limit, random.sample), encoded

    def _start(
        self,
        destinations: list[str],
        outcomes: _Outcomes,
        key: str,
        payload: Any,
        ends: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> None:
        """Call all of them in threads, which put what comes of it into ``outcomes``."""

        def one(destination: str) -> None:
            started = time.monotonic()
            result, failure = None, None
            try:
                result = self._call(destination, key, payload, left_s(ends), compress, headers)
            except PeerError as error:
                failure = error
                self._failed(key, destination, error)
            except BaseException as error:
                outcomes.put(error)
                return
            outcomes.put(MapResult(destination, result, failure, time.monotonic() - started))

        threads = self._threads()
        if not all(threads.submit(one, destination) for destination in destinations):
            raise ClosedError("stopped during the call")

    def _timed_call(self, destination: str, *call: Any) -> Any:
        with self._chooser.timed(destination, time.monotonic):
            return self._call(destination, *call)

    def _call_through(
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
        return chain(self._middleware, self._proceed)(call)

    def _proceed(self, call: OutgoingCall) -> Any:
        arguments = (call.destination, call.key, call.payload, left_s(call.ends), call.compress, call.headers)
        try:
            return self._transport.call(*arguments)
        except (ConnectError, ConnectionLost):
            self._link.forget(call.key, call.destination)
            raise

    def _failed(self, key: str, destination: str, error: PeerError) -> None:
        """Forget a peer that does not work, unless that was done below the middleware."""
        if isinstance(error, (ConnectError, ConnectionLost)) and not self._middleware:
            self._link.forget(key, destination)

    def _destinations(self, key: str, ends: float) -> list[str]:
        # Straight from memory in the usual case.
        known = self._link.known(check_name(key, "key"))
        return known or self._link.lookup(key, timeout=left_s(ends))


def _outcome(outcome: MapResult | BaseException) -> MapResult:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome

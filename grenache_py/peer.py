"""``PeerRPCClient`` and ``PeerRPCServer``. Mirrors grenache-nodejs-base 1.1.0 (lib/PeerRPCClient.js)."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from functools import partial
from ssl import SSLContext
from typing import Any, TypeVar, overload

import msgspec

from . import limits
from .checks import (
    check_count,
    check_destination,
    check_event,
    check_listen_port,
    check_name,
    check_seconds,
    check_transport,
)
from .codec import encode_json
from .discovery import Attempts, Chooser, MapResult
from .errors import (
    ArgumentError,
    BadRequestError,
    ClosedError,
    ConnectError,
    ConnectionLost,
    PeerError,
    RemoteError,
)
from .link import Link
from .tls import Authorize, Certificate, check_authorize, check_context
from .transports import streams
from .transports.http import HttpClient
from .transports.loop import LoopThread
from .transports.rpc_server import Handler, RpcServer
from .transports.stream_server import StreamServer, finish
from .transports.streams import StreamClient
from .transports.sync_stream import Stream, run
from .wire import Request, decode_reply, encode_request, encode_stream_head, typed

log = logging.getLogger(__name__)

Listener = TypeVar("Listener", bound=Callable[..., Any])


class PeerRPCClient:
    """Calls the peers that announce a name. Thread-safe.

    Use it as a context manager or call ``stop``; stopping its Link does so too. ``timeout`` is always the
    seconds that the whole call may take, look-up included; ``compress`` asks for gzip in both directions;
    ``headers`` are further HTTP headers (values that are no text are sent as JSON).

    ``type`` is what the result must be, such as a dataclass, a ``msgspec.Struct`` or ``list[int]``: it comes
    as an instance of it, or ``ReplyError`` with code ``ERR_REPLY_TYPE`` says where it does not fit.

    The calls raise ``ArgumentError``, ``GrapeError`` when the look-up fails (``LookupEmptyError``: nobody
    announces the name), ``PeerError`` when the peer does (``RemoteError``: its handler answered with an
    error).

    With ``ssl``, a context such as ``grenache_py.tls.client_context`` makes, peers are called over TLS.
    ``choice`` is how ``request`` and ``stream`` choose among the peers: ``random`` (as Node does),
    ``least-loaded`` or ``fastest`` (see ``docs/rpc.md``). Peers that fail are left out for a while.
    With ``deadlines`` each request tells its peer how long it will wait, and a peer of ours gives up then.
    """

    def __init__(
        self,
        link: Link,
        *,
        ssl: SSLContext | None = None,
        choice: str = "random",
        deadlines: bool = False,
    ):
        self._link = link
        self._deadlines = deadlines
        self._chooser = Chooser(choice, random.choice, random.random)
        self._http = HttpClient(ssl=check_context(ssl))
        self._scheme = "http" if ssl is None else "https"
        self._ssl = ssl
        self._closed = False
        self._begin()
        link.attach(self)

    def _begin(self) -> None:
        # Threads for ``map``, started as they are needed.
        self._pool = ThreadPoolExecutor(limits.DESTINATIONS_MAX, "grenache-map")
        self._streams = StreamClient(self._ssl)
        # The loop that does their IO, once there are any.
        self._thread: LoopThread | None = None
        self._starting = threading.Lock()
        self._pid = os.getpid()

    def _check_process(self) -> None:
        """Threads, loops and connections do not survive a fork: the child makes its own."""
        if self._pid != os.getpid():
            self._begin()

    def __enter__(self) -> PeerRPCClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse further calls and close idle connections; calls under way end within their limits."""
        self._link.detach(self)
        self._http.close()
        self._check_process()
        with self._starting:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.run(self._streams.close())
            LoopThread.give_back()
        self._pool.shutdown(wait=False, cancel_futures=True)

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
        ends = _ends(timeout)
        attempts = Attempts(retry, idempotent)
        while True:
            destination = self._chooser.choose(self._lookup(key, ends), attempts.tried)
            try:
                left_s = _left_s(ends) / attempts.left
                result = self._timed_call(destination, key, payload, left_s, compress, headers)
                return typed(result, type, destination)
            except PeerError as error:
                others = self._link.known(key) or ()
                if not attempts.go_on(destination, error, others) or time.monotonic() >= ends:
                    raise

    def _timed_call(self, destination: str, key: str, *call: Any) -> Any:
        if self._chooser.policy == "random":
            return self._call(destination, key, *call)  # nothing to be remembered
        started = time.monotonic()
        self._chooser.started(destination)
        failed = True
        try:
            result = self._call(destination, key, *call)
            failed = False
            return result
        except RemoteError:
            failed = False  # it did answer
            raise
        finally:
            self._chooser.ended(destination, time.monotonic() - started, failed)

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
        result = self._call(destination, key, payload, check_seconds(timeout), compress, headers)
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
        results = self.map_stream(
            key, payload, limit=limit, timeout=timeout, compress=compress, headers=headers
        )
        return list(results)

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
        ends = _ends(timeout)
        if limit is not None:
            check_count(limit, "limit")
        # Encoded once for all.
        encoded = msgspec.Raw(encode_json(payload))
        destinations = self._lookup(key, ends)
        chosen = random.sample(destinations, min(limit or len(destinations), len(destinations)))

        def one(destination: str) -> MapResult:
            started = time.monotonic()
            result, failure = None, None
            try:
                result = self._call(destination, key, encoded, _left_s(ends), compress, headers)
            except PeerError as error:
                failure = error
            return MapResult(destination, result, failure, time.monotonic() - started)

        self._check_process()
        try:
            for future in as_completed([self._pool.submit(one, destination) for destination in chosen]):
                yield future.result()
        except (CancelledError, RuntimeError) as error:  # the pool was shut down
            raise ClosedError("stopped during the call") from error

    def stream(
        self,
        key: str,
        *,
        timeout: float = limits.REQUEST_TIMEOUT_S,
        headers: Mapping[str, Any] | None = None,
    ) -> Stream:
        """Open a stream to one of the peers that announce ``key``.

        Its service must have ``disable_buffered``. ``timeout`` is the seconds until it is open, and then
        those that one read or write may wait for the peer; a stream as a whole has no limit. ``headers`` such
        as ``{"_a": action, "_ar": arguments}`` tell the peer what it is about.
        """
        ends = _ends(timeout)
        destination = self._chooser.choose(self._lookup(key, ends))
        return self._open_stream(destination, key, _left_s(ends), timeout, headers)

    def stream_to(
        self,
        destination: str,
        key: str,
        *,
        timeout: float = limits.REQUEST_TIMEOUT_S,
        headers: Mapping[str, Any] | None = None,
    ) -> Stream:
        """Open a stream to the peer at ``destination`` (``host:port``), without a look-up."""
        check_destination(destination)
        return self._open_stream(destination, key, check_seconds(timeout), timeout, headers)

    def _open_stream(
        self,
        destination: str,
        key: str,
        timeout_s: float,
        idle_s: float,
        headers: Mapping[str, Any] | None,
    ) -> Stream:
        head = encode_stream_head(str(uuid.uuid4()), key, headers)
        try:
            thread = self._loop_thread()
            stream = thread.run(self._streams.open(destination, head, timeout_s, idle_s))
            return Stream(stream, thread.loop)
        except ConnectError:
            self._link.forget(key, destination)
            raise

    def _loop_thread(self) -> LoopThread:
        self._check_process()
        with self._starting:
            if self._closed:
                raise ClosedError("stopped before the call")
            if self._thread is None:
                self._thread = LoopThread.borrow()
            return self._thread

    def _lookup(self, key: str, ends: float) -> list[str]:
        # Straight from memory in the usual case.
        known = self._link.known(check_name(key, "key"))
        return known or self._link.lookup(key, timeout=_left_s(ends))

    def _call(
        self,
        destination: str,
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> Any:
        rid = str(uuid.uuid4())
        deadline_s = timeout_s if self._deadlines else None
        head, body = encode_request(rid, key, payload, compress, headers, deadline_s)
        try:
            reply = self._http.call(f"{self._scheme}://{destination}/", head, body, timeout_s)
        except (ConnectError, ConnectionLost):
            self._link.forget(key, destination)
            raise
        return decode_reply(reply, rid, destination, compress)


class PeerRPCServer:
    """Serves requests. Mirrors grenache-nodejs-base (lib/PeerRPCServer.js).

    ``timeout``: seconds until a request without a reply is answered ``ERR_TIMEOUT``; ``max_body``: bytes of
    the largest request that is taken, also after decompression; ``threads``: how many handlers of a service
    run at the same time.

    With ``ssl``, a context such as ``grenache_py.tls.server_context`` makes, it serves over TLS. Then
    ``authorize`` may say who is let in: a function of the caller's ``Certificate``, or a collection of
    SHA-256 fingerprints; others are answered ``ERR_FORBIDDEN`` with status 403.

    With ``disable_buffered`` requests are not read, but handed over as streams as soon as their head has come
    (event ``stream``); ``timeout`` and ``max_body`` have no meaning then.
    """

    def __init__(
        self,
        link: Link,
        *,
        timeout: float = limits.HANDLER_TIMEOUT_S,
        max_body: int = limits.BODY_BYTES_MAX,
        threads: int = limits.HANDLER_THREADS,
        ssl: SSLContext | None = None,
        authorize: Authorize | None = None,
        disable_buffered: bool = False,
    ):
        self._link = link
        self._timeout_s = check_seconds(timeout)
        self._max_body = check_count(max_body, "max_body")
        self._threads = check_count(threads, "threads")
        self._ssl = check_context(ssl)
        self._authorize = None if authorize is None else check_authorize(authorize, ssl)
        self._disable_buffered = disable_buffered
        self._services: list[Service] = []
        link.attach(self)

    def __enter__(self) -> PeerRPCServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def transport(self, name: str = "server") -> Service:
        """A new service, not listening yet. ``name`` is ``"server"``, the only kind there is."""
        check_transport(name)
        service = Service(
            self._timeout_s, self._max_body, self._threads, self._ssl, self._authorize, self._disable_buffered
        )
        self._services.append(service)
        return service

    def stop(self) -> None:
        """Stop all services."""
        self._link.detach(self)
        while self._services:
            self._services.pop().stop()


class Service:
    """One listening port whose requests go to a handler; made by ``PeerRPCServer.transport``.

    Events: ``request`` calls ``handler(rid, key, payload, handler)``, ``request-error`` calls
    ``listener(error)`` with a ``BadRequestError`` for a body that is no request (which was already
    answered). With ``disable_buffered``, in place of ``request``: ``stream`` calls
    ``listener(rid, key, stream, handler)``. Connections are served on a background loop, which all services
    of the process share; listeners run in threads.
    """

    def __init__(
        self,
        timeout_s: float,
        max_body: int,
        threads: int,
        ssl: SSLContext | None = None,
        authorize: Callable[[Certificate], object] | None = None,
        disable_buffered: bool = False,
    ):
        self._disable_buffered = disable_buffered
        self._listeners: dict[str, Callable[..., Any]] = {}
        self._threads = threads
        self._pool: ThreadPoolExecutor  # while it listens
        # Counts the handlers that run or wait for a thread.
        self._room = threading.BoundedSemaphore(limits.REQUESTS_IN_FLIGHT_MAX)
        self._thread: LoopThread | None = None
        self._server: RpcServer | StreamServer
        if disable_buffered:
            self._server = StreamServer(self._handle_stream, self._bad_request, ssl=ssl, authorize=authorize)
            return
        self._server = RpcServer(
            self._handle,
            self._bad_request,
            timeout_s=timeout_s,
            max_body=max_body,
            ssl=ssl,
            authorize=authorize,
        )

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        return self._server.port

    @overload
    def on(self, event: str, listener: None = None) -> Callable[[Listener], Listener]: ...

    @overload
    def on(self, event: str, listener: Listener) -> Listener: ...

    def on(self, event: str, listener: Any = None) -> Any:
        """Set the listener of an event; without ``listener`` this is a decorator.

        The one of ``request`` is a plain function, called in one of the service's threads. It answers by
        ``handler.reply(error, result)``, then or later. When it raises, the caller is answered with the
        error's class and message.

        The one of ``stream`` is called likewise. It reads and writes the ``Stream``, or answers by
        ``handler.reply``; ``handler.action``, ``args`` and ``headers`` say what it is about. The stream ends
        when it returns, and is cut when it raises after it has written. An event has one listener.
        """
        check_event(event, self._listeners, self._disable_buffered)
        if event == "websocket":
            raise ArgumentError("event", "websocket needs grenache_py.aio")
        if listener is None:
            return partial(self.on, event)
        if inspect.iscoroutinefunction(listener):
            raise ArgumentError("listener", "must be a plain function; coroutines need grenache_py.aio")
        self._listeners[event] = listener
        return listener

    def listen(self, port: int = 0, host: str | None = None) -> Service:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all). Raises ``ListenError``."""
        check_listen_port(port)
        thread = LoopThread.borrow()
        pool = ThreadPoolExecutor(self._threads, "grenache-handler")
        self._pool = pool
        try:
            thread.run(self._server.listen(port, host))
        except BaseException:
            pool.shutdown()
            LoopThread.give_back()
            raise
        self._thread = thread
        return self

    def stop(self, *, drain: float = limits.DRAIN_S) -> None:
        """Accept no more; requests in hand have ``drain`` seconds to be answered, then they are dropped.

        Handlers that run go on to their end, their replies go nowhere.
        """
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.run(self._server.close(drain))
        LoopThread.give_back()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _handle(self, request: Request, handler: Handler) -> None:
        listener = self._listeners.get("request")
        if listener is None:
            handler.refuse(501, "ERR_SERVER_NO_HANDLER")
        elif not self._submit(self._run, listener, request, handler):
            handler.refuse(503, "ERR_SERVER_BUSY")

    def _submit(self, function: Callable[..., None], *arguments: Any) -> bool:
        """Run it in a thread; returns false when too much runs or waits already."""
        if not self._room.acquire(blocking=False):
            return False
        self._pool.submit(function, *arguments).add_done_callback(lambda _: self._room.release())
        return True

    @staticmethod
    def _run(listener: Callable[..., Any], request: Request, handler: Handler) -> None:
        if handler.replied:
            return  # its time passed while it waited for a thread
        try:
            listener(request.rid, request.key, request.payload, handler)
        except Exception as error:
            handler.fail(error)

    def _handle_stream(self, request: Request, stream: streams.Stream, handler: Handler) -> None:
        listener = self._listeners.get("stream")
        if listener is None:
            handler.refuse(501, "ERR_SERVER_NO_HANDLER")
        elif not self._submit(self._run_stream, listener, request, stream, handler, self._server.loop):
            handler.refuse(503, "ERR_SERVER_BUSY")

    @staticmethod
    def _run_stream(
        listener: Callable[..., Any],
        request: Request,
        stream: streams.Stream,
        handler: Handler,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        failure = None
        try:
            listener(request.rid, request.key, Stream(stream, loop), handler)
        except Exception as error:
            failure = error
        try:
            run(finish(stream, handler, failure), loop)
        except ClosedError:
            log.debug("a stream ended after the service had stopped")

    def _bad_request(self, error: BadRequestError) -> None:
        listener = self._listeners.get("request-error")
        if listener is None:
            log.info("not a request: %s", error)
        else:
            self._submit(self._report, listener, error)

    @staticmethod
    def _report(listener: Callable[..., Any], error: BadRequestError) -> None:
        try:
            listener(error)
        except Exception:
            log.exception("the listener of request-error raised")


def _ends(timeout: float) -> float:
    return time.monotonic() + check_seconds(timeout)


def _left_s(ends: float) -> float:
    return max(ends - time.monotonic(), 0.001)

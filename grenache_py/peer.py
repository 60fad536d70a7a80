"""``PeerRPCClient`` and ``PeerRPCServer`` over HTTP. Mirrors grenache-nodejs-http 1.0.2."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from ssl import SSLContext
from typing import Any

from . import limits
from .checks import check_count, check_destination, check_event, check_seconds
from .client import Client
from .deadlines import ends_at, left_s
from .errors import ConnectError
from .link import Link
from .middleware import IncomingCall, Middleware, OutgoingCall, chain, check_middleware
from .service import Service, Serving
from .tls import Authorize, check_context
from .transports.http import HttpTransport
from .transports.rpc_http import http_servers
from .transports.sync_stream import Stream, StreamClient
from .wire import encode_stream_head


class PeerRPCClient(Client):
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
    ``middleware`` are functions around every call to a peer, see ``grenache_py.middleware``.
    """

    def __init__(
        self,
        link: Link,
        *,
        ssl: SSLContext | None = None,
        choice: str = "random",
        deadlines: bool = False,
        middleware: Iterable[Middleware[OutgoingCall]] = (),
    ):
        self._streams = StreamClient(check_context(ssl))
        super().__init__(link, HttpTransport(ssl, deadlines), choice, middleware)

    def stop(self) -> None:
        """Refuse further calls and close idle connections; calls under way end within their limits."""
        super().stop()
        self._streams.close()

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
        ends = ends_at(timeout)
        destination = self._chooser.choose(self._destinations(key, ends))
        return self._open_stream(destination, key, left_s(ends), timeout, headers)

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
        if not self._middleware:
            return self._open(destination, key, timeout_s, idle_s, headers)
        call = OutgoingCall(destination, key, None, ends_at(timeout_s), dict(headers or ()), stream=True)

        def proceed(call: OutgoingCall) -> Stream:
            return self._open(call.destination, call.key, left_s(call.ends), idle_s, call.headers)

        stream: Stream = chain(self._middleware, proceed)(call)
        return stream

    def _open(
        self,
        destination: str,
        key: str,
        timeout_s: float,
        idle_s: float,
        headers: Mapping[str, Any] | None,
    ) -> Stream:
        head = encode_stream_head(str(uuid.uuid4()), key, headers)
        try:
            return self._streams.open(destination, head, timeout_s, idle_s)
        except ConnectError:
            self._link.forget(key, destination)
            raise


class PeerRPCServer(Serving[Service]):
    """Serves requests. Mirrors grenache-nodejs-base (lib/PeerRPCServer.js).

    ``timeout``: seconds until a request without a reply is answered ``ERR_TIMEOUT``; ``max_body``: bytes of
    the largest request that is taken, also after decompression; ``threads``: how many handlers of a service
    run at the same time; ``concurrency``: how many run or wait for a thread, further requests are answered
    ``ERR_BUSY`` at once, and our clients ask another peer.

    With ``ssl``, a context such as ``grenache_py.tls.server_context`` makes, it serves over TLS. Then
    ``authorize`` may say who is let in: a function of the caller's ``Certificate``, or a collection of
    SHA-256 fingerprints; others are answered ``ERR_FORBIDDEN`` with status 403.

    With ``disable_buffered`` requests are not read, but handed over as streams as soon as their head has come
    (event ``stream``); ``timeout`` and ``max_body`` have no meaning then. With ``streams``, a function, so
    are those alone whose header ``_a`` it says yes to, such as ``lambda action: action.endswith("Stream")``;
    what it says depends on nothing else. ``timeout`` is also how long such a stream may stand still.

    ``middleware`` are functions around every call of a listener, see ``grenache_py.middleware``.
    """

    def __init__(
        self,
        link: Link,
        *,
        timeout: float = limits.HANDLER_TIMEOUT_S,
        max_body: int = limits.BODY_BYTES_MAX,
        concurrency: int = limits.REQUESTS_IN_FLIGHT_MAX,
        threads: int = limits.HANDLER_THREADS,
        ssl: SSLContext | None = None,
        authorize: Authorize | None = None,
        disable_buffered: bool = False,
        streams: Callable[[str], bool] | None = None,
        middleware: Iterable[Middleware[IncomingCall]] = (),
    ):
        make = http_servers(
            timeout=timeout,
            max_body=max_body,
            concurrency=concurrency,
            ssl=ssl,
            authorize=authorize,
            disable_buffered=disable_buffered,
            streams=streams,
        )
        check = partial(
            check_event,
            streams=disable_buffered or streams is not None,
            requests=not disable_buffered,
        )
        check_count(threads, "threads")
        functions = check_middleware(middleware, coroutines=False)
        super().__init__(link, partial(Service, link, make, threads, concurrency, functions, check))

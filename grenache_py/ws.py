"""RPC and pub/sub over WebSocket. Mirrors grenache-nodejs-ws 1.0.0."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from ssl import SSLContext
from typing import Any

from . import limits
from .checks import check_busy_poll, check_count, check_seconds
from .client import Client
from .errors import ArgumentError
from .link import Link
from .middleware import IncomingCall, Middleware, OutgoingCall, check_middleware
from .pubsub import PeerPub, PeerSub, PubService
from .service import Service, Serving
from .tls import Authorize, check_authorize, check_context
from .transports.rpc_server import Handler
from .transports.rpc_ws import ws_rpc_server
from .transports.sync_ws import WsTransport
from .transports.ws_server import VerifyClient, Visitor

__all__ = [
    "Handler",
    "PeerPub",
    "PeerRPCClient",
    "PeerRPCServer",
    "PeerSub",
    "PubService",
    "Service",
    "Visitor",
]


class PeerRPCClient(Client):
    """Calls the peers that announce a name, over WebSocket: ``ws://``, or ``wss://`` with ``ssl``.

    Thread-safe. As ``grenache_py.PeerRPCClient``, but without ``compress`` and streams; ``headers`` and
    deadlines reach services of ours only. Each call under way has a connection to itself, which is kept for
    later ones.

    For at most ``busy_poll_us`` microseconds (0: never) after a call has left, with no other under way, its
    thread looks for the reply without sleeping, as ``net.core.busy_poll`` of Linux; where replies take
    longer, or others want the processor or the interpreter, it soon leaves that. Never over TLS.
    """

    def __init__(
        self,
        link: Link,
        *,
        ssl: SSLContext | None = None,
        choice: str = "random",
        deadlines: bool = False,
        middleware: Iterable[Middleware[OutgoingCall]] = (),
        busy_poll_us: float = limits.BUSY_POLL_US,
    ):
        transport = WsTransport(check_context(ssl), deadlines, busy_poll_us=check_busy_poll(busy_poll_us))
        super().__init__(link, transport, choice, middleware)

    def stream(self, *arguments: Any, **options: Any) -> Any:
        """Streams exist only over HTTP: raises ``ArgumentError``."""
        raise ArgumentError("stream", "exists only over HTTP")

    stream_to = stream


class PeerRPCServer(Serving[Service]):
    """Serves requests over WebSocket: ``ws://``, or ``wss://`` with ``ssl``.

    As ``grenache_py.PeerRPCServer``; who is not let in by ``authorize`` is closed with code 1008.
    ``verify_client(visitor)``, a plain function, may look at more: a ``Visitor`` has ``peer``, ``target``,
    ``headers`` and ``certificate``, and is let in when it returns true.
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
        verify_client: VerifyClient | None = None,
        middleware: Iterable[Middleware[IncomingCall]] = (),
    ):
        make = partial(
            ws_rpc_server,
            timeout_s=check_seconds(timeout),
            max_body=check_count(max_body, "max_body"),
            concurrency=check_count(concurrency, "concurrency"),
            ssl=check_context(ssl),
            authorize=check_authorize(authorize, ssl),
            verify_client=verify_client,
        )
        check_count(threads, "threads")
        functions = check_middleware(middleware, coroutines=False)
        super().__init__(link, partial(Service, link, make, threads, concurrency, functions))

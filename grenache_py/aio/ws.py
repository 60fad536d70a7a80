"""RPC and pub/sub over WebSocket, with asyncio. Mirrors grenache-nodejs-ws 1.0.0."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from ssl import SSLContext
from typing import Any

from .. import limits
from ..checks import check_busy_poll, check_count, check_seconds
from ..errors import ArgumentError
from ..middleware import IncomingCall, Middleware, OutgoingCall, check_middleware
from ..tls import Authorize, check_authorize, check_context
from ..transports.busy_poll import busy_poll_on_demand
from ..transports.rpc_server import Handler
from ..transports.rpc_ws import ws_rpc_server
from ..transports.ws_client import WsClient
from ..transports.ws_server import VerifyClient, Visitor
from .client import Client
from .link import Link
from .pubsub import PeerPub, PeerSub, PubService
from .service import Service, Serving

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

    As ``grenache_py.aio.PeerRPCClient``, but without ``compress`` and streams; ``headers`` and deadlines
    reach services of ours only. All calls to one destination share a connection; one that is lost fails the
    calls under way on it at once.

    For at most ``busy_poll_us`` microseconds (0: never) after a call has left, with no other under way on its
    connection, or after the reply to one of several such calls, the loop looks for the next reply without
    sleeping, as ``net.core.busy_poll`` of Linux; where replies take longer, or others want the processor, it
    soon leaves that.
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
        transport = WsClient(
            ssl=check_context(ssl), deadlines=deadlines, busy_poll_us=check_busy_poll(busy_poll_us)
        )
        super().__init__(link, transport, choice, middleware)

    async def stream(self, *arguments: Any, **options: Any) -> Any:
        """Streams exist only over HTTP: raises ``ArgumentError``."""
        raise ArgumentError("stream", "exists only over HTTP")

    stream_to = stream


class PeerRPCServer(Serving[Service]):
    """Serves requests over WebSocket: ``ws://``, or ``wss://`` with ``ssl``.

    As ``grenache_py.aio.PeerRPCServer``; who is not let in by ``authorize`` is closed with code 1008.
    ``verify_client(visitor)``, a plain function, may look at more: a ``Visitor`` has ``peer``, ``target``,
    ``headers`` and ``certificate``, and is let in when it returns true. ``busy_poll_us`` is as with
    the client, after a reply has left; all services of a server share it.
    """

    def __init__(
        self,
        link: Link,
        *,
        timeout: float = limits.HANDLER_TIMEOUT_S,
        max_body: int = limits.BODY_BYTES_MAX,
        concurrency: int = limits.REQUESTS_IN_FLIGHT_MAX,
        ssl: SSLContext | None = None,
        authorize: Authorize | None = None,
        verify_client: VerifyClient | None = None,
        middleware: Iterable[Middleware[IncomingCall]] = (),
        busy_poll_us: float = limits.BUSY_POLL_US,
    ):
        make = partial(
            ws_rpc_server,
            timeout_s=check_seconds(timeout),
            max_body=check_count(max_body, "max_body"),
            concurrency=check_count(concurrency, "concurrency"),
            ssl=check_context(ssl),
            authorize=check_authorize(authorize, ssl),
            verify_client=verify_client,
            poll=busy_poll_on_demand(check_busy_poll(busy_poll_us)),
        )
        super().__init__(link, partial(Service, link, make, check_middleware(middleware, coroutines=True)))

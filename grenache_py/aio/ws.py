"""RPC and pub/sub over WebSocket, with asyncio. Mirrors grenache-nodejs-ws 1.0.0."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from ssl import SSLContext
from typing import Any, TypeVar, overload

from .. import limits
from ..checks import (
    check_count,
    check_listen_port,
    check_name,
    check_seconds,
    check_transport,
)
from ..errors import ArgumentError, ClosedError
from ..tls import Authorize, Certificate, check_authorize, check_context
from ..transports.rpc_server import Handler
from ..transports.ws_client import WsClient
from ..transports.ws_frames import encode_call
from ..transports.ws_pubsub import Event, Publisher, Subscriber, check_sub_event, encode_message
from ..transports.ws_server import VerifyClient, Visitor, WsRpcServer
from . import peer
from .link import Link

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

log = logging.getLogger(__name__)

Listener = TypeVar("Listener", bound=Callable[..., Any])


class PeerRPCClient(peer.PeerRPCClient):
    """Calls the peers that announce a name, over WebSocket: ``ws://``, or ``wss://`` with ``ssl``.

    As ``grenache_py.aio.PeerRPCClient``, but without ``compress``, ``headers``, deadlines and streams.
    All calls to one destination share a connection; one that is lost fails the calls under way on it at once.
    """

    def __init__(self, link: Link, *, ssl: SSLContext | None = None, choice: str = "random"):
        super().__init__(link, ssl=ssl, choice=choice)
        self._ws = WsClient(link.forget, ssl=ssl)

    async def stop(self) -> None:
        """Close the connections; calls under way fail. Doing it again changes nothing."""
        await super().stop()
        await self._ws.close()

    async def stream(self, *arguments: Any, **options: Any) -> Any:
        """Streams exist only over HTTP: raises ``ArgumentError``."""
        raise ArgumentError("stream", "exists only over HTTP")

    stream_to = stream

    def _call(
        self,
        destination: str,
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> Coroutine[Any, Any, Any]:
        if compress or headers:
            raise ArgumentError("compress" if compress else "headers", "exists only over HTTP")
        rid = self._ws.new_rid()
        request = encode_call(rid, key, payload)
        return self._ws.call(destination, key, rid, request, timeout_s)


class PeerRPCServer(peer.PeerRPCServer):
    """Serves requests over WebSocket: ``ws://``, or ``wss://`` with ``ssl``.

    As ``grenache_py.aio.PeerRPCServer``; who is not let in by ``authorize`` is closed with code 1008.
    ``verify_client(visitor)``, a plain function, may look at more: a ``Visitor`` has ``peer``, ``target``,
    ``headers`` and ``certificate``, and is let in when it returns true.
    """

    def __init__(
        self,
        link: Link,
        *,
        timeout: float = limits.HANDLER_TIMEOUT_S,
        max_body: int = limits.BODY_BYTES_MAX,
        ssl: SSLContext | None = None,
        authorize: Authorize | None = None,
        verify_client: VerifyClient | None = None,
    ):
        super().__init__(link, timeout=timeout, max_body=max_body, ssl=ssl, authorize=authorize)
        self._verify_client = verify_client

    def transport(self, name: str = "server") -> Service:
        """A new service, not listening yet. ``name`` is ``"server"``, the only kind there is."""
        check_transport(name)
        service = Service(self._timeout_s, self._max_body, self._ssl, self._authorize, self._verify_client)
        self._services.append(service)
        return service


class Service(peer.Service):
    """One listening port whose requests go to a handler; made by ``PeerRPCServer.transport``. As
    ``grenache_py.aio.Service``.
    """

    def __init__(
        self,
        timeout_s: float,
        max_body: int,
        ssl: SSLContext | None = None,
        authorize: Callable[[Certificate], object] | None = None,
        verify_client: VerifyClient | None = None,
    ):
        super().__init__(timeout_s, max_body)
        self._server = WsRpcServer(
            self._handle,
            self._bad_request,
            self._expired,
            timeout_s=timeout_s,
            max_body=max_body,
            ssl=ssl,
            authorize=authorize,
            verify_client=verify_client,
        )


class PeerPub:
    """Publishes messages. Mirrors grenache-nodejs-base (lib/PeerPub.js).

    ``ssl``, ``authorize`` and ``verify_client`` as for ``PeerRPCServer``. A subscriber with more than
    ``max_queue`` unsent bytes is disconnected; our ``PeerSub`` comes back then, without what it missed.
    """

    def __init__(
        self,
        link: Link,
        *,
        ssl: SSLContext | None = None,
        authorize: Authorize | None = None,
        verify_client: VerifyClient | None = None,
        max_queue: int = limits.PUB_QUEUE_BYTES,
    ):
        self._link = link
        self._ssl = check_context(ssl)
        self._authorize = None if authorize is None else check_authorize(authorize, ssl)
        self._verify_client = verify_client
        self._max_queue = check_count(max_queue, "max_queue")
        self._services: list[PubService] = []
        link.attach(self)

    async def __aenter__(self) -> PeerPub:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def transport(self, name: str = "server") -> PubService:
        """A new service, not listening yet. ``name`` is ``"server"``, the only kind there is."""
        check_transport(name)
        service = PubService(self._ssl, self._authorize, self._verify_client, self._max_queue)
        self._services.append(service)
        return service

    async def stop(self) -> None:
        """Stop all services."""
        self._link.detach(self)
        while self._services:
            await self._services.pop().stop()


class PubService:
    """One listening port to which subscribers connect; made by ``PeerPub.transport``."""

    def __init__(
        self,
        ssl: SSLContext | None,
        authorize: Callable[[Certificate], object] | None,
        verify_client: VerifyClient | None,
        max_queue: int,
    ):
        self._publisher = Publisher(
            ssl=ssl, authorize=authorize, verify_client=verify_client, queue_bytes=max_queue
        )

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        return self._publisher.port

    @property
    def subscribers(self) -> int:
        """How many are connected."""
        return self._publisher.subscribers

    async def listen(self, port: int = 0, host: str | None = None) -> PubService:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all of them). Raises
        ``ListenError``.
        """
        await self._publisher.listen(check_listen_port(port), host)
        return self

    def pub(self, message: str | bytes) -> int:
        """Send a text or bytes to all subscribers; returns to how many it is on its way.

        Raises ``ArgumentError`` for other types: what is to be JSON is made JSON by who publishes, as with
        Node.
        """
        return self._publisher.publish(encode_message(message))

    async def stop(self) -> None:
        """Disconnect all subscribers, once they have what was published, or a second later."""
        await self._publisher.close()


class PeerSub:
    """Subscribes to all publishers of a name. Mirrors grenache-nodejs-base (lib/PeerSub.js).

    Node connects to one of them, once. This one connects to all, looks for new ones every ``interval``
    seconds (0.5 to 1.5 times that, and sooner after a loss) and comes back to those it lost. What was
    published meanwhile is not sent again. ``ssl`` makes it ``wss://``.

    Events: ``message`` calls ``listener(message, destination)`` with a text or bytes, ``connected`` and
    ``disconnected`` call ``listener(destination)``; one after the other, in order. While a listener is slow
    no more is read, until its publishers disconnect.
    """

    def __init__(self, link: Link, *, ssl: SSLContext | None = None, interval: float = limits.SUB_LOOKUP_S):
        self._link = link
        self._listeners: dict[str, Callable[..., Any]] = {}
        self._subscriber = Subscriber(
            self._lookup,
            self._deliver,
            ssl=check_context(ssl),
            interval_s=check_seconds(interval, "interval"),
        )
        self._stopped = False
        link.attach(self)

    async def __aenter__(self) -> PeerSub:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    @overload
    def on(self, event: str, listener: None = None) -> Callable[[Listener], Listener]: ...

    @overload
    def on(self, event: str, listener: Listener) -> Listener: ...

    def on(self, event: str, listener: Any = None) -> Any:
        """Set the listener of an event; without ``listener`` this is a decorator.

        It may be a coroutine function, which is awaited, or a plain function, which must not block. An event
        has one listener.
        """
        check_sub_event(event, self._listeners)
        if listener is None:
            return partial(self.on, event)
        self._listeners[event] = listener
        return listener

    async def sub(self, name: str) -> int:
        """Subscribe, until ``unsub``; returns to how many publishers it is connected now.

        None is no error: they are looked for as long as it takes, also while the Grape is away. Doing it
        again changes nothing.
        """
        check_name(name)
        if self._stopped:
            raise ClosedError("the subscriber is stopped")
        return await self._subscriber.follow(name)

    async def unsub(self, name: str) -> bool:
        """End what ``sub`` began; returns whether there was anything to end."""
        return await self._subscriber.unfollow(name)

    async def stop(self) -> None:
        """End all subscriptions; what no listener has seen yet is dropped."""
        self._stopped = True
        self._link.detach(self)
        await self._subscriber.close()

    async def _lookup(self, name: str) -> list[str]:
        return await self._link.lookup(name, fresh=True, timeout=limits.SUB_LOOKUP_TIMEOUT_S)

    async def _deliver(self, events: list[Event]) -> None:
        for event, arguments in events:
            listener = self._listeners.get(event)
            if listener is None:
                continue
            try:
                outcome = listener(*arguments)
                if inspect.isawaitable(outcome):
                    await outcome
            except Exception:
                log.exception("the listener of %s raised", event)

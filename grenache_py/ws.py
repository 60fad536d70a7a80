"""RPC and pub/sub over WebSocket. Mirrors grenache-nodejs-ws 1.0.0.

Connections live on a background loop that all of the process share; calls wait for it, listeners run in
threads.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ssl import SSLContext
from typing import Any, TypeVar, overload

from . import limits, peer
from .checks import check_count, check_listen_port, check_name, check_seconds, check_transport
from .errors import ArgumentError, ClosedError
from .link import Link
from .tls import Authorize, Certificate, check_authorize, check_context
from .transports.loop import LoopThread
from .transports.rpc_server import Handler
from .transports.ws_client import WsClient
from .transports.ws_frames import encode_call
from .transports.ws_pubsub import Event, Publisher, Subscriber, check_sub_event, encode_message
from .transports.ws_server import VerifyClient, Visitor, WsRpcServer

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
Result = TypeVar("Result")


class PeerRPCClient(peer.PeerRPCClient):
    """Calls the peers that announce a name, over WebSocket: ``ws://``, or ``wss://`` with ``ssl``.

    Thread-safe. As ``grenache_py.PeerRPCClient``, but ``compress`` and ``headers`` do not exist here. All
    calls to one destination share a connection; one that is lost fails the calls under way on it at once.
    """

    def __init__(self, link: Link, *, ssl: SSLContext | None = None, choice: str = "random"):
        super().__init__(link, ssl=ssl, choice=choice)
        self._ws_context = ssl
        self._ws_ended = False
        self._ws_begin()

    def _ws_begin(self) -> None:
        self._ws = WsClient(self._link.forget, ssl=self._ws_context)
        self._ws_pid = os.getpid()
        self._ws_loop: LoopThread | None = None
        self._ws_calls = 0
        # Guards the above; ``stop`` waits on it for the calls under way.
        self._ws_done = threading.Condition()

    def stop(self) -> None:
        """Close the connections; calls under way fail. Doing it again changes nothing."""
        super().stop()
        if self._ws_pid != os.getpid():
            return  # all of it belongs to the process that forked this one
        with self._ws_done:
            self._ws_ended = True
            thread, self._ws_loop = self._ws_loop, None
        if thread is None:
            return
        thread.run(self._ws.close())
        with self._ws_done:
            self._ws_done.wait_for(lambda: not self._ws_calls)
        LoopThread.give_back()

    def stream(self, *arguments: Any, **options: Any) -> Any:
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
    ) -> Any:
        if compress or headers:
            raise ArgumentError("compress" if compress else "headers", "exists only over HTTP")
        if self._ws_pid != os.getpid():
            self._ws_begin()  # threads and connections do not survive a fork
        rid = self._ws.new_rid()
        request = encode_call(rid, key, payload)
        with self._ws_done:
            if self._ws_ended:
                raise ClosedError("stopped before the call")
            if self._ws_loop is None:
                self._ws_loop = LoopThread.borrow()
            thread = self._ws_loop
            self._ws_calls += 1
        try:
            return thread.run(self._ws.call(destination, key, rid, request, timeout_s))
        finally:
            with self._ws_done:
                self._ws_calls -= 1
                self._ws_done.notify_all()


class PeerRPCServer(peer.PeerRPCServer):
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
        threads: int = limits.HANDLER_THREADS,
        ssl: SSLContext | None = None,
        authorize: Authorize | None = None,
        verify_client: VerifyClient | None = None,
    ):
        super().__init__(
            link, timeout=timeout, max_body=max_body, threads=threads, ssl=ssl, authorize=authorize
        )
        self._verify_client = verify_client

    def transport(self, name: str = "server") -> Service:
        """A new service, not listening yet. ``name`` is ``"server"``, the only kind there is."""
        check_transport(name)
        service = Service(
            self._timeout_s, self._max_body, self._threads, self._ssl, self._authorize, self._verify_client
        )
        self._services.append(service)
        return service


class Service(peer.Service):
    """One listening port whose requests go to a handler; made by ``PeerRPCServer.transport``. As
    ``grenache_py.Service``.
    """

    def __init__(
        self,
        timeout_s: float,
        max_body: int,
        threads: int,
        ssl: SSLContext | None = None,
        authorize: Callable[[Certificate], object] | None = None,
        verify_client: VerifyClient | None = None,
    ):
        super().__init__(timeout_s, max_body, threads)
        self._server = WsRpcServer(
            self._handle,
            self._bad_request,
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

    def __enter__(self) -> PeerPub:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def transport(self, name: str = "server") -> PubService:
        """A new service, not listening yet. ``name`` is ``"server"``, the only kind there is."""
        check_transport(name)
        service = PubService(self._ssl, self._authorize, self._verify_client, self._max_queue)
        self._services.append(service)
        return service

    def stop(self) -> None:
        """Stop all services."""
        self._link.detach(self)
        while self._services:
            self._services.pop().stop()


class PubService:
    """One listening port to which subscribers connect; made by ``PeerPub.transport``. Thread-safe."""

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
        self._thread: LoopThread | None = None

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        return self._publisher.port

    @property
    def subscribers(self) -> int:
        """How many are connected."""
        return self._publisher.subscribers

    def listen(self, port: int = 0, host: str | None = None) -> PubService:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all). Raises ``ListenError``."""
        check_listen_port(port)
        thread = LoopThread.borrow()
        try:
            thread.run(self._publisher.listen(port, host))
        except BaseException:
            LoopThread.give_back()
            raise
        self._thread = thread
        return self

    def pub(self, message: str | bytes) -> int:
        """Send a text or bytes to all subscribers; returns to how many it is on its way.

        Raises ``ArgumentError`` for other types: what is to be JSON is made JSON by who publishes, as with
        Node.
        """
        frame = encode_message(message)
        thread = self._thread
        return 0 if thread is None else thread.run(_now(self._publisher.publish, frame))

    def stop(self) -> None:
        """Disconnect all subscribers, once they have what was published, or a second later."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.run(self._publisher.close())
            LoopThread.give_back()


class PeerSub:
    """Subscribes to all publishers of a name. Mirrors grenache-nodejs-base (lib/PeerSub.js).

    Node connects to one of them, once. This one connects to all, looks for new ones every ``interval``
    seconds (0.5 to 1.5 times that, and sooner after a loss) and comes back to those it lost. What was
    published meanwhile is not sent again. ``ssl`` makes it ``wss://``.

    Events: ``message`` calls ``listener(message, destination)`` with a text or bytes, ``connected`` and
    ``disconnected`` call ``listener(destination)``; one after the other, in order, in a thread of this
    subscriber. While a listener is slow no more is read, until its publishers disconnect.
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
        # One thread for the listeners, one for look-ups.
        self._listening = ThreadPoolExecutor(1, "grenache-listener")
        self._looking = ThreadPoolExecutor(1, "grenache-lookup")
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._stopped = False
        link.attach(self)

    def __enter__(self) -> PeerSub:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @overload
    def on(self, event: str, listener: None = None) -> Callable[[Listener], Listener]: ...

    @overload
    def on(self, event: str, listener: Listener) -> Listener: ...

    def on(self, event: str, listener: Any = None) -> Any:
        """Set the listener of an event; without ``listener`` this is a decorator.

        It is a plain function. An event has one listener.
        """
        check_sub_event(event, self._listeners)
        if listener is None:
            return partial(self.on, event)
        if inspect.iscoroutinefunction(listener):
            raise ArgumentError("listener", "must be a plain function; coroutines need grenache_py.aio")
        self._listeners[event] = listener
        return listener

    def sub(self, name: str) -> int:
        """Subscribe, until ``unsub``; returns to how many publishers it is connected now.

        None is no error: they are looked for as long as it takes, also while the Grape is away. Doing it
        again changes nothing.
        """
        check_name(name)
        with self._lock:
            if self._stopped:
                raise ClosedError("the subscriber is stopped")
            if self._thread is None:
                self._thread = LoopThread.borrow()
            thread = self._thread
        return thread.run(self._subscriber.follow(name))

    def unsub(self, name: str) -> bool:
        """End what ``sub`` began; returns whether there was anything to end."""
        with self._lock:
            thread = self._thread
        return False if thread is None else thread.run(self._subscriber.unfollow(name))

    def stop(self) -> None:
        """End all subscriptions; what no listener has seen yet is dropped."""
        self._link.detach(self)
        with self._lock:
            self._stopped = True
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.run(self._subscriber.close())
            LoopThread.give_back()
        self._listening.shutdown(wait=False, cancel_futures=True)
        self._looking.shutdown(wait=False, cancel_futures=True)

    async def _lookup(self, name: str) -> list[str]:
        ask = partial(self._link.lookup, name, fresh=True, timeout=limits.SUB_LOOKUP_TIMEOUT_S)
        return await asyncio.get_running_loop().run_in_executor(self._looking, ask)

    async def _deliver(self, events: list[Event]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._listening, self._tell, events)

    def _tell(self, events: list[Event]) -> None:
        for event, arguments in events:
            listener = self._listeners.get(event)
            if listener is None or self._stopped:
                continue
            try:
                listener(*arguments)
            except Exception:
                log.exception("the listener of %s raised", event)


async def _now(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call it on the loop."""
    return function(*arguments)

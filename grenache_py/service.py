"""Services of either transport: requests go to listeners, in threads. Mirrors grenache-nodejs-base 1.1.0
(lib/PeerRPCServer.js).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from . import limits
from .checks import check_event, check_listen_port, check_transport
from .errors import BadRequestError, ClosedError
from .link import Link
from .listeners import Check, Listening
from .middleware import IncomingCall, Middleware, chain
from .rpc_frames import Request
from .transports import streams
from .transports.loop import LoopUser
from .transports.rpc_server import Handler, MakeServer, Receiver
from .transports.stream_server import finish
from .transports.sync_stream import Stream, run
from .transports.threads import Threads

log = logging.getLogger(__name__)

Self = TypeVar("Self", bound="Serving[Any]")


class Stoppable(Protocol):
    def stop(self) -> None: ...


ServiceT = TypeVar("ServiceT", bound=Stoppable)


class Serving(Generic[ServiceT]):
    """Makes services, and stops them with itself and its Link."""

    def __init__(self, link: Link, make: Callable[[], ServiceT]):
        self._link = link
        self._make = make
        self._services: list[ServiceT] = []
        link.attach(self)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def transport(self, name: str = "server") -> ServiceT:
        """A new service, not listening yet. ``name`` is ``"server"``, the only kind there is."""
        check_transport(name)
        service = self._make()
        self._services.append(service)
        return service

    def stop(self) -> None:
        """Stop all services."""
        self._link.detach(self)
        while self._services:
            self._services.pop().stop()


class Service(Listening):
    """One listening port whose requests go to a handler; made by ``PeerRPCServer.transport``.

    Events: ``request`` calls ``handler(rid, key, payload, handler)``, a plain function, in one of the
    service's threads. It answers by ``handler.reply(error, result)``, then or later. When it raises, the
    caller is answered with the error's class and message. ``request-error`` calls ``listener(error)`` with a
    ``BadRequestError`` for a body that is no request (which was already answered).

    With ``disable_buffered``, in place of ``request``, or with ``streams``, beside it: ``stream`` calls
    ``listener(rid, key, stream, handler)`` likewise. It reads and writes the ``Stream``, or answers by
    ``handler.reply``; ``handler.action``, ``args`` and ``headers`` say what it is about. The stream ends when
    it returns, and is cut when it raises after it has written.

    Connections are served on a background loop, which all services of the process share.
    """

    def __init__(
        self,
        link: Link,
        make: MakeServer,
        threads: int,
        concurrency: int,
        middleware: tuple[Middleware[IncomingCall], ...] = (),
        check: Check = check_event,
    ):
        super().__init__(check, coroutines=False)
        self._link = link
        self._middleware = middleware
        self._server = make(Receiver(self._handle, self._handle_stream, self._bad_request))
        self._loop = LoopUser()
        self._new_threads = partial(
            Threads, threads, "grenache-handler", concurrency, lambda: self._server.loop
        )
        self._threads = self._new_threads()

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        return self._server.port

    def listen(self, port: int = 0, host: str | None = None) -> Service:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all). Raises ``ListenError``."""
        check_listen_port(port)
        self._loop.begin(partial(self._server.listen, port, host))
        return self

    def stop(self, *, drain: float = limits.DRAIN_S) -> None:
        """Withdraw the announcements of its port and accept no more; requests in hand have ``drain`` seconds
        to be answered, then they are dropped.

        Handlers that run go on to their end, their replies go nowhere.
        """
        if self._loop.thread is not None:
            self._link.withdraw(self.port)
        if self._loop.end(partial(self._server.close, drain)):
            threads, self._threads = self._threads, self._new_threads()
            threads.stop(drop=True)

    def _handle(self, request: Request, handler: Handler) -> None:
        listener = self._listeners.get("request")
        if listener is None:
            handler.refuse(501, "ERR_SERVER_NO_HANDLER")
        elif not self._threads.submit(self._run, listener, request, handler):
            handler.refuse(503, "ERR_BUSY")

    def _run(self, listener: Callable[..., Any], request: Request, handler: Handler) -> None:
        if handler.replied:
            return  # its time passed while it waited for a thread
        try:
            if self._middleware:
                call = IncomingCall(request.rid, request.key, request.payload, handler)
                chain(self._middleware, partial(_listen, listener))(call)
            else:
                listener(request.rid, request.key, request.payload, handler)
        except Exception as error:
            handler.fail(error)

    def _handle_stream(self, request: Request, stream: streams.Stream, handler: Handler) -> None:
        listener = self._listeners.get("stream")
        if listener is None:
            handler.refuse(501, "ERR_SERVER_NO_HANDLER")
        elif not self._threads.submit(self._run_stream, listener, request, stream, handler):
            handler.refuse(503, "ERR_BUSY")

    def _run_stream(
        self, listener: Callable[..., Any], request: Request, stream: streams.Stream, handler: Handler
    ) -> None:
        loop = self._server.loop
        failure = None
        try:
            call = IncomingCall(request.rid, request.key, None, handler, Stream(stream, loop))
            chain(self._middleware, partial(_listen, listener))(call)
        except Exception as error:
            failure = error
        try:
            run(finish(stream, handler, failure), loop)
        except ClosedError:
            log.debug("a stream ended after the service had stopped")

    def _bad_request(self, error: BadRequestError) -> None:
        self._threads.submit(self._report, error)


def _listen(listener: Callable[..., Any], call: IncomingCall) -> Any:
    what = call.payload if call.stream is None else call.stream
    return listener(call.rid, call.key, what, call.handler)

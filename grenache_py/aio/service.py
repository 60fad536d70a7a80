"""Services of either transport: requests go to listeners, on the loop. Mirrors grenache-nodejs-base 1.1.0
(lib/PeerRPCServer.js).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from .. import limits
from ..checks import check_event, check_listen_port, check_transport
from ..listeners import Check, Listening
from ..middleware import IncomingCall, Middleware, chain
from ..tasks import end_tasks
from ..transports.rpc_server import Handler, MakeServer, Receiver
from ..transports.stream_server import finish
from ..transports.streams import Stream
from ..wire import Request
from .link import Link

Self = TypeVar("Self", bound="Serving[Any]")


class Stoppable(Protocol):
    async def stop(self) -> None: ...


ServiceT = TypeVar("ServiceT", bound=Stoppable)


class Serving(Generic[ServiceT]):
    """Makes services, and stops them with itself and its Link."""

    def __init__(self, link: Link, make: Callable[[], ServiceT]):
        self._link = link
        self._make = make
        self._services: list[ServiceT] = []
        link.attach(self)

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def transport(self, name: str = "server") -> ServiceT:
        """A new service, not listening yet. ``name`` is ``"server"``, the only kind there is."""
        check_transport(name)
        service = self._make()
        self._services.append(service)
        return service

    async def stop(self) -> None:
        """Stop all services."""
        self._link.detach(self)
        while self._services:
            await self._services.pop().stop()


class Service(Listening):
    """One listening port whose requests go to a handler; made by ``PeerRPCServer.transport``.

    Events: ``request`` calls ``handler(rid, key, payload, handler)``, a coroutine function, which runs as a
    task, or a plain function, which must not block. It answers by ``handler.reply(error, result)``, then or
    later. When it raises, the caller is answered with the error's class and message. ``request-error`` calls
    ``listener(error)``, a plain function, with a ``BadRequestError`` for a body that is no request (which was
    already answered).

    With ``disable_buffered``, in place of ``request``, or with ``streams``, beside it: ``stream`` calls
    ``listener(rid, key, stream, handler)``, a coroutine function. It reads and writes the ``Stream``, or
    answers by ``handler.reply``; ``handler.action``, ``args`` and ``headers`` say what it is about. The
    stream ends when it returns, and is cut when it raises after it has written.

    Over HTTP, with a listener for ``websocket``, who asks on the same port for a WebSocket gets one, and
    ``listener(channel, visitor)`` what comes on it, see ``transports.ws``.
    """

    def __init__(
        self,
        link: Link,
        make: MakeServer,
        middleware: tuple[Middleware[IncomingCall], ...] = (),
        check: Check = check_event,
    ):
        super().__init__(check, coroutines=True)
        self._link = link
        self._middleware = middleware
        self._listens = False
        receiver = Receiver(
            self._handle,
            self._handle_stream,
            self._report,
            self._expired,
            lambda: self._listeners.get("websocket"),
        )
        self._server = make(receiver)
        self._tasks: dict[Handler, asyncio.Task[None]] = {}

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        return self._server.port

    async def listen(self, port: int = 0, host: str | None = None) -> Service:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all of them). Raises
        ``ListenError``.
        """
        await self._server.listen(check_listen_port(port), host)
        self._listens = True
        return self

    async def stop(self, *, drain: float = limits.DRAIN_S) -> None:
        """Withdraw the announcements of its port and accept no more; requests in hand have ``drain`` seconds
        to be answered, then they are dropped.
        """
        if self._listens:
            self._listens = False
            await self._link.withdraw(self.port)
        await self._server.close(drain)
        await end_tasks(self._tasks.values())

    def _handle(self, request: Request, handler: Handler) -> None:
        listener = self._listeners.get("request")
        if listener is None:
            handler.refuse(501, "ERR_SERVER_NO_HANDLER")
            return
        try:
            if self._middleware:
                call = IncomingCall(request.rid, request.key, request.payload, handler)
                outcome = chain(self._middleware, partial(_listen, listener))(call)
            else:
                outcome = listener(request.rid, request.key, request.payload, handler)
        except Exception as error:
            handler.fail(error)
            return
        if outcome is not None and inspect.isawaitable(outcome):
            self._begin(handler, self._finish(outcome, handler))

    def _begin(self, handler: Handler, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[handler] = task
        task.add_done_callback(lambda _: self._tasks.pop(handler))

    async def _finish(self, outcome: Awaitable[Any], handler: Handler) -> None:
        try:
            await outcome
        except Exception as error:
            handler.fail(error)

    def _handle_stream(self, request: Request, stream: Stream, handler: Handler) -> None:
        listener = self._listeners.get("stream")
        if listener is None:
            handler.refuse(501, "ERR_SERVER_NO_HANDLER")
            return
        self._begin(handler, self._run_stream(listener, request, stream, handler))

    async def _run_stream(
        self, listener: Callable[..., Any], request: Request, stream: Stream, handler: Handler
    ) -> None:
        try:
            call = IncomingCall(request.rid, request.key, None, handler, stream)
            await chain(self._middleware, partial(_listen, listener))(call)
        except Exception as error:
            await finish(stream, handler, error)
        else:
            await finish(stream, handler)

    def _expired(self, handler: Handler) -> None:
        task = self._tasks.get(handler)
        if task is not None:
            task.cancel()


async def _listen(listener: Callable[..., Any], call: IncomingCall) -> None:
    what = call.payload if call.stream is None else call.stream
    outcome = listener(call.rid, call.key, what, call.handler)
    if inspect.isawaitable(outcome):
        await outcome

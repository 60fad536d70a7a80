"""Services of either transport: requests go to listeners, on the loop. Mirrors grenache-nodejs-base 1.1.0
(lib/PeerRPCServer.js).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from .. import limits
from ..checks import check_event, check_listen_port, check_transport
from ..listeners import Check, Listening
from ..middleware import IncomingCall, Middleware
from ..transports.rpc_server import MakeServer, Receiver
from .handling import Handling
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
        self._listens = False
        self._handling = Handling(self._listeners, middleware)
        receiver = Receiver(
            self._handling.handle,
            self._handling.handle_stream,
            self._report,
            self._handling.expired,
            lambda: self._listeners.get("websocket"),
        )
        self._server = make(receiver)

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
        await self._handling.end()

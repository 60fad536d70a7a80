"""A lean HTTP/1.1 server: ``httptools`` parses, ``asyncio.Protocol`` moves the bytes.

It serves the Grape's HTTP API and the RPC server, where a request is small and an answer is one piece.
The handler is a plain function and may answer later, from any callback on the loop; no task is made per
request.

Replies look like those of Node's ``http`` (``Date``, ``Connection``, ``Keep-Alive: timeout=5``), with an
exact ``Content-Length``.
"""

from __future__ import annotations

import asyncio
import logging
from ssl import SSLContext

from .. import limits
from .busy_poll import BusyPoll
from .connections import Connections
from .http1_connection import Connection, Handler, Shared, Upgrade
from .http1_head import ReplyHeads
from .http1_known import KnownHeads
from .http1_requests import Divert
from .ports import Listener, bind, serve
from .turns import Turns

log = logging.getLogger(__name__)


class HttpServer:
    """Listens on one port and hands each complete request to ``handle``.

    ``handle`` is called on the loop and must not block; what it raises is logged and answered with
    ``on_handler_error``. A body of more than ``max_body`` bytes is answered with ``on_too_large`` as soon as
    that many have arrived. ``keep_alive_s`` is how long an idle connection stays open; ``request_timeout_s``
    how long a request may take to arrive, and a reply to be taken off our hands. When there are
    ``max_connections``, or few files are left that this process may open, a new one takes the place of the
    oldest that has no request in hand, from the address that has most, so that who keeps connections open for
    nothing does not shut out the others; without such a one it is answered with ``on_busy``, unasked, and
    closed. Clients at different addresses have their requests handled in turn.

    When all connections together hold more than ``max_held`` bytes, of requests that are not whole and of
    replies that are not taken, those that hold most are answered with ``on_busy``, or cut off.

    A request for another protocol (RFC 9110 section 7.8) is shown to ``upgrade``: the protocol that it
    returns gets the connection, beginning with the head of that very request, and is no longer ours to count
    or to close. So it is with ``divert``, which is shown the headers of every request before its body.

    With ``poll`` the loop stays awake for a moment after a connection has all its replies: who waits for a
    reply before asking again may do that sooner than a processor wakes up.
    """

    def __init__(
        self,
        handle: Handler,
        *,
        max_body: int,
        keep_alive_s: float = 5.0,
        request_timeout_s: float = 60.0,
        on_too_large: tuple[int, bytes] = (413, b""),
        on_handler_error: tuple[int, bytes] = (500, b""),
        on_busy: tuple[int, bytes] = (503, b""),
        max_connections: int = 10_000,
        max_held: int = limits.HELD_BYTES_MAX,
        upgrade: Upgrade | None = None,
        divert: Divert | None = None,
        poll: BusyPoll | None = None,
    ) -> None:
        self.connections: Connections[Connection] = Connections(max_connections)
        self._shared = Shared(
            handle=handle,
            upgrade=upgrade,
            divert=divert,
            poll=poll,
            max_body=max_body,
            keep_alive_s=keep_alive_s,
            request_timeout_s=request_timeout_s,
            on_too_large=on_too_large,
            on_handler_error=on_handler_error,
            on_busy=on_busy,
            heads=ReplyHeads(int(keep_alive_s)),
            known_heads=KnownHeads(),
            connections=self.connections,
            turns=Turns(lambda callback: asyncio.get_running_loop().call_soon(callback)),
            tick_s=min(1.0, keep_alive_s / 4, request_timeout_s / 4),
        )
        self._max_held = max_held
        self._port: int | None = None
        self._server: Listener | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        if self._port is None:
            raise RuntimeError("the server does not listen yet")
        return self._port

    async def listen(self, port: int, host: str | None = None, ssl: SSLContext | None = None) -> None:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all interfaces, IPv6 and IPv4).

        Raises OSError when the address is taken or cannot be resolved.
        """
        if self._server is not None:
            raise RuntimeError("the server listens already")
        loop = asyncio.get_running_loop()
        sock = await bind(loop, port, host)
        self._server = await serve(sock, lambda: Connection(self._shared), ssl)
        self._port = sock.getsockname()[1]
        self.connections.open()
        self._tick()

    def stop_accepting(self) -> None:
        """Take no new connections; ``close`` ends those that there are."""
        if self._server is not None:
            self._server.close()
            self.connections.closed = True

    async def close(self, drain_s: float = 0.0) -> None:
        """Accept no more, give the requests in hand up to ``drain_s`` to be answered, then close them all."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in self.connections:
            connection.drain()
        await self.connections.end(drain_s)
        await server.wait_closed()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _shed(self, held: int) -> None:
        log.warning("connections hold %d bytes of requests and replies; the largest are ended", held)
        for connection in sorted(self.connections, key=lambda each: each.held, reverse=True):
            if held <= self._max_held:
                return
            held -= connection.held
            connection.shed()

    def _tick(self) -> None:
        """One coarse timer for every limit in time of every connection."""
        loop = asyncio.get_running_loop()
        self._shared.now = loop.time()
        held = 0
        for connection in self.connections:
            connection.check(self._shared.now)
            held += connection.held
        if held > self._max_held:
            self._shed(held)
        self._timer = loop.call_later(self._shared.tick_s, self._tick)

"""TLS handshakes of a server: bounded in number and time, from the moment of the connection on.

A loop's own TLS tells of a connection when its handshake is done; who never begins one could have all files
that the process may open, for as long as handshakes may take.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from ssl import SSLContext
from typing import cast

from .. import limits
from ..errors import reason
from .connections import Connections
from .handover import feed, move

log = logging.getLogger(__name__)


class Handshakes:
    """Those under way at one port. ``protocol()`` makes what goes on with a connection, over TLS."""

    def __init__(self, ssl: SSLContext, protocol: Callable[[], asyncio.BaseProtocol]):
        self.ssl = ssl
        self.protocol = protocol
        self.connections: Connections[Handshake] = Connections(limits.HANDSHAKES_MAX)

    def begin(self) -> Handshake:
        """What a new connection is given to."""
        return Handshake(self)

    async def end(self) -> None:
        """Take no more, and end those that there are."""
        await self.connections.end(0)


class Handshake(asyncio.Protocol):
    """One connection, until it is another's."""

    def __init__(self, handshakes: Handshakes):
        self._handshakes = handshakes
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio has it."""
        self._transport = cast(asyncio.Transport, transport)
        connections = self._handshakes.connections
        # Where there is no room, that may be made by whoever gets the connection.
        if not connections.admit(self, transport) and connections.crowded(transport):
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(limits.HANDSHAKE_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """The beginning of the handshake; the rest is for TLS to read."""
        self._transport.pause_reading()
        self._task = self._loop.create_task(self._shake_hands())
        # When the task has begun, TLS has been told of its connection once more of the loop has run.
        self._loop.call_soon(self._loop.call_soon, self._feed, data)

    def connection_lost(self, error: Exception | None) -> None:
        """As asyncio has it; only of one that said nothing."""
        self._left()

    @property
    def busy(self) -> bool:
        """Whether its end has come already, as ``Connections`` asks."""
        return self._transport.is_closing()

    def abort(self) -> None:
        """End it at once."""
        self._transport.abort()

    def _left(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._handshakes.connections.left(self)

    def _feed(self, data: bytes) -> None:
        feed(self._transport, self._transport.get_protocol(), data)

    async def _shake_hands(self) -> None:
        early = _Early()
        secured: asyncio.Transport | None = None
        try:
            secured = await self._loop.start_tls(
                self._transport, early, self._handshakes.ssl, server_side=True
            )
        except OSError as error:  # TLS's own errors are such, too
            log.debug("no TLS handshake: %s", reason(error))
        finally:
            self._left()
        # A connection that was ended meanwhile may count as secured to the loop.
        if secured is None or early.lost or self._transport.is_closing():
            self._transport.abort()
        else:
            move(secured, self._handshakes.protocol(), b"".join(early.data))


class _Early(asyncio.Protocol):
    """Keeps what comes with the end of a handshake, before that is told."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.data.append(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

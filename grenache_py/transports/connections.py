"""The connections of one server: how many there may be, and when the last one has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain, islice
from typing import Generic, Protocol, TypeVar

from .. import limits
from . import descriptors
from .turns import Source, source_of

# Of the oldest connections, so many are looked at for one that can make room, and of the sources for the one
# that has most: a flood must not cost more.
_LOOKED_AT_FOR_ROOM = 100
_SOURCES_LOOKED_AT = 1000


class Connection(Protocol):
    """What is counted here."""

    @property
    def busy(self) -> bool:
        """Whether it must not be ended to make room."""

    def abort(self) -> None:
        """End it at once."""


ConnectionT = TypeVar("ConnectionT", bound=Connection)


class Connections(Generic[ConnectionT]):
    """At most ``most`` of them, in the order they were made, and by the address that they come from."""

    def __init__(self, most: int):
        self._most = most
        self._present: dict[ConnectionT, tuple[asyncio.BaseTransport, str]] = {}
        #: the clients of each address
        self.sources: dict[str, Source] = {}
        self._all_gone: asyncio.Event | None = None
        #: no new ones are taken
        self.closed = False

    def __len__(self) -> int:
        return len(self._present)

    def __iter__(self) -> Iterator[ConnectionT]:
        """Those of now; they may go meanwhile."""
        return iter(list(self._present))

    def admit(
        self, connection: ConnectionT, transport: asyncio.BaseTransport, *, counted: bool = False
    ) -> bool:
        """Count a new one; returns whether there is room for it, also among the files that this process may
        have open.

        If need be one that is not busy makes room, the oldest of the source that has most: so who keeps
        connections open for nothing does not shut out the others. A source does not displace one that has
        fewer, and keeps busy ones as long as those are no more than half of all. One that is not admitted
        counts too, until it has gone. ``counted``: among the files it has had its place before, as another's.
        """
        host = _host_of(transport)
        own = self.sources.setdefault(host, Source())
        own.clients[connection] = None
        self._present[connection] = transport, host
        descriptors.take(transport)
        if self.closed:
            return False
        if len(self._present) <= self._most and descriptors.room(transport) >= 0:
            return True
        largest = max(islice(self.sources.values(), _SOURCES_LOOKED_AT), key=_size)
        for other in chain(
            islice(largest.clients, _LOOKED_AT_FOR_ROOM), islice(self._present, _LOOKED_AT_FOR_ROOM)
        ):
            source = self.sources.get(self._present[other][1])
            if not other.busy and other is not connection and source and _size(source) >= _size(own):
                self._end(other, source)
                return True
        if largest is not own and _size(largest) > self._most // 2:
            self._end(next(iter(largest.clients)), largest)
            return True
        return counted and len(self._present) <= self._most

    def _end(self, connection: ConnectionT, source: Source) -> None:
        # It is still there for a moment, but not to be ended again.
        source.clients.pop(connection, None)
        connection.abort()

    def source(self, connection: ConnectionT) -> Source:
        """Where it comes from, together with the others from there."""
        return self.sources[self._present[connection][1]]

    def crowded(self, transport: asyncio.BaseTransport) -> bool:
        """Whether there is not even room for telling one that was not admitted."""
        return (
            self.closed
            or len(self._present) > self._most + limits.CONNECTIONS_TOLD
            or descriptors.room(transport) < -descriptors.to_tell()
        )

    def left(self, connection: ConnectionT) -> None:
        """It has gone."""
        transport, host = self._present.pop(connection, (None, ""))
        if transport is not None:
            descriptors.give_back(transport)
            source = self.sources.get(host)
            if source is not None:
                source.clients.pop(connection, None)
                if not source.clients:
                    del self.sources[host]
        if self._all_gone is not None and not self._present:
            self._all_gone.set()

    def open(self) -> None:
        """Take new ones."""
        self.closed = False

    async def end(self, drain_s: float) -> None:
        """Take no more; those there are have ``drain_s`` seconds to end, then they are ended."""
        self.closed = True
        self._all_gone = asyncio.Event()
        if self._present and drain_s > 0:
            try:
                await asyncio.wait_for(self._all_gone.wait(), drain_s)
            except asyncio.TimeoutError:
                pass
        for connection in self:
            connection.abort()
        if self._present:
            await self._all_gone.wait()


def _host_of(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return source_of(name[0]) if isinstance(name, tuple) else ""


def _size(source: Source) -> int:
    return len(source.clients)

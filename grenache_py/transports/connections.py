"""The connections of one server: how many there may be, and when the last one has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Generic, Protocol, TypeVar

from .. import limits
from . import descriptors

# Of the oldest connections, so many are looked at for one that can make room: a flood must not cost more.
_LOOKED_AT_FOR_ROOM = 100


class Connection(Protocol):
    """What is counted here."""

    @property
    def busy(self) -> bool:
        """Whether it must not be ended to make room."""

    def abort(self) -> None:
        """End it at once."""


ConnectionT = TypeVar("ConnectionT", bound=Connection)


class Connections(Generic[ConnectionT]):
    """At most ``most`` of them, in the order they were made."""

    def __init__(self, most: int):
        self._most = most
        self._present: dict[ConnectionT, asyncio.BaseTransport] = {}
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
        have open. If need be the oldest that is not busy makes room, so that who keeps connections open for
        nothing does not shut out the others.

        One that is not admitted counts too, until it has gone. ``counted``: among the files it has had its
        place before, as another's.
        """
        self._present[connection] = transport
        descriptors.take(transport)
        if self.closed:
            return False
        if len(self._present) <= self._most and descriptors.room(transport) >= 0:
            return True
        for other in islice(self._present, _LOOKED_AT_FOR_ROOM):
            if not other.busy and other is not connection:
                other.abort()
                return True
        return counted and len(self._present) <= self._most

    def crowded(self, transport: asyncio.BaseTransport) -> bool:
        """Whether there is not even room for telling one that was not admitted."""
        return (
            self.closed
            or len(self._present) > self._most + limits.CONNECTIONS_TOLD
            or descriptors.room(transport) < -descriptors.to_tell()
        )

    def left(self, connection: ConnectionT) -> None:
        """It has gone."""
        transport = self._present.pop(connection, None)
        if transport is not None:
            descriptors.give_back(transport)
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

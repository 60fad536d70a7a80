"""The journal: what a market must not forget, durable before anybody is told.

:class:`Journal` is what a worker needs of one. :class:`MemoryJournal` forgets with the process;
:class:`~orderbook.journal.writer.SqliteJournal` keeps a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .. import limits
from ..events import Event, Signed
from ..trade import Trade


class Log(Protocol):
    """Events in order, and word of when they are durable."""

    def append(self, events: Sequence[Event]) -> None:
        """Take the events of one step; after a crash either all of them are there or none."""

    def when_durable(self, then: Callable[[], None]) -> None:
        """Call ``then`` once all that was appended so far is durable; at once where it is already."""

    def when_archived(self, then: Callable[[], None]) -> None:
        """Call ``then`` once trades appended so far are found where old ones are looked up."""

    @property
    def waiting(self) -> int:
        """How much is not durable yet."""


class Journal(Log, Protocol):
    """A log that is kept, and what a market looks up in it."""

    async def durable(self) -> None:
        """Returns once all that was appended so far is durable. Raises JournalError when it never will be."""

    async def trades(self, after: int, limit: int) -> Sequence[Trade]:
        """At most ``limit`` trades, from the one that ``after`` others come before. The newest need not be
        durable yet, here and below. Raises JournalError."""

    async def trades_of_order(self, order_id: str, most: int) -> Sequence[Trade]:
        """The newest ``most`` trades of an order of ours. Raises JournalError."""

    async def proofs(self, match_id: str) -> Sequence[Signed]:
        """What both peers of matches of that id have signed, if that is kept here. Raises JournalError."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written at the moment, or None. What waits, waits until it is over."""

    async def close(self) -> None:
        """Write what is left and let go of the file."""


class MemoryJournal:
    """Keeps the newest proofs and nothing else, for markets that may end with their process."""

    trouble: str | None = None
    waiting = 0

    def __init__(self) -> None:
        self._signed: dict[str, list[Signed]] = {}
        self._count = 0

    def append(self, events: Sequence[Event]) -> None:
        for event in events:
            if type(event) is Signed:
                self._signed.setdefault(event.match_id, []).append(event)
                self._count += 1
                if self._count > limits.PROOFS_IN_MEMORY:
                    self._count -= len(self._signed.pop(next(iter(self._signed))))

    def when_durable(self, then: Callable[[], None]) -> None:
        then()

    def when_archived(self, then: Callable[[], None]) -> None:
        then()

    async def durable(self) -> None:
        pass

    async def trades(self, after: int, limit: int) -> Sequence[Trade]:
        return []

    async def trades_of_order(self, order_id: str, most: int) -> Sequence[Trade]:
        return []

    async def proofs(self, match_id: str) -> Sequence[Signed]:
        return self._signed.get(match_id, [])

    async def close(self) -> None:
        pass

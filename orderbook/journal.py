"""The journal: what a market must not forget, durable before anybody is told.

:class:`Journal` is what a worker needs of one. :class:`MemoryJournal` forgets with the process;
:class:`SqliteJournal` keeps a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .events import Event


class Journal(Protocol):
    """Events in order, and word of when they are durable."""

    def append(self, events: Sequence[Event]) -> None:
        """Take the events of one step; after a crash either all of them are there or none."""

    def when_durable(self, then: Callable[[], None]) -> None:
        """Call ``then`` once all that was appended so far is durable; at once where it is already."""


class MemoryJournal:
    """Keeps nothing: for learning, tests and markets that may end with their process."""

    def append(self, events: Sequence[Event]) -> None:
        pass

    def when_durable(self, then: Callable[[], None]) -> None:
        then()

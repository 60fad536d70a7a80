"""Keeps a journal's file short while it is written: checkpoints of SQLite's log, and snapshots."""

from __future__ import annotations

import logging
import sqlite3

from .. import limits
from .file import JournalFile
from .snapshotter import Snapshot, Snapshotter

DROPPED_AT_A_TIME = 2_000
"""Events that a snapshot has replaced are deleted so many at a time: some milliseconds."""

log = logging.getLogger(__name__)


class Upkeep:
    """Of one open file; by whoever has the file at the moment."""

    def __init__(self, file: JournalFile):
        self._file = file
        self._writes = limits.JOURNAL_CHECKPOINT_WRITES
        """Transactions since the last checkpoint; the first one has to wait for the disk as well."""
        self._snapshotter: Snapshotter | None = None
        self._made: Snapshot | str | None = None
        self._snapshot_wanted_at = file.snapshot_number() + limits.JOURNAL_SNAPSHOT
        self._replaced = True
        """There may be events for which the snapshot stands."""

    def wrote(self, events: int) -> None:
        """A transaction of so many was written."""
        self._writes += 1 + events // limits.JOURNAL_CHECKPOINT_EVENTS

    @property
    def checkpoint_due(self) -> bool:
        return self._writes >= limits.JOURNAL_CHECKPOINT_WRITES

    def checkpoint(self) -> None:
        """The write after it waits for the disk itself, as SQLite begins the log anew. Blocking."""
        try:
            self._file.checkpoint()
        except sqlite3.Error as error:
            log.warning("the log of %s stays longer than it has to: %s", self._file.path, error)
        self._writes = 0

    @property
    def longer_than_it_has_to(self) -> bool:
        """Whether there is something to do for :meth:`keep_short`."""
        wanted = self._snapshotter is None and self._file.number >= self._snapshot_wanted_at
        return wanted or self._replaced or self._made is not None

    def keep_short(self) -> None:
        """Have a snapshot made now and then, take it when it is there, and delete little by little what it
        replaces, so that nobody waits for long. All that is in the file must be durable. Blocking."""
        file = self._file
        made, self._made = self._made, None
        if made is not None:
            self._snapshotter = None
        try:
            if isinstance(made, Snapshot):
                file.install(made.number, made.trades, made.data)
                self._replaced = True
                log.info("%s: a snapshot of the first %d events", file.path, made.number)
            elif made is not None:
                log.warning("%s: no snapshot: %s", file.path, made)
            if self._replaced:
                self._replaced = file.drop_replaced(DROPPED_AT_A_TIME)
        except sqlite3.Error as error:
            log.warning("%s stays longer than it has to: %s", file.path, error)
        if file.number >= self._snapshot_wanted_at and self._snapshotter is None:
            self._snapshot_wanted_at = file.number + limits.JOURNAL_SNAPSHOT
            self._snapshotter = Snapshotter(
                file.path, file.meta, file.number, file.trade_count, self._snapshot_made
            )

    def _snapshot_made(self, made: Snapshot | str) -> None:
        self._made = made

    def stop(self) -> None:
        """Give up the snapshot that is being made, if one is. Blocking."""
        if self._snapshotter is not None:
            self._snapshotter.stop()

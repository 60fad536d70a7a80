"""The tables of a journal's file, in SQLite's WAL mode: one msgpack row for each event. Blocking.

    meta       what this is the journal of: peer, market, tick, lot, instrument's fingerprint; the starts that
               went on with it; whether a redo log belongs to it; and a checksum
    events     number, packed event, checksum: what a snapshot replaces
    trades     the same and their position, for trades, which are kept for good; found by match and order
    proofs     the same, for what both peers of a match have signed, kept for good too; found by match
    snapshot   one row: what the events up to its number, and as many trades, add up to

The numbers of events, trades and proofs follow each other without a gap, across the three tables. A
transaction holds whole steps, so that a crash keeps each step or forgets it. What SQLite does not notice (a
changed byte in a page that still parses, a missing row) the checksums, numbers and positions do.
"""

from __future__ import annotations

import heapq
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgpack

from ..errors import JournalError
from ..events import Event
from ..recovery import Recovered
from .inserts import insert_events
from .rows import PROOF_COLUMNS, TRADE_COLUMNS, Rows, checksum

PAGE_ROWS = 1_000
"""Rows that are read at a time."""

Unread = tuple[int, Callable[[], Event] | None]
"""Number of an event, and how to read it: its row is checked then, so that faults are met in their order."""


class Tables:
    """Those of a file that was found to be a journal; one thread at a time.

    Args:
        path: Of the file, for what is said of its faults.
        db: The connection.
        meta: What this is the journal of.

    Attributes:
        number: Of the last event.
        trade_count: Trades in it.

    Raises:
        JournalError: A number in them is none.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, meta: dict[str, str]):
        self.path = path
        self.meta = meta
        self._db = db
        self._rows = Rows(path, db, meta["peer"])
        [(self.trade_count,)] = self._rows.select("SELECT ifnull(max(position), 0) FROM trades")
        numbers = self._rows.select(
            "SELECT max(number) FROM events UNION SELECT max(number) FROM snapshot "
            "UNION SELECT max(number) FROM proofs UNION SELECT number FROM trades WHERE position = ?",
            self.trade_count,
        )
        self.number = max(self._whole(number or 0, "events or trades") for (number,) in numbers)

    def _transaction(self) -> Transaction:
        return Transaction(self._db)

    # -- writing -----------------------------------------------------------------------------------

    def write(self, events: Sequence[Event], packed: Sequence[bytes] | None = None) -> None:
        """Append ``events`` in one transaction, which is not synced here. ``packed``: each as a row has it,
        if that is there already. Raises sqlite3.Error, having written nothing.
        """
        with self._transaction():
            position = insert_events(
                self._db, self.meta["peer"], self.number, self.trade_count, events, packed
            )
        self.number += len(events)
        self.trade_count = position

    def checkpoint(self) -> None:
        """Copy the log to where it belongs, durably, so that it begins anew with the next transaction.

        Raises sqlite3.Error, with nothing lost.
        """
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def compact(self) -> Recovered:
        """Replace the events by a snapshot of what they add up to, which is returned; trades and their proofs
        are kept.

        Raises JournalError for a damaged file, which stays as it is, and for a disk without room, where
        nothing is lost.
        """
        state = self.recover()
        self.replace_by(state)
        return state

    def replace_by(self, state: Recovered) -> None:
        """As :meth:`compact`, with what :meth:`recover` has returned."""
        data = msgpack.packb(state.to_plain())
        try:
            with self._transaction():
                self._install(self.number, self.trade_count, data)
                self._db.execute("DELETE FROM events")
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} can't be compacted ({error}); nothing is lost") from error

    def install(self, number: int, trades: int, data: bytes) -> None:
        """Take a packed snapshot of the events up to ``number``, and of as many trades.

        Raises sqlite3.Error, having changed nothing.
        """
        with self._transaction():
            self._install(number, trades, data)

    def _install(self, number: int, trades: int, data: bytes) -> None:
        self._db.execute("DELETE FROM snapshot")
        row = (number, trades, data, checksum(number, data))
        self._db.execute("INSERT INTO snapshot VALUES (?, ?, ?, ?)", row)

    def drop_replaced(self, most: int) -> bool:
        """Delete ``most`` of the events for which the snapshot stands. Returns whether there may be more.

        Raises sqlite3.Error, having changed nothing.
        """
        with self._transaction():
            deleted = self._db.execute(
                "DELETE FROM events WHERE number IN (SELECT number FROM events WHERE number <= "
                "(SELECT max(number) FROM snapshot) ORDER BY number LIMIT ?)",
                (most,),
            )
        return deleted.rowcount == most

    def shrink(self) -> None:
        """Give the room of what is gone back to the disk. Raises JournalError, where nothing is lost."""
        try:
            self._db.execute("VACUUM")
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} can't be shrunk ({error}); nothing is lost") from error

    # -- reading -----------------------------------------------------------------------------------

    def recover(self) -> Recovered:
        """What snapshot and events add up to. Raises JournalError for a damaged file."""
        return self.snapshot().apply(event for _, event in self._after_snapshot(proofs=False))

    def snapshot(self) -> Recovered:
        """What the events up to :meth:`snapshot_number` add up to. Raises JournalError."""
        state = Recovered(self.meta["peer"], self.meta["market"])
        rows = self._rows.select("SELECT number, trades, data, checksum FROM snapshot")
        for number, trades, data, check in rows:
            packed = self._rows.checked("snapshot", number, data, check)
            try:
                state.load(msgpack.unpackb(packed))
            except ValueError as error:
                raise self._rows.damaged("the snapshot is no msgpack") from error
            if state.archived_trades != trades:
                raise self._rows.damaged("the snapshot stands for another number of trades")
        return state

    def events(self) -> Iterator[tuple[int, Event]]:
        """Number and event, in order, of all that no snapshot stands for. Raises JournalError."""
        return self._after_snapshot(proofs=True)

    def _after_snapshot(self, *, proofs: bool) -> Iterator[tuple[int, Event]]:
        """As :meth:`events`; without ``proofs`` these are only counted: a start needs no more of them."""
        last, trades = self._snapshot_end()
        sources = (self._events(last), self._trades(trades), self._proofs(last, read=proofs))
        for expected, (number, read) in enumerate(heapq.merge(*sources, key=_number), last + 1):
            if number != expected:
                raise self._rows.damaged(f"event {expected} is missing")
            if read is not None:
                yield number, read()

    def kept(self) -> Iterator[tuple[int, Event]]:
        """Number and event, in order, of the trades and proofs up to the snapshot. Raises JournalError."""
        last = self.snapshot_number()
        for number, read in heapq.merge(self._trades(0), self._proofs(0), key=_number):
            if number > last:
                return
            assert read is not None
            yield number, read()

    def snapshot_number(self) -> int:
        """The last event that the snapshot stands for; 0: there is none. Raises JournalError."""
        return self._snapshot_end()[0]

    def _snapshot_end(self) -> tuple[int, int]:
        """The last event and the last trade that the snapshot stands for."""
        [(number, trades)] = self._rows.select(
            "SELECT ifnull(max(number), 0), ifnull(max(trades), 0) FROM snapshot"
        )
        return self._whole(number, "snapshot"), self._whole(trades, "snapshot")

    def check(self) -> Recovered:
        """Verify all of it: SQLite's own structures, every row, and that the events make sense.

        Returns what it all adds up to. Raises JournalError, naming the first fault.
        """
        for (fault,) in self._rows.select("PRAGMA integrity_check"):
            if fault != "ok":
                raise self._rows.damaged(fault)
        for _ in itertools.chain(self.kept(), self.events()):
            pass
        return self.recover().finish()

    def _events(self, above: int) -> Iterator[Unread]:
        for row in self._pages("number, data, checksum", "events", "number", above):
            yield row[0], partial(self._event, row)

    def _trades(self, above: int) -> Iterator[Unread]:
        for expected, row in enumerate(self._pages(TRADE_COLUMNS, "trades", "position", above), above + 1):
            yield self._whole(row[1], "trades"), partial(self._trade, expected, row)

    def _proofs(self, above: int, *, read: bool = True) -> Iterator[Unread]:
        for row in self._pages(PROOF_COLUMNS if read else "number", "proofs", "number", above):
            yield row[0], partial(self._rows.proof, row) if read else None

    def _whole(self, number: object, table: str) -> int:
        """``number``, unless a changed byte has made it something else."""
        if not isinstance(number, int):
            raise self._rows.damaged(f"a number in {table} is none")
        return number

    def _event(self, row: Any) -> Event:
        return self._rows.event("events", *row)

    def _trade(self, expected: int, row: Any) -> Event:
        if row[0] != expected:
            raise self._rows.damaged(f"trade {expected} is missing")
        return self._rows.trade(row)

    def _pages(self, columns: str, table: str, key: str, above: int) -> Iterator[Any]:
        """As many rows at a time as are held in memory, so that no query is open in between."""
        query = f"SELECT {columns} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT {PAGE_ROWS}"
        while rows := self._rows.select(query, above):
            yield from rows
            above = rows[-1][0]


def _number(entry: Unread) -> int:
    return entry[0]


class Transaction:
    """All of it or nothing, as a context manager."""

    def __init__(self, db: sqlite3.Connection):
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *exc_info: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
                return
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

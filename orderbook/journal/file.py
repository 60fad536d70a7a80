"""A journal's file, in SQLite's WAL mode: one msgpack row for each event. Blocking.

    meta       what this is the journal of: peer, market, tick, lot, instrument's fingerprint; whether a redo
               log belongs to it; and a checksum
    events     number, packed event, checksum: what a snapshot replaces
    trades     the same and their position, for trades, which are kept for good; found by match and order
    proofs     the same, for what both peers of a match have signed, kept for good too; found by match
    snapshot   one row: what the events up to its number, and as many trades, add up to

The numbers of events, trades and proofs follow each other without a gap, across the three tables. A
transaction holds whole steps, so that a crash keeps each step or forgets it. What SQLite does not notice (a
changed byte in a page that still parses, a missing row) the checksums, numbers and positions do.

What a crash has left in a redo log beside the file (``redo``) is taken over when it is opened, so that who
reads it finds all here. A mark in ``meta`` says that there is such a log, so that a copy of the file without
it does not pass for one that was stopped: it is set when the log stands there, before anything is in it, and
taken back when all of it is in the tables, before it is removed, each time durably. So a crash in between
leaves a log without a mark, which says nothing that the tables do not, and never a mark without a log.
"""

from __future__ import annotations

import heapq
import itertools
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgpack

from ..errors import JournalError
from ..events import Event
from ..recovery import Recovered
from . import disk, redo
from .inserts import insert_events
from .redo import RedoFile
from .rows import PROOF_COLUMNS, TRADE_COLUMNS, Rows, checksum, connect
from .schema import (
    APPLICATION_ID,
    DURABILITIES,
    OLDER_VERSIONS,
    REDO_MARK,
    SCHEMA,
    TABLES,
    VERSION,
    meta_checksum,
    tables_of,
)

PAGE_ROWS = 1_000
"""Rows that are read at a time."""

Unread = tuple[int, Callable[[], Event] | None]
"""Number of an event, and how to read it: its row is checked then, so that faults are met in their order."""

_in_use: set[Path] = set()
"""Journals that this process has open; SQLite keeps out the other processes only."""


class JournalFile:
    """A journal's file: reading, writing and checking it; one thread at a time.

    Opening takes the file for this process alone. Nothing is changed in a file that is not ours, damaged, or
    of another version.

    Attributes:
        durability: One of :data:`~orderbook.journal.schema.DURABILITIES`.
        meta: What this is the journal of.
        number: Of the last event.
        trade_count: Trades in it.
        redo: The redo log, after :meth:`begin_redo`.
        redo_missing: Why the newest events may be missing, or None: the redo log is not there.

    Raises:
        JournalError: It can't be opened; the text says why and what to do.
    """

    def __init__(
        self,
        path: Path,
        *,
        durability: str = "full",
        create: dict[str, str] | None = None,
        without_redo: bool = False,
    ):
        """``create``: the ``meta`` of a new file, which an existing one must have as well; None: it must
        exist. ``without_redo``: open it also where its redo log is missing, to read it or to
        :meth:`accept_loss`."""
        self.path = path
        self.redo_missing: str | None = None
        self.durability = durability
        self.redo: RedoFile | None = None
        self._log: int | None = None
        """Of SQLite's own log, which is the same file until this one is closed."""
        self._resolved = path.resolve()
        if self._resolved in _in_use:
            raise JournalError(f"{path} is in use by this process: stop it first, or name another journal")
        new = not path.exists() or path.stat().st_size == 0
        if new and create is None:
            raise JournalError(f"there is no journal at {path}")
        if new and self._redo_path.exists():
            raise JournalError(
                f"{self._redo_path} is left of a journal that is gone: put both back, or move it away"
            )
        if not new:
            self._check_header()
        try:
            self._db = connect(path)
        except sqlite3.Error as error:
            raise JournalError(f"{path} can't be opened: {error}") from error
        try:
            self._take(new, create, without_redo)
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" in str(error):
                raise JournalError(
                    f"{path} is in use by another process: stop it first, or name another journal"
                ) from error
            raise JournalError(f"{path} can't be opened: {error}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self._db.close()
            raise JournalError(
                f"{path} is damaged ({error}); it was left as it is: restore a copy"
            ) from error
        except BaseException:
            self._db.close()
            raise
        _in_use.add(self._resolved)

    def _check_header(self) -> None:
        """Look at the first bytes, so that SQLite touches nothing that is not ours."""
        with self.path.open("rb") as file:
            header = file.read(100)
        if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
            raise JournalError(f"{self.path} is no journal, or damaged at its start; it was left as it is")
        version, application = (int.from_bytes(header[at : at + 4], "big") for at in (60, 68))
        if application != APPLICATION_ID:
            raise JournalError(f"{self.path} belongs to another program; it was left as it is")
        if version not in (VERSION, *OLDER_VERSIONS):
            age, program = ("newer", "a newer") if version > VERSION else ("older", "an older")
            raise JournalError(
                f"{self.path} is of version {version}, {age} than this program knows ({VERSION}): "
                f"use {program} one; it was left as it is"
            )

    def _take(self, new: bool, create: dict[str, str] | None, without_redo: bool) -> None:
        db = self._db
        if new:
            assert create is not None
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {VERSION}")
            db.executescript(f"BEGIN EXCLUSIVE; {SCHEMA} COMMIT;")
            with self._transaction():
                self._insert_meta({**create, "id": new_id()})
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")  # see checkpoint
        with self._transaction():
            pass  # takes the lock
        if tables_of(db) != TABLES:
            raise JournalError(f"{self.path} is damaged: its tables are not those of a journal")
        # A changed byte may make anything of them, also no text.
        self.meta = {str(key): str(value) for key, value in db.execute("SELECT key, value FROM meta")}
        if self.meta.pop("checksum", None) != meta_checksum(self.meta):
            raise JournalError(f"{self.path} is damaged: whose journal it is has changed")
        marked = self.meta.pop(REDO_MARK, None) is not None
        for key in ("peer", "market"):
            if key not in self.meta:
                raise JournalError(f"{self.path} does not name its {key}")
        for key, value in (create or {}).items():
            if self.meta.get(key) != value:
                raise JournalError(
                    f"{self.path} is the journal of {key} {self.meta.get(key)}, not {value}: name another"
                )
        if create is not None and "id" not in self.meta:
            self._renew()
        self._rows = Rows(self.path, db, self.meta["peer"])
        [(self.trade_count,)] = self._rows.select("SELECT ifnull(max(position), 0) FROM trades")
        numbers = self._rows.select(
            "SELECT max(number) FROM events UNION SELECT max(number) FROM snapshot "
            "UNION SELECT max(number) FROM proofs UNION SELECT number FROM trades WHERE position = ?",
            self.trade_count,
        )
        self.number = max(self._whole(number or 0, "events or trades") for (number,) in numbers)
        if self._redo_path.exists():
            self._take_over_redo(marked)
        elif marked:
            self.redo_missing = (
                f"{self.path} has been parted from its redo log, {self._redo_path}: what was promised in the "
                "last second or so before the peer ended, or before this was copied, may be missing"
            )
            if not without_redo:
                raise JournalError(
                    f"{self.redo_missing}. It was left as it is: put the log back beside it, or restore a "
                    "copy of both; or go on without what is missing by `orderbook journal accept-loss`"
                )
        db.execute(f"PRAGMA synchronous = {DURABILITIES[self.durability]}")

    def _insert_meta(self, meta: dict[str, str]) -> None:
        rows = {**meta, "checksum": meta_checksum(meta)}
        self._db.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())

    def _replace_meta(self, meta: dict[str, str]) -> None:
        self._db.execute("DELETE FROM meta")
        self._insert_meta(meta)

    def _renew(self) -> None:
        """Make a file of an older version one of this version."""
        self.meta["id"] = new_id()
        with self._transaction():
            self._replace_meta(self.meta)
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    # -- the redo log ------------------------------------------------------------------------------

    @property
    def _redo_path(self) -> Path:
        return self.path.with_name(self.path.name + "-redo")

    def _take_over_redo(self, marked: bool) -> None:
        """Take what a crash has left over, durably. Raises JournalError, sqlite3.Error: it stays then."""
        try:
            left = redo.beyond(redo.read(self._redo_path, self._id), self.number)
            steps = [redo.events_of(record) for record in left]
        except JournalError as error:
            raise JournalError(
                f"{self._redo_path} is damaged ({error}); it was left as it is: restore a copy of both"
            ) from error
        except OSError as error:
            raise JournalError(f"{self._redo_path} can't be read: {error}") from error
        for events, packed in steps:
            self.write(events, packed)
        self.checkpoint()
        if marked:
            self._mark(False)
        self._remove_redo()

    @property
    def _id(self) -> bytes:
        """As the redo log has it. Journals of older versions have none."""
        return bytes.fromhex(self.meta.get("id", ""))

    def begin_redo(self) -> None:
        """Make an empty redo log; all that was written until now must be durable. Raises JournalError."""
        try:
            self._log = os.open(self.path.with_name(self.path.name + "-wal"), os.O_RDWR)
            self.redo = self._make_redo()
            self._mark(True)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"{self._redo_path} can't be made: {error}") from error

    def _mark(self, begun: bool) -> None:
        """Say in the file, durably, whether a redo log belongs to it. Raises sqlite3.Error."""
        with self._transaction():
            self._replace_meta({**self.meta, REDO_MARK: "begun"} if begun else self.meta)
        self.checkpoint()  # also for who copies nothing but this file

    def accept_loss(self) -> None:
        """Go on without the redo log that is missing. Raises JournalError."""
        try:
            self._mark(False)
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} can't be written: {error}") from error
        self.redo_missing = None

    def _make_redo(self) -> RedoFile:
        return RedoFile(self._redo_path, self._id, self.number)

    def end_redo(self) -> None:
        """All that is in the redo log was written here as well, and is durable. Raises JournalError."""
        if self.redo is not None:
            self.redo.close()
            self.redo = None
            try:
                self._mark(False)
            except sqlite3.Error as error:
                raise JournalError(f"{self._redo_path} stays, which does no harm: {error}") from error
            self._remove_redo()

    def _remove_redo(self) -> None:
        try:
            self._redo_path.unlink()
        except OSError as error:
            raise JournalError(f"{self._redo_path} can't be removed: {error}") from error

    def close(self) -> None:
        """A redo log stays, for the next one who opens the file."""
        if self.redo is not None:
            self.redo.close()
        if self._log is not None:
            os.close(self._log)
        self._db.close()
        _in_use.discard(self._resolved)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    # -- writing -----------------------------------------------------------------------------------

    def write(self, events: Sequence[Event], packed: Sequence[bytes] | None = None) -> None:
        """Append ``events`` in one transaction, durable after :meth:`sync`. ``packed``: each as a row has it,
        if that is there already. Raises sqlite3.Error, having written nothing.
        """
        with self._transaction():
            position = insert_events(
                self._db, self.meta["peer"], self.number, self.trade_count, events, packed
            )
        self.number += len(events)
        self.trade_count = position

    def sync(self) -> None:
        """Returns when all that was written is durable; after :meth:`begin_redo`. Raises OSError."""
        assert self._log is not None
        disk.sync_data(self._log)

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


class _Transaction:
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


def new_id() -> str:
    return secrets.token_hex(redo.ID_BYTES)

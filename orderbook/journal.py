"""The journal: what a market must not forget, durable before anybody is told.

:class:`Journal` is what a worker needs of one. :class:`MemoryJournal` forgets with the process;
:class:`SqliteJournal` keeps a file, in SQLite's WAL mode, one msgpack row for each event.

    meta       what this is the journal of: peer, market, tick, lot, instrument's fingerprint; and a checksum
    events     number, packed event, checksum; numbers follow each other without a gap
    trades     the same, for trades and their proofs, which are kept for good, up to the snapshot
    snapshot   one row: what the events up to its number add up to

A transaction holds whole steps, so that a crash keeps each step or forgets it. What SQLite does not notice (a
changed byte in a page that still parses, a missing row) the checksums and numbers do.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgpack

from . import limits
from .errors import JournalError
from .events import Event, Executed, Signed, from_plain, to_plain
from .model import Instrument
from .recovery import Recovered

log = logging.getLogger(__name__)

APPLICATION_ID = 0x4F424B31  # "OBK1"
SCHEMA_VERSION = 1
PAGE_ROWS = 1_000
"""Rows that are read at a time."""
SEARCHED_ROWS = 20_000
"""Rows that are searched at a time: some hundredths of a second, for which writing waits."""
KEPT = (Executed, Signed)
"""Events that a snapshot does not replace: trades and their proofs."""

DURABILITIES = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}
"""SQLite's ``synchronous`` by our name: ``full`` survives a power cut, ``normal`` a crash of the process but
perhaps not the last moments before a power cut, ``off`` leaves it all to the operating system."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (number INTEGER PRIMARY KEY, data BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE trades (number INTEGER PRIMARY KEY, data BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE snapshot (number INTEGER PRIMARY KEY, data BLOB NOT NULL, checksum INTEGER NOT NULL);
"""


class Journal(Protocol):
    """Events in order, and word of when they are durable."""

    def append(self, events: Sequence[Event]) -> None:
        """Take the events of one step; after a crash either all of them are there or none."""

    def when_durable(self, then: Callable[[], None]) -> None:
        """Call ``then`` once all that was appended so far is durable; at once where it is already."""

    async def signed(self, match_id: str) -> Signed | None:
        """What both peers of a match have signed, if that is kept here. Raises JournalError."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written at the moment, or None. What waits, waits until it is over."""

    async def close(self) -> None:
        """Write what is left and let go of the file."""


class MemoryJournal:
    """Keeps the newest proofs and nothing else, for markets that may end with their process."""

    trouble: str | None = None

    def __init__(self) -> None:
        self._signed: dict[str, Signed] = {}

    def append(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Signed):
                self._signed[event.match_id] = event
                if len(self._signed) > limits.PROOFS_IN_MEMORY:
                    del self._signed[next(iter(self._signed))]

    def when_durable(self, then: Callable[[], None]) -> None:
        then()

    async def signed(self, match_id: str) -> Signed | None:
        return self._signed.get(match_id)

    async def close(self) -> None:
        pass


class JournalFile:
    """A journal's file: reading, writing and checking it. Blocking; one thread at a time.

    Opening takes the file for this process alone. Nothing is changed in a file that is not ours, damaged, or
    of a newer version.

    Raises:
        JournalError: It can't be opened; the text says why and what to do.
    """

    def __init__(self, path: Path, *, durability: str = "full", create: dict[str, str] | None = None):
        """``create``: the ``meta`` of a new file, which an existing one must have as well; None: it must
        exist."""
        self.path = path
        new = not path.exists() or path.stat().st_size == 0
        if new and create is None:
            raise JournalError(f"there is no journal at {path}")
        if not new:
            self._check_header()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0.0, check_same_thread=False)
        except sqlite3.Error as error:
            raise JournalError(f"{path} can't be opened: {error}") from error
        try:
            self._take(new, durability, create)
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

    def _check_header(self) -> None:
        """Look at the first bytes, so that SQLite touches nothing that is not ours."""
        with self.path.open("rb") as file:
            header = file.read(100)
        if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
            raise JournalError(f"{self.path} is no journal, or damaged at its start; it was left as it is")
        version, application = header[60:64], header[68:72]
        if int.from_bytes(application, "big") != APPLICATION_ID:
            raise JournalError(f"{self.path} belongs to another program; it was left as it is")
        if int.from_bytes(version, "big") > SCHEMA_VERSION:
            raise JournalError(
                f"{self.path} is of version {int.from_bytes(version, 'big')}, newer than this program knows "
                f"({SCHEMA_VERSION}): use a newer one; it was left as it is"
            )

    def _take(self, new: bool, durability: str, create: dict[str, str] | None) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        if new:
            assert create is not None
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.executescript(f"BEGIN EXCLUSIVE; {SCHEMA} COMMIT;")
            with self._transaction():
                rows = {**create, "checksum": meta_checksum(create)}
                db.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {DURABILITIES[durability]}")
        with self._transaction():
            pass  # takes the lock
        # A changed byte may make anything of them, also no text.
        self.meta = {str(key): str(value) for key, value in db.execute("SELECT key, value FROM meta")}
        if self.meta.pop("checksum", None) != meta_checksum(self.meta):
            raise JournalError(f"{self.path} is damaged: whose journal it is has changed")
        for key in ("peer", "market"):
            if key not in self.meta:
                raise JournalError(f"{self.path} does not name its {key}")
        for key, value in (create or {}).items():
            if self.meta.get(key) != value:
                raise JournalError(
                    f"{self.path} is the journal of {key} {self.meta.get(key)}, not {value}: name another"
                )
        (self.number,) = db.execute(
            "SELECT max((SELECT ifnull(max(number), 0) FROM events), "
            "(SELECT ifnull(max(number), 0) FROM snapshot))"
        ).fetchone()

    def close(self) -> None:
        self._db.close()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    # -- writing -----------------------------------------------------------------------------------

    def write(self, events: Sequence[Event]) -> None:
        """Append ``events`` in one transaction. Raises sqlite3.Error, having written nothing."""
        rows = []
        for number, event in enumerate(events, self.number + 1):
            data = msgpack.packb(to_plain(event))
            rows.append((number, data, checksum(number, data)))
        with self._transaction():
            self._db.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        self.number += len(rows)

    def compact(self) -> None:
        """Replace the events by a snapshot of what they add up to; trades and their proofs are kept.

        Raises JournalError for a damaged file, which stays as it is, and for a disk without room, where
        nothing is lost.
        """
        state = self.recover()
        try:
            self._replace_by(state)
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} can't be compacted ({error}); nothing is lost") from error

    def _replace_by(self, state: Recovered) -> None:
        data = msgpack.packb(state.to_plain())
        with self._transaction():
            for number, event in self.events():
                if isinstance(event, KEPT):
                    row = self._db.execute("SELECT data FROM events WHERE number = ?", (number,)).fetchone()
                    self._db.execute(
                        "INSERT INTO trades VALUES (?, ?, ?)", (number, row[0], checksum(number, row[0]))
                    )
            self._db.execute("DELETE FROM events")
            self._db.execute("DELETE FROM snapshot")
            self._db.execute(
                "INSERT INTO snapshot VALUES (?, ?, ?)", (self.number, data, checksum(self.number, data))
            )
        self._db.execute("VACUUM")

    # -- reading -----------------------------------------------------------------------------------

    def recover(self) -> Recovered:
        """What snapshot and events add up to. Raises JournalError for a damaged file."""
        state = self.snapshot()
        state.add_trades(event for _, event in self.trades() if isinstance(event, Executed))
        state.apply(event for _, event in self.events())
        return state

    def snapshot(self) -> Recovered:
        """What the events up to :meth:`snapshot_number` add up to, without trades. Raises JournalError."""
        state = Recovered(self.meta["peer"], self.meta["market"])
        for number, data, check in self._select("SELECT number, data, checksum FROM snapshot"):
            state.load(self._unpack("snapshot", number, data, check))
        return state

    def trades(self) -> Iterator[tuple[int, Executed | Signed]]:
        """Number and event, in order, of trades and proofs up to the snapshot. Raises JournalError."""
        for number, event in self._rows("trades"):
            if not isinstance(event, KEPT):
                raise JournalError(f"{self.path} is damaged: row {number} of trades is none")
            yield number, event

    def events(self) -> Iterator[tuple[int, Event]]:
        """Number and event, in order, of what no snapshot has replaced. Raises JournalError."""
        expected = self.snapshot_number()
        for number, event in self._rows("events"):
            expected += 1
            if number != expected:
                raise JournalError(f"{self.path} is damaged: event {expected} is missing")
            yield number, event

    def signed(self, match_id: str, above: int) -> tuple[Signed | None, int]:
        """What was signed about a match, among the :data:`SEARCHED_ROWS` events that follow number ``above``.

        Returns it or None, and the number with which to go on. Raises JournalError.
        """
        last = above + SEARCHED_ROWS
        for table in ("events", "trades"):
            query = (
                f"SELECT number, data, checksum FROM {table} "
                "WHERE number > ? AND number <= ? AND instr(data, ?) > 0"
            )
            for number, data, check in self._select(query, above, last, match_id.encode()):
                event = from_plain(self._unpack(table, number, data, check))
                if isinstance(event, Signed) and event.match_id == match_id:
                    return event, last
        return None, last

    def snapshot_number(self) -> int:
        """The last event that the snapshot stands for; 0: there is none. Raises JournalError."""
        [(number,)] = self._select("SELECT ifnull(max(number), 0) FROM snapshot")
        return int(number)

    def check(self) -> Recovered:
        """Verify all of it: SQLite's own structures, every row, and that the events make sense.

        Returns what it all adds up to. Raises JournalError, naming the first fault.
        """
        for (fault,) in self._select("PRAGMA integrity_check"):
            if fault != "ok":
                raise JournalError(f"{self.path} is damaged: {fault}")
        return self.recover().finish()

    def _rows(self, table: str) -> Iterator[tuple[int, Event]]:
        """As many rows at a time as are held in memory, so that no query is open in between."""
        query = (
            f"SELECT number, data, checksum FROM {table} WHERE number > ? ORDER BY number LIMIT {PAGE_ROWS}"
        )
        last = -(2**63)
        while rows := self._select(query, last):
            for number, data, check in rows:
                yield number, from_plain(self._unpack(table, number, data, check))
            last = number

    def _select(self, query: str, *values: object) -> list[Any]:
        """All rows. Raises JournalError where SQLite can't read them."""
        try:
            return self._db.execute(query, values).fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise JournalError(f"{self.path} is damaged: {error}") from error

    def _unpack(self, table: str, number: int, data: object, check: object) -> Any:
        # A changed byte may turn the data into a text.
        if not isinstance(data, bytes) or checksum(number, data) != check:
            raise JournalError(f"{self.path} is damaged: row {number} of {table} has changed")
        try:
            return msgpack.unpackb(data)
        except ValueError as error:
            raise JournalError(f"{self.path} is damaged: row {number} of {table} is no msgpack") from error


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


def checksum(number: int, data: bytes) -> int:
    """Of a row: it covers the number, so that rows can't change places."""
    return zlib.crc32(data, zlib.crc32(number.to_bytes(8, "big", signed=True)))


def meta_checksum(meta: dict[str, str]) -> str:
    return str(zlib.crc32(repr(sorted(meta.items())).encode()))


class SqliteJournal:
    """A journal file written by a thread of its own, many steps to a transaction.

    While one transaction becomes durable the next collects. A disk that can't be written is tried again until
    it can; meanwhile ``trouble`` says why, nothing more is promised, and the market takes no new orders.

    Args:
        file: Open; this journal closes it.
        loop: Where ``when_durable`` calls back.
    """

    def __init__(self, file: JournalFile, loop: asyncio.AbstractEventLoop):
        self.trouble: str | None = None
        self._file = file
        self._loop = loop
        self._appended = 0
        self._durable = 0
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._buffer: list[Event] = []
        self._wanted = threading.Condition()
        self._file_free = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._write, name=f"journal {file.path.name}", daemon=True)
        self._thread.start()

    def append(self, events: Sequence[Event]) -> None:
        with self._wanted:
            self._buffer += events
            self._appended += len(events)
            self._wanted.notify()

    def when_durable(self, then: Callable[[], None]) -> None:
        if self._durable == self._appended:
            then()
        else:
            self._waiting.append((self._appended, then))

    async def signed(self, match_id: str) -> Signed | None:
        return await self._loop.run_in_executor(None, self._search, match_id)

    def _search(self, match_id: str) -> Signed | None:
        above, found = 0, None
        while found is None and above < self._file.number:
            with self._file_free:
                found, above = self._file.signed(match_id, above)
        return found

    async def close(self) -> None:
        with self._wanted:
            self._closing = True
            self._wanted.notify()
        await self._loop.run_in_executor(None, self._thread.join)
        self._file.close()

    def _write(self) -> None:
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self._buffer or self._closing)
                if not self._buffer:
                    return
                events, self._buffer = self._buffer, []
            if not self._write_or_wait(events):
                return
            self._tell(self._now_durable, len(events))

    def _write_or_wait(self, events: list[Event]) -> bool:
        """Write ``events``, trying until the disk takes them. Returns False when told to end before that."""
        while True:
            try:
                with self._file_free:
                    self._file.write(events)
            except sqlite3.Error as error:
                log.error("%s can't be written, trying again: %s", self._file.path, error)
                self._tell(self._set_trouble, f"the journal can't be written: {error}")
            else:
                return True
            with self._wanted:
                if self._wanted.wait_for(lambda: self._closing, limits.JOURNAL_RETRY_S):
                    return False

    def _tell(self, what: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *args)
        except RuntimeError:
            pass  # the loop has ended; so has everybody who waited

    def _set_trouble(self, trouble: str) -> None:
        self.trouble = trouble

    def _now_durable(self, count: int) -> None:
        self.trouble = None
        self._durable += count
        while self._waiting and self._waiting[0][0] <= self._durable:
            self._waiting.popleft()[1]()


def open_journal(
    path: Path, peer: str, instrument: Instrument, durability: str, loop: asyncio.AbstractEventLoop
) -> tuple[SqliteJournal, Recovered]:
    """Open or create the journal of one market at one peer, and what it holds.

    Raises:
        JournalError: It can't be opened or is damaged; the text says what to do.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"{path.parent} can't hold journals: {error}") from error
    meta = {
        "peer": peer,
        "market": instrument.market,
        "tick": instrument.tick,
        "lot": instrument.lot,
        "instrument": instrument.fingerprint,
    }
    file = JournalFile(path, durability=durability, create=meta)
    try:
        if file.number - file.snapshot_number() > limits.JOURNAL_TAIL:
            file.compact()
        recovered = file.recover()
    except BaseException:
        file.close()
        raise
    return SqliteJournal(file, loop), recovered

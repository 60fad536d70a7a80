"""A journal's file: whose it is, what it is opened for, and the redo log beside it. Blocking.

What a crash has left in a redo log beside the file (``redo``) is taken over when it is opened, so that who
reads it finds all here. A mark in ``meta`` says that there is such a log, so that a copy of the file without
it does not pass for one that was stopped: it is set when the log stands there, before anything is in it, and
taken back when all of it is in the tables, before it is removed, each time durably. So a crash in between
leaves a log without a mark, which says nothing that the tables do not, and never a mark without a log.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from pathlib import Path

from .. import limits
from ..errors import JournalError
from . import disk, redo
from .redo import RedoFile
from .rows import connect
from .schema import (
    APPLICATION_ID,
    DURABILITIES,
    OLDER_VERSIONS,
    REDO_MARK,
    SCHEMA,
    STARTS,
    TABLES,
    VERSION,
    meta_checksum,
    tables_of,
)
from .tables import Tables

_in_use: set[Path] = set()
"""Journals that this process has open; SQLite keeps out the other processes only."""


class JournalFile(Tables):
    """A journal's file, open: its tables, and the redo log beside it; one thread at a time.

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
        super().__init__(self.path, db, self.meta)
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

    @property
    def starts(self) -> dict[str, int]:
        """The processes that went on with this journal, the newest last, at most
        :data:`limits.JOURNAL_STARTS`: the id of each, and the last event before the next one began."""
        begun = [entry.split(":") for entry in self._begun]
        ends = [*(int(number) for _, number in begun[1:]), self.number]
        return {id: end for (id, _), end in zip(begun, ends, strict=False)}

    @property
    def _begun(self) -> list[str]:
        """The starts as :data:`~orderbook.journal.schema.STARTS` has them."""
        return self.meta.get(STARTS, "").split()

    def begin_start(self) -> None:
        """A process goes on with this journal: give this start an id. It must be durable, by
        :meth:`checkpoint`, before it is told to anybody. Raises JournalError."""
        begun = [*self._begun, f"{new_id()}:{self.number}"]
        starts = " ".join(begun[-limits.JOURNAL_STARTS :])
        try:
            with self._transaction():
                self._replace_meta({**self.meta, STARTS: starts})
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} can't be written: {error}") from error
        self.meta[STARTS] = starts

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
        """Go on without the redo log that is missing, and with it without the last start, whose promises are
        not all here. Raises JournalError."""
        self.meta[STARTS] = " ".join(self._begun[:-1])
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

    def sync(self) -> None:
        """Returns when all that was written is durable; after :meth:`begin_redo`. Raises OSError."""
        assert self._log is not None
        disk.sync_data(self._log)

    def close(self) -> None:
        """A redo log stays, for the next one who opens the file."""
        if self.redo is not None:
            self.redo.close()
        if self._log is not None:
            os.close(self._log)
        self._db.close()
        _in_use.discard(self._resolved)


def new_id() -> str:
    return secrets.token_hex(redo.ID_BYTES)

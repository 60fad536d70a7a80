"""Rows of a journal's file: connections to it, checksums, and what a row of each table must be. Blocking."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import JournalError
from ..events import Event, Executed, Signed, unpack

TRADE_COLUMNS = "position, number, match_id, maker_order, taker_order, data, checksum"
PROOF_COLUMNS = "number, match_id, data, checksum"


def connect(path: Path) -> sqlite3.Connection:
    """A connection to ``path``: as many as wanted in this process, while other processes are kept out.

    That is what SQLite's ``unix-excl`` does; where it is missing (Windows) nothing keeps others out.
    """
    vfs = "?vfs=unix-excl" if os.name == "posix" else ""
    uri = f"file:{quote(str(path))}{vfs}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=0.0, check_same_thread=False)


class Rows:
    """Reads rows over one connection and checks them; one thread at a time.

    Args:
        path: Of the file, for what is said of its faults.
        db: The connection.
        peer: Whose journal it is.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, peer: str):
        self._path = path
        self._db = db
        self._peer = peer

    def select(self, query: str, *values: object, **named: object) -> list[Any]:
        """All rows; the query has question marks for ``values``, or ``:name`` for what is ``named``.

        Raises JournalError where SQLite can't read them.
        """
        try:
            return self._db.execute(query, named or values).fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self.damaged(str(error)) from error

    def checked(self, table: str, number: object, data: object, check: object) -> bytes:
        """The data of a row. Raises JournalError for one that has changed."""
        # A changed byte may turn any column into another type.
        if not isinstance(number, int) or not isinstance(data, bytes) or checksum(number, data) != check:
            raise self.damaged(f"row {number} of {table} has changed")
        return data

    def event(self, table: str, number: object, data: object, check: object) -> Event:
        """The event in a row. Raises JournalError."""
        return unpack(self.checked(table, number, data, check))

    def trade(self, row: Sequence[Any]) -> Executed:
        """The trade in a row of :data:`TRADE_COLUMNS`. Raises JournalError."""
        position, number, match_id, maker_order, taker_order, data, check = row
        event = self.event("trades", number, data, check)
        if not isinstance(event, Executed):
            raise self.damaged(f"row {number} of trades is none")
        if (match_id, maker_order, taker_order) != trade_keys(event, self._peer):
            raise self.damaged(f"trade {position} is filed under what it is not")
        return event

    def proof(self, row: Sequence[Any]) -> Signed:
        """The proof in a row of :data:`PROOF_COLUMNS`. Raises JournalError."""
        number, match_id, data, check = row
        event = self.event("proofs", number, data, check)
        if not isinstance(event, Signed) or event.match_id != match_id:
            raise self.damaged(f"row {number} of proofs is filed under what it is not")
        return event

    def damaged(self, fault: str) -> JournalError:
        return JournalError(f"{self._path} is damaged: {fault}")


def trade_keys(event: Executed, peer: str) -> tuple[str, str | None, str | None]:
    """What a trade in the journal of ``peer`` is found by: its match, and which orders in it are ours."""
    return (
        event.match_id,
        event.maker_order_id if event.maker_peer == peer else None,
        event.taker_order_id if event.taker_peer == peer else None,
    )


def checksum(number: int, data: bytes) -> int:
    """Of a row: it covers the number, so that rows can't change places."""
    return zlib.crc32(data, zlib.crc32(number.to_bytes(8, "big", signed=True)))

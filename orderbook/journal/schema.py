"""What a journal's file consists of: its tables, and the marks by which SQLite and we know it."""

from __future__ import annotations

import sqlite3
import zlib
from typing import Any

APPLICATION_ID = 0x4F424B31  # "OBK1"
VERSION = 3
OLDER_VERSIONS = (2,)
"""That are read as well. Version 3 has an id, and perhaps a redo log; what a peer opens becomes one."""
REDO_MARK = "redo"
"""In ``meta``, where a redo log belongs to the file."""
STARTS = "starts"
"""In ``meta``: the processes that went on with the journal, the newest last, each as its id, ``:`` and the
number of the last event when it began. Those of older versions are not among them."""

DURABILITIES = {"full": "NORMAL", "normal": "NORMAL", "off": "OFF"}
"""SQLite's ``synchronous`` by our name: ``full`` survives a power cut, ``normal`` a crash of the process but
perhaps not the last moments before a power cut, ``off`` leaves it all to the operating system.

What SQLite's own ``FULL`` adds to ``NORMAL`` is to sync the log after each transaction: instead what is
promised is in the redo log, and here somewhat later."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (number INTEGER PRIMARY KEY, data BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE trades (
    position INTEGER PRIMARY KEY, number INTEGER NOT NULL, match_id TEXT NOT NULL,
    maker_order TEXT, taker_order TEXT, data BLOB NOT NULL, checksum INTEGER NOT NULL
);
CREATE INDEX trades_by_match ON trades (match_id);
CREATE INDEX trades_by_maker_order ON trades (maker_order) WHERE maker_order IS NOT NULL;
CREATE INDEX trades_by_taker_order ON trades (taker_order) WHERE taker_order IS NOT NULL;
CREATE TABLE proofs (
    number INTEGER PRIMARY KEY, match_id TEXT NOT NULL, data BLOB NOT NULL, checksum INTEGER NOT NULL
);
CREATE INDEX proofs_by_match ON proofs (match_id);
CREATE TABLE snapshot (
    number INTEGER PRIMARY KEY, trades INTEGER NOT NULL, data BLOB NOT NULL, checksum INTEGER NOT NULL
);
"""


def tables_of(db: sqlite3.Connection) -> list[Any]:
    """How its tables and indexes were made: SQLite reads the rows by these texts."""
    return db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()


def _tables() -> list[Any]:
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    try:
        return tables_of(db)
    finally:
        db.close()


TABLES = _tables()


def meta_checksum(meta: dict[str, str]) -> str:
    """Of all other rows of ``meta``."""
    return str(zlib.crc32(repr(sorted(meta.items())).encode()))

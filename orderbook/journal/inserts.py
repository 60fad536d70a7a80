"""Events as rows of a journal's tables, many to a statement. Blocking.

The thread that takes over from the redo log spends here what it takes from the event loop: so rows are
gathered as the flat lists of values that statements want, and this module is compiled.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Sequence

from ..events import Event, Executed, Signed, pack
from .rows import checksum, trade_keys

ROWS = (100, 20, *range(10, 0, -1))
"""Rows to a statement; few sizes, so that SQLite need not prepare each time. At most 999 values in one are
taken by any SQLite."""


def insert_events(
    db: sqlite3.Connection,
    peer: str,
    number: int,
    position: int,
    events: Sequence[Event],
    packed: Sequence[bytes] | None = None,
) -> int:
    """Insert ``events`` within the transaction that is open; returns the position of the last trade then.

    Args:
        peer: Whose journal it is.
        number: Of the event before the first of them.
        position: Of the last trade before them.
        packed: Each as a row has it, if that is there already.

    Raises:
        sqlite3.Error: Some may be inserted, others not.
    """
    rows: list[object] = []
    trades: list[object] = []
    proofs: list[object] = []
    for index, event in enumerate(events):
        number += 1
        data = pack(event) if packed is None else packed[index]
        check = checksum(number, data)
        blob = bytearray(data)  # of bytes sqlite3 asks each time whether there is an adapter
        if isinstance(event, Executed):
            position += 1
            match_id, maker_order, taker_order = trade_keys(event, peer)
            trades += (position, number, match_id, maker_order, taker_order, blob, check)
        elif isinstance(event, Signed):
            proofs += (number, event.match_id, blob, check)
        else:
            rows += (number, blob, check)
    _insert(db, "events", 3, rows)
    _insert(db, "trades", 7, trades)
    _insert(db, "proofs", 4, proofs)
    return position


def _insert(db: sqlite3.Connection, table: str, columns: int, values: list[object]) -> None:
    done = 0
    for rows in ROWS:
        size = rows * columns
        while len(values) - done >= size:
            db.execute(insert_text(table, columns, rows), values[done : done + size])
            done += size


@functools.cache
def insert_text(table: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {', '.join([row] * rows)}"

"""Looks trades and proofs up in a journal, however old, while it is being written. Blocking.

Each look-up goes by an index, or reads a bounded number of rows in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import limits
from ..event_forms import trade_of
from ..events import Signed
from ..trade import Trade
from .rows import PROOF_COLUMNS, TRADE_COLUMNS, Rows, connect


class JournalArchive:
    """Trades and proofs of an open journal, over a connection of their own; one thread at a time.

    What was written last and is found need not be durable yet: who tells of it waits for that.

    Args:
        path: Of the file; this process has it open.
        meta: What it is the journal of.
    """

    def __init__(self, path: Path, meta: dict[str, str]):
        self._db = connect(path)
        self._db.execute("PRAGMA query_only = ON")
        self._rows = Rows(path, self._db, meta["peer"])
        self._market = meta["market"]

    def close(self) -> None:
        self._db.close()

    def trades_of_match(self, match_id: str) -> list[Trade]:
        """All of that id, whoever's, in order of execution. Raises JournalError."""
        return self._trades(
            f"SELECT {TRADE_COLUMNS} FROM trades WHERE match_id = ? ORDER BY position LIMIT ?",
            match_id,
            limits.PAGE_MAX,
        )

    def trades_of_order(self, order_id: str, most: int) -> list[Trade]:
        """The newest ``most`` of an order of ours, in order of execution. Raises JournalError."""
        newest = "SELECT * FROM (SELECT {} FROM trades WHERE {} = :order ORDER BY position DESC LIMIT :most)"
        as_maker, as_taker = (newest.format(TRADE_COLUMNS, side) for side in ("maker_order", "taker_order"))
        query = f"{as_maker} UNION {as_taker} ORDER BY position DESC LIMIT :most"
        return self._trades(query, order=order_id, most=most)[::-1]

    def trades(self, after: int, limit: int) -> list[Trade]:
        """At most ``limit`` trades in order of execution, from the one that ``after`` others come before.

        Raises JournalError.
        """
        rows = self._rows.select(
            f"SELECT {TRADE_COLUMNS} FROM trades WHERE position > ? ORDER BY position LIMIT ?", after, limit
        )
        for expected, row in enumerate(rows, after + 1):
            if row[0] != expected:
                raise self._rows.damaged(f"trade {expected} is missing")
        return [trade_of(self._rows.trade(row), self._market) for row in rows]

    def proofs(self, match_id: str) -> Sequence[Signed]:
        """What was signed about matches of that id, in order. Raises JournalError."""
        rows = self._rows.select(
            f"SELECT {PROOF_COLUMNS} FROM proofs WHERE match_id = ? ORDER BY number LIMIT ?",
            match_id,
            limits.PAGE_DEFAULT,
        )
        return [self._rows.proof(row) for row in rows]

    def _trades(self, query: str, *values: object, **named: object) -> list[Trade]:
        rows = self._rows.select(query, *values, **named)
        return [trade_of(self._rows.trade(row), self._market) for row in rows]

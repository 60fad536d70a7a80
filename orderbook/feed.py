"""A market's book as it changes, in lines of JSON: what ``GET /feed/{market}`` sends.

The first line is a snapshot, each further one says what has changed since the one before:

    {"type":"snapshot","sequence":7,"bids":[["99.00","0.5",2]],"asks":[],"checksum":-1834513240}
    {"type":"delta","sequence":9,"bids":[["99.00","0",0]],"asks":[["101.00","1",1]],"checksum":…,"previous":7}

Rows are ``[price, quantity, orders]``, those of a snapshot best first; a quantity of ``"0"`` says that the
price is gone. ``previous`` is the ``sequence`` of the line before, so that none can be missed unnoticed.
``checksum`` is Bitfinex's over the best prices, 25 at the most, as they are with this line. While nothing
changes an empty delta comes now and then.

Whoever reads slowly gets fewer lines, each with all that has changed meanwhile: nobody waits for a reader,
and nothing is kept for one but the rows that it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

from .engine import Feed, LevelRow, Side, checksum, l2
from .engine.views import CHECKSUM_LEVELS
from .market import Market
from .records import FeedLine

Row = tuple[str, str, int]


class BookFeed:
    """The lines of one reader, who sees the best ``levels`` prices of each side."""

    def __init__(self, market: Market, levels: int):
        self._market = market
        self._levels = levels
        self._feed = Feed(lambda: l2(market.book, levels))
        self._sequence = 0

    def snapshot(self) -> FeedLine:
        """The first line."""
        view = self._feed.snapshot()
        self._sequence = view.sequence
        return self._line("snapshot", self._rows(view.bids), self._rows(view.asks))

    def delta(self) -> FeedLine | None:
        """What has changed since the last line; None if nothing has that the reader would see."""
        delta = self._feed.delta()
        if delta is None or not (delta.changed or delta.gone):
            return None
        previous, self._sequence = self._sequence, delta.sequence
        sides: dict[Side, list[Row]] = {Side.BUY: [], Side.SELL: []}
        for row in delta.changed:
            sides[row.side] += self._rows([row])
        for side, price in cast("list[tuple[Side, int]]", delta.gone):
            sides[side].append((self._market.instrument.price_text(price), "0", 0))
        return self._line("delta", sides[Side.BUY], sides[Side.SELL], previous)

    def alive(self) -> FeedLine:
        """A delta of nothing."""
        return self._line("delta", [], [], self._sequence)

    def _line(
        self,
        type: Literal["snapshot", "delta"],
        bids: list[Row],
        asks: list[Row],
        previous: int | None = None,
    ) -> FeedLine:
        market = self._market
        sum = checksum(market.book, market.instrument, min(self._levels, CHECKSUM_LEVELS))
        return FeedLine(type, self._sequence, bids, asks, sum, previous)

    def _rows(self, rows: Iterable[LevelRow]) -> list[Row]:
        instrument = self._market.instrument
        return [
            (instrument.price_text(row.price), instrument.quantity_text(row.quantity), row.orders)
            for row in rows
        ]

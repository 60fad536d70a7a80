"""What others see of a book: best prices (L1), price levels (L2), orders (L3); and feeds that follow it.

Everyone sees what can be traded with now: not what is reserved, hidden or waits for its stop price. Prices
are in ticks, quantities in lots. Each view tells the ``sequence`` of the book that it shows.

A feed publishes one view whole, and from then on what has changed in it. It looks at the view only when it is
asked to publish, so a book pays nothing for its feeds; and it remembers no more than the rows it shows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Generic, NamedTuple, TypeVar

from ..model import Instrument, Side
from .book import Book

CHECKSUM_LEVELS = 25
"""Levels a side that the checksum covers, as on Bitfinex."""


class Top(NamedTuple):
    """L1: the best price of each side and what is shown there; None and 0 where nothing is."""

    sequence: int
    bid: int | None
    bid_quantity: int
    ask: int | None
    ask_quantity: int
    last_price: int | None


class LevelRow(NamedTuple):
    """One price of L2: lots shown, and how many orders show them."""

    side: Side
    price: int
    quantity: int
    orders: int

    @property
    def key(self) -> Hashable:
        return self.side, self.price


class OrderRow(NamedTuple):
    """One order of L3: lots shown. Of two at the same price the one with the lower ``priority`` is first."""

    side: Side
    price: int
    quantity: int
    id: str
    priority: int

    @property
    def key(self) -> Hashable:
        return self.id


Row = TypeVar("Row", bound=LevelRow | OrderRow)


@dataclass(frozen=True)
class View(Generic[Row]):
    """L2 or L3: the rows of both sides, best first."""

    sequence: int
    bids: list[Row]
    asks: list[Row]


def l1(book: Book) -> Top:
    """The best price of each side, and the last price. O(1)."""
    bid, ask = book.bids.best, book.asks.best
    return Top(
        sequence=book.sequence,
        bid=None if bid is None else bid.price,
        bid_quantity=0 if bid is None else bid.open - bid.hidden,
        ask=None if ask is None else ask.price,
        ask_quantity=0 if ask is None else ask.open - ask.hidden,
        last_price=book.last_price,
    )


def l2(book: Book, levels: int) -> View[LevelRow]:
    """The best ``levels`` prices of each side. O(levels)."""
    bids, asks = (
        [
            LevelRow(ladder.side, level.price, level.open - level.hidden, level.count)
            for level in islice(ladder.best_first(), levels)
        ]
        for ladder in (book.bids, book.asks)
    )
    return View(book.sequence, bids, asks)


def l3(book: Book, orders: int) -> View[OrderRow]:
    """The first ``orders`` orders of each side. O(orders)."""
    bids, asks = (
        [
            OrderRow(order.side, order.price, order.open - order.hidden, order.id, order.priority)
            for order in islice(chain.from_iterable(ladder.best_first()), orders)
        ]
        for ladder in (book.bids, book.asks)
    )
    return View(book.sequence, bids, asks)


def checksum(book: Book, instrument: Instrument, levels: int = CHECKSUM_LEVELS) -> int:
    """CRC-32 of the best levels as Bitfinex forms it (``OB_CHECKSUM``), a signed 32-bit number. O(levels).

    Of ``bid price:bid quantity:ask price:-ask quantity`` for one level after the other, all joined by colons.
    The numbers are exact decimals without trailing zeros, never floats.
    """
    view = l2(book, levels)
    parts: list[str] = []
    for bid, ask in zip_longest(view.bids, view.asks):
        for row, sign in ((bid, ""), (ask, "-")):
            if row is not None:
                price = instrument.price_text(row.price)
                parts.append(price.rstrip("0").rstrip(".") if "." in price else price)
                parts.append(sign + instrument.quantity_text(row.quantity))
    crc = zlib.crc32(":".join(parts).encode())
    return crc - 2**32 if crc >= 2**31 else crc


@dataclass(frozen=True)
class Delta(Generic[Row]):
    """What has changed in a view.

    Attributes:
        previous: The sequence of what the feed published before this.
        sequence: Of the book that the view shows with this.
        changed: Rows that are new or other than before.
        gone: Keys of rows that are no more.
    """

    previous: int
    sequence: int
    changed: list[Row]
    gone: list[Hashable]


class Feed(Generic[Row]):
    """Publishes a view of a book: ``Feed(lambda: l2(book, 25))``."""

    def __init__(self, view: Callable[[], View[Row]]):
        self._view = view
        self._rows: dict[Hashable, Row] = {}
        self._sequence = 0

    def snapshot(self) -> View[Row]:
        """The view as it is; deltas go on from here. O(rows)."""
        view = self._view()
        self._sequence = view.sequence
        self._rows = _by_key(view)
        return view

    def delta(self) -> Delta[Row] | None:
        """What has changed since the feed last published; None if the book has not. O(rows)."""
        view = self._view()
        if view.sequence == self._sequence:
            return None
        rows = _by_key(view)
        changed = [row for key, row in rows.items() if self._rows.get(key) != row]
        gone = [key for key in self._rows if key not in rows]
        delta = Delta(self._sequence, view.sequence, changed, gone)
        self._sequence = view.sequence
        self._rows = rows
        return delta


class Replica(Generic[Row]):
    """A view as somebody rebuilds it who has only what a feed published."""

    def __init__(self, snapshot: View[Row]):
        self.sequence = snapshot.sequence
        self._rows = _by_key(snapshot)

    def apply(self, delta: Delta[Row]) -> bool:
        """Follow ``delta``. O(changes).

        Returns:
            Whether it follows on what is here. If not, nothing has changed: one has been lost (then a new
            snapshot is needed), or it came twice.
        """
        if delta.previous != self.sequence:
            return False
        for key in delta.gone:
            del self._rows[key]
        for row in delta.changed:
            self._rows[row.key] = row
        self.sequence = delta.sequence
        return True

    def view(self) -> View[Row]:
        """The view as far as it was published. O(rows log rows)."""
        bids = [row for row in self._rows.values() if row.side is Side.BUY]
        asks = [row for row in self._rows.values() if row.side is Side.SELL]
        return View(
            self.sequence,
            sorted(bids, key=lambda row: (-row.price, _place(row))),
            sorted(asks, key=lambda row: (row.price, _place(row))),
        )


def _place(row: LevelRow | OrderRow) -> int:
    return row.priority if isinstance(row, OrderRow) else 0


def _by_key(view: View[Row]) -> dict[Hashable, Row]:
    return {row.key: row for row in chain(view.bids, view.asks)}

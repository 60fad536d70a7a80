"""A book put together again from the lines of a feed (``feed``). Pure."""

from __future__ import annotations

import zlib
from decimal import Decimal
from itertools import zip_longest

from .records import FeedLine

CHECKSUM_LEVELS = 25
"""Prices a side that the checksum covers at the most, as on Bitfinex."""

Level = tuple[str, str]
"""Price and quantity."""


class BookReplica:
    """The book of which it is given the lines.

    Args:
        levels: Prices a side that the feed was asked for.
    """

    def __init__(self, levels: int):
        self._checked = min(levels, CHECKSUM_LEVELS)
        self._sequence: int | None = None
        self._bids: dict[Decimal, Level] = {}
        self._asks: dict[Decimal, Level] = {}

    def apply(self, line: FeedLine) -> bool:
        """Follow ``line``. Returns whether it has changed anything.

        Raises:
            ValueError: It does not follow on the one before, or the book is not what its checksum says.
        """
        if line.type == "snapshot":
            self._bids, self._asks = {}, {}
        elif line.previous is None or line.previous != self._sequence:
            raise ValueError(f"a line is missing: {self._sequence} came before {line.previous}")
        self._sequence = line.sequence
        for side, rows in ((self._bids, line.bids), (self._asks, line.asks)):
            for price, quantity, _ in rows:
                if quantity == "0":
                    side.pop(_number(price), None)
                else:
                    side[_number(price)] = price, quantity
        if self._checksum() != line.checksum:
            raise ValueError(f"the book is not what line {line.sequence} says by its checksum")
        return bool(line.type == "snapshot" or line.bids or line.asks)

    def sides(self) -> tuple[list[Level], list[Level]]:
        """Bids and asks, best first."""
        bids = [self._bids[price] for price in sorted(self._bids, reverse=True)]
        return bids, [self._asks[price] for price in sorted(self._asks)]

    def _checksum(self) -> int:
        bids, asks = self.sides()
        parts: list[str] = []
        for bid, ask in zip_longest(bids[: self._checked], asks[: self._checked]):
            for level, sign in ((bid, ""), (ask, "-")):
                if level is not None:
                    price, quantity = level
                    parts += (price.rstrip("0").rstrip(".") if "." in price else price, sign + quantity)
        crc = zlib.crc32(":".join(parts).encode())
        return crc - 2**32 if crc >= 2**31 else crc


def _number(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise ValueError(f"{text!r} is no price") from None
    if not number.is_finite():
        raise ValueError(f"{text!r} is no price")
    return number

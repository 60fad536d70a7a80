"""One side of a book: its price levels, best first."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import chain

from sortedcontainers import SortedList

from ..model import Level, Order, Side

NO_KEY = -(2**62)
"""The key of no level: below that of every price."""
NEAR_MAX = 512
"""Near keys at the most: 4 KB, which move within a fraction of a microsecond."""


class Ladder:
    """The levels of one side.

    Levels are filed under a key that is higher for a better price: the price of bids, minus that of asks. So
    an order of the other side with the key ``k`` on its own side trades with keys of ``-k`` and above.

    Nearly all that happens, happens near the best price. So the best keys stand in a short plain list, the
    best last, where a change moves but a few of them; the others are in a sorted list made for many.

    Attributes:
        side: Whose levels these are.
        levels: By key. None is empty.
        best_key: The highest key, or ``NO_KEY``.
        best: Its level, or None.
        reserved: Reserved lots by key, where there are any.
        best_reserved: The highest key of these, or ``NO_KEY``.
    """

    __slots__ = (
        "_far",
        "_floor",
        "_near",
        "_reserved_keys",
        "best",
        "best_key",
        "best_reserved",
        "levels",
        "reserved",
        "side",
        "sign",
    )

    def __init__(self, side: Side):
        self.side = side
        self.sign = 1 if side is Side.BUY else -1
        self.levels: dict[int, Level] = {}
        self.best_key = NO_KEY
        self.best: Level | None = None
        self.reserved: dict[int, int] = {}
        self.best_reserved = NO_KEY
        self._reserved_keys: list[int] = []  # the best last; few, since reservations are short
        self._near: list[int] = []
        self._far: SortedList = SortedList()
        self._floor = NO_KEY  # above every key that is far, below every key that is near

    @property
    def keys(self) -> Iterator[int]:
        """All keys, the best first."""
        near = reversed(self._near)
        return chain(near, reversed(self._far)) if self._far else near  # the far ones take long to begin

    def open_level(self, key: int, order: Order) -> None:
        """A new level, of one order. O(log n)."""
        level = self.levels[key] = Level(key, order)
        if key > self.best_key:
            self._near.append(key)
            self.best_key = key
            self.best = level
        elif key > self._floor:
            insort(self._near, key)
        else:
            self._far.add(key)
        if len(self._near) > NEAR_MAX:
            self._spill()

    def drop_level(self, level: Level) -> None:
        """Forget a level that has ended. O(log n)."""
        key = level.key
        near = self._near
        del self.levels[key]
        if key == self.best_key:
            near.pop()
            if not near:
                self._refill()
            if near:
                self.best_key = best_key = near[-1]
                self.best = self.levels[best_key]
            else:
                self.best_key = NO_KEY
                self.best = None
        elif key > self._floor:
            del near[bisect_left(near, key)]
        else:
            self._far.remove(key)

    def _spill(self) -> None:
        """Move the worse half of the near keys to the far ones."""
        half = len(self._near) // 2
        self._far.update(self._near[:half])
        self._floor = self._near[half - 1]
        del self._near[:half]

    def _refill(self) -> None:
        """Move the best of the far keys to the near ones, which are used up."""
        if not self._far:
            self._floor = NO_KEY
            return
        some = NEAR_MAX // 2
        self._near.extend(self._far[-some:])
        del self._far[-some:]
        self._floor = self._far[-1] if self._far else NO_KEY

    def best_first(self) -> Iterator[Level]:
        levels = self.levels
        return (levels[key] for key in self.keys)

    def down_to(self, limit: int) -> Iterator[Level]:
        """The levels that an order of the other side with the limit key ``limit`` crosses, best first."""
        levels = self.levels
        for key in self.keys:
            if key < limit:
                return
            yield levels[key]

    def reserve(self, key: int, quantity: int) -> None:
        """Count ``quantity`` lots, or minus so many, as reserved at ``key``. O(log n), and a short move."""
        before = self.reserved.get(key, 0)
        total = before + quantity
        if total:
            self.reserved[key] = total
            if before:
                return
            keys = self._reserved_keys
            insort(keys, key)
        else:
            del self.reserved[key]
            keys = self._reserved_keys
            del keys[bisect_left(keys, key)]
        self.best_reserved = keys[-1] if keys else NO_KEY

"""Stop orders that wait for their price. They are in no level: nothing of them can be matched or seen."""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedDict

from ..model import Order, Side


class Stops:
    """Waiting stop orders by stop price and time.

    A buy order comes alive when a trade happens at its stop price or above, a sell order at or below.

    Attributes:
        count: How many wait.
    """

    __slots__ = ("_buys", "_sells", "count")

    def __init__(self) -> None:
        self.count = 0
        self._buys: SortedDict = SortedDict()
        self._sells: SortedDict = SortedDict()

    def __iter__(self) -> Iterator[Order]:
        """Buy orders, then sell orders, each in the order in which they come alive."""
        yield from self._buys.values()
        yield from self._sells.values()

    def add(self, order: Order) -> None:
        """Let ``order`` wait. O(log n)."""
        waiting, place = self._place(order)
        waiting[place] = order
        self.count += 1

    def discard(self, order: Order) -> None:
        """``order`` waits no more, if it did. O(log n)."""
        waiting, place = self._place(order)
        if waiting.pop(place, None) is not None:
            self.count -= 1

    def take_due(self, low: int, high: int) -> list[Order]:
        """Take those that trades between ``low`` and ``high`` (in ticks) bring alive. O(k log n).

        Returns:
            Buy orders, then sell orders; of a side the nearest stop price first, of a price the oldest.
        """
        due: list[Order] = []
        for waiting, reached in ((self._buys, high), (self._sells, -low)):
            while waiting and waiting.keys()[0][0] <= reached:
                due.append(waiting.popitem(0)[1])
        self.count -= len(due)
        return due

    @staticmethod
    def reached(order: Order, price: int | None) -> bool:
        """Whether a trade at ``price`` (None: there was none) brings ``order`` alive."""
        stop_price = order.terms.stop_price
        if price is None or stop_price is None:
            return False
        return price >= stop_price if order.side is Side.BUY else price <= stop_price

    def _place(self, order: Order) -> tuple[SortedDict, tuple[int, int]]:
        stop_price = order.terms.stop_price
        assert stop_price is not None
        if order.side is Side.BUY:
            return self._buys, (stop_price, order.sequence)
        return self._sells, (-stop_price, order.sequence)

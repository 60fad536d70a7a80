"""Items that were put through this node, to be put again so that they outlive the nodes they lie at.
IO-free.

BEP 44: nodes may forget an item after two hours, so who put it does so again every hour.
"""

from __future__ import annotations

from collections import OrderedDict

from .ages import age_s
from .bounds import ITEM_MAX_AGE_S, ITEMS_MAX, REPUBLISH_S
from .items import Item


class OwnItems:
    """Own items, each for ``ITEM_MAX_AGE_S`` after its owner last put it; the one due first goes when there
    are too many.
    """

    def __init__(self, max_items: int = ITEMS_MAX) -> None:
        self._max_items = max_items
        # Item, when it is due, when it is over; with one interval for all, in the order of what is due.
        self._items: OrderedDict[bytes, tuple[Item, float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item, now: float) -> None:
        """Its owner has put it."""
        self._set(item, now, now + ITEM_MAX_AGE_S)

    def drop_older(self, newest: Item) -> None:
        """Others hold this version: if it is newer, the owner of ours does not use this node any more."""
        known = self._items.get(newest.target)
        if known is not None and newest.newer_than(known[0]):
            del self._items[newest.target]

    def dump(self, now: float) -> list[tuple[Item, float]]:
        """All items with the seconds since their owner put them, the one due first first."""
        return [(item, age_s(now, over, ITEM_MAX_AGE_S)) for item, _, over in self._items.values()]

    def take_due(self, now: float, count: int) -> list[Item]:
        """Up to ``count`` items to be put again now; they are due again after ``REPUBLISH_S``."""
        taken: list[Item] = []
        while self._items and len(taken) < count:
            target = next(iter(self._items))
            item, due, over = self._items[target]
            if due > now:
                break
            if over <= now:
                del self._items[target]
                continue
            self._set(item, now, over)
            taken.append(item)
        return taken

    def _set(self, item: Item, now: float, over: float) -> None:
        target = item.target
        self._items.pop(target, None)
        if len(self._items) >= self._max_items:
            self._items.popitem(last=False)
        self._items[target] = item, now + REPUBLISH_S, over

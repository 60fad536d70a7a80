"""Items put at, and got from, the nodes closest to them (BEP 44). IO-free.

What this node holds for others is in ``items``; what its own users have put, and is put again, in
``republish``; how a put travels to several nodes, in ``storing``.
"""

from __future__ import annotations

from collections.abc import Callable

from .bounds import REPUBLISHED_PER_TICK
from .items import Item, ItemStore, check_version
from .krpc import Refusal
from .lookup import ItemWalk, TokenWalk
from .republish import OwnItems
from .storing import StoreReport, Storing
from .transactions import Reply
from .walks import Walks


class ItemAccess:
    """Puts and gets items, here and at other nodes.

    Args:
        items: What lies at this node.
        own_items: What was put through it.
        walks, storing: The way to the other nodes.
        clock: The time in seconds, monotonic.
    """

    def __init__(
        self,
        items: ItemStore,
        own_items: OwnItems,
        walks: Walks,
        storing: Storing,
        clock: Callable[[], float],
    ) -> None:
        self._items = items
        self._own_items = own_items
        self._walks = walks
        self._storing = storing
        self._clock = clock

    def put(self, item: Item, cas: int | None, done: Callable[[StoreReport], None]) -> None:
        """Store an item (checked before) at the nodes closest to it, of which this may be one.

        A mutable one is refused, before anything is sent, by the newest version that is found on the way: so
        none of the copies is missed, wherever it was put. An immutable one is kept here in any case, as Node
        does.
        """

        def told(report: StoreReport) -> None:
            if report.taken or not item.mutable:  # what was refused must not be tried again behind its back
                self._own_items.add(item, self._clock())
            done(report)

        self._put(item, cas, told)

    def put_again(self, now: float) -> None:
        """Put what is due of our own items once more."""
        for item in self._own_items.take_due(now, REPUBLISHED_PER_TICK):
            self._put(item, None, lambda report: None)

    def _put(self, item: Item, cas: int | None, done: Callable[[StoreReport], None]) -> None:
        if item.mutable:
            versions = self._walks.to(ItemWalk, item.target)
            versions.salt = item.salt
            self._walks.run(versions, lambda walk: self._put_version(walk, item, cas, done))
            return

        def walked(walk: TokenWalk) -> None:
            report = StoreReport(1, 1) if walk.own_is_close() else StoreReport()
            self._storing.put(walk.holders(), item, report, done)

        self._items.put(item, None, self._clock())
        self._walks.run(self._walks.to(TokenWalk, item.target), walked)

    def _put_version(
        self, walk: ItemWalk, item: Item, cas: int | None, done: Callable[[StoreReport], None]
    ) -> None:
        """Put a mutable item at the holders that were found, unless they or this node have a newer one."""
        now = self._clock()
        own = self._items.get(item.target, now)
        newest = own if own is not None and own.newer_than(walk.item) else walk.item
        if newest is not None:
            self._own_items.drop_older(newest)
            # The very same version is put again, to those who have lost it.
            if cas is not None or not item.same_version(newest):
                try:
                    check_version(item, cas, newest)
                except Refusal as refusal:
                    done(StoreReport(1, 0, [(refusal.code, refusal.text)]))
                    return
        report = StoreReport(swap=cas is not None)
        if own is not None or walk.own_is_close():
            report.asked = 1
            try:
                self._items.put(item, None, now)
                report.stored = 1
            except Refusal as refusal:
                report.refusals.append((refusal.code, refusal.text))
        versions = {}
        if cas is not None:
            # Who has missed a version may replace the one it has, not one that comes in between.
            versions = {address: walk.versions.get(address, cas) for address, _ in walk.holders()}
        self._storing.put(walk.holders(), item, report, done, versions)

    def get(
        self,
        target: bytes,
        done: Callable[[Item | None, Reply | None], None],
        *,
        salt: bytes | None = None,
        cache: bool = True,
    ) -> None:
        """Find an item in the DHT, with the reply that brought it; or here, with none.

        An immutable one that is here needs no asking, unless ``cache`` is false. Of a mutable one others may
        have a newer version.
        """
        own = self._items.get(target, self._clock())
        if own is not None and cache and not own.mutable:
            done(own, None)
            return

        def walked(walk: ItemWalk) -> None:
            own = self._items.get(target, self._clock())
            newer = own is None or (walk.item is not None and walk.item.newer_than(own))
            if newer or own is None or not own.mutable or (own.salt or b"") != (salt or b""):
                done(walk.item, walk.reply)
            else:
                done(own, None)

        walk = self._walks.to(ItemWalk, target)
        walk.salt = salt
        self._walks.run(walk, walked)

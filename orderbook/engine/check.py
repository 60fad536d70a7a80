"""Every invariant of a book, checked from scratch. Nothing here trusts a sum that the engine keeps."""

from __future__ import annotations

from itertools import pairwise

from ..model import Level, Order, Side
from .entering import ALONE, OPEN
from .ladder import NO_KEY, Ladder
from .reserving import Reserving


def check_order(order: Order) -> None:
    """Conservation (I1). Raises AssertionError."""
    parts = (order.open, order.reserved, order.filled, order.cancelled)
    assert min(parts) >= 0, f"negative quantity: {order}"
    assert sum(parts) == order.quantity, f"quantity lost or invented: {order}"
    assert 0 <= order.hidden <= order.open, f"{order} hides {order.hidden} lots"


def check(book: Reserving) -> None:
    """Verify every invariant of ``book``; O(orders).

    Raises:
        AssertionError: Naming what does not hold.
    """
    matchable = _check_ladder(book.bids) | _check_ladder(book.asks)
    waiting = {order.id: order for order in book.stops} | book._reached
    for id, order in book.orders.items():
        assert order.id == id, f"{order} is filed as {id}"
        check_order(order)
        assert order.live, f"{order} is closed and in the book"
        assert not (order.cancel_requested and order.open), f"{order} is cancelled and open"
        if id in waiting:
            assert order.untriggered, f"{order} waits with the stop orders"
            assert not order.reserved, f"{order} waits with the stop orders, and is reserved"
            continue
        assert not order.untriggered, f"{order} should wait with the stop orders"
        assert 0 < order.sequence <= order.priority <= book.sequence, f"{order} has no place in time"
        if not order.terms.rests:
            assert book.routing is not ALONE, f"{order} does not rest, and is here"
            assert order.level is None, f"{order} does not rest, and can be taken"
            assert not order.open or id in book._freed, f"{order} has met everyone, and is still here"
            continue
        shown = order.open - order.hidden
        assert (shown > 0) is (id in matchable), f"{order} shows {shown} lots"
        assert shown or not order.hidden or order.reserved, f"{order} shows no tip"
        assert shown <= (order.terms.display or shown), f"{order} shows more than its tip"
    live = set(book.orders)
    assert matchable <= live, f"closed orders rest: {matchable - live}"
    assert set(waiting) <= live, f"closed orders wait: {set(waiting) - live}"
    if book._by_owner is not None:
        assert all(book._by_owner.values()), "an owner without orders is in the index"
        owned = {(owner, id) for owner, orders in book._by_owner.items() for id in orders}
        assert owned == {(order.owner, order.id) for order in book.orders.values()}, "the index by owner"
    assert set(book._freed) <= live, "closed orders wait to be matched again"
    assert len(book.orders) <= book.rules.max_orders, "the book holds too many orders"

    expiring = {
        (order.terms.expires_ms, order.sequence): order
        for order in book.orders.values()
        if order.terms.expires_ms is not None and not order.cancel_requested
    }
    listed = {place: order for place, order in book._expiring.items() if not order.cancel_requested}
    assert listed == expiring, "the index by expiry disagrees"
    for id, partner in book._partners.items():
        assert book._partners.get(partner) == id, f"{id} and {partner} are no pair"
        assert {id, partner} <= live, f"the pair {id}, {partner} is not live"
    for id in book._reached:
        decides = book.orders.get(book._partners.get(id, ""))
        assert decides is None or decides.cancel_requested, f"{id} waits for {decides}, which is open"
        assert decides is not None or book.state is not OPEN, f"{id} waits for nobody"

    _check_reservations(book)
    _check_uncrossed(book)


def _check_ladder(ladder: Ladder) -> set[str]:
    """Returns the ids of the orders in it."""
    ids: set[str] = set()
    assert list(ladder.keys) == sorted(ladder.levels, reverse=True), f"the keys of {ladder.side.value}"
    assert all(key > ladder._floor for key in ladder._near), f"the near keys of {ladder.side.value}"
    assert ladder._near or not ladder._far, f"{ladder.side.value} has no near keys, but far ones"
    best_key = max(ladder.levels, default=NO_KEY)
    assert ladder.best_key == best_key, f"the best of {ladder.side.value} is not {ladder.best_key}"
    assert ladder.best is ladder.levels.get(best_key), f"the best level of {ladder.side.value} is another"
    for key, level in ladder.levels.items():
        orders = list(level)
        where = f"{ladder.side.value} {level.price}"
        assert orders, f"level {where} is empty"
        assert (level.key, level.price) == (key, key * ladder.sign), f"level {where} is filed as {key}"
        assert level.open == sum(order.open for order in orders), f"open sum of {where}"
        assert level.hidden == sum(order.hidden for order in orders), f"hidden sum of {where}"
        assert level.count == len(orders), f"count of {where}"
        _check_queue(level, orders, where)
        for order in orders:
            assert order.level is level, f"{order} believes to be elsewhere than in {where}"
            assert (order.side, order.price) == (ladder.side, level.price), f"{order} lies at {where}"
            ids.add(order.id)
    return ids


def _check_queue(level: Level, orders: list[Order], where: str) -> None:
    assert level.tail is orders[-1], f"the tail of {where}"
    assert orders[0].prev is None, f"something is before the head of {where}"
    assert orders[-1].next is None, f"something is behind the tail of {where}"
    for older, newer in pairwise(orders):
        assert newer.prev is older, f"the links of {where}"
        assert older.priority < newer.priority, f"{newer} is out of time order in {where}"
    if level.index is not None:
        assert list(level.index) == orders, f"the index of {where} disagrees"


def _check_reservations(book: Reserving) -> None:
    reserved: dict[str, int] = {}
    for id, reservation in book.reservations.items():
        assert reservation.id == id, f"reservation {reservation.id} is filed as {id}"
        assert reservation.fills, f"reservation {id} holds nothing"
        for order, quantity in reservation.fills:
            assert quantity > 0, f"reservation {id} holds {quantity} of {order}"
            assert book.orders.get(order.id) is order, f"reservation {id} holds {order}, which is gone"
            reserved[order.id] = reserved.get(order.id, 0) + quantity
    for id, quantity in reserved.items():
        assert quantity <= book.orders[id].reserved, f"{book.orders[id]} is reserved for {quantity} by others"
    leases = sorted((r.expires, r.id) for r in book.reservations.values())
    assert sorted(filter(book._is_live, book._leases)) == leases, (
        "the index of leases disagrees with the reservations"
    )
    for ladder in (book.bids, book.asks):
        sums: dict[int, int] = {}
        for order in book.orders.values():
            if order.side is ladder.side and order.reserved and order.terms.rests:
                key = order.price * ladder.sign
                sums[key] = sums.get(key, 0) + order.reserved
        assert ladder.reserved == sums, f"the reserved sums of {ladder.side.value} disagree"
        assert ladder._reserved_keys == sorted(sums), f"the reserved keys of {ladder.side.value} disagree"
        assert ladder.best_reserved == max(sums, default=NO_KEY), "the best reserved price disagrees"


def _check_uncrossed(book: Reserving) -> None:
    """Open quantity crosses only where something was given back and waits to be matched again."""
    bid, ask = book.best(Side.BUY), book.best(Side.SELL)
    if bid is None or ask is None or bid < ask:
        return
    waiting = {order.id for order in book._freed.values()}
    assert book.state is not OPEN or waiting, f"open orders cross: bid {bid}, ask {ask}"
    settled = {
        side: [o.price for o in book.orders.values() if o.side is side and o.level and o.id not in waiting]
        for side in Side
    }
    if settled[Side.BUY] and settled[Side.SELL]:
        bid, ask = max(settled[Side.BUY]), min(settled[Side.SELL])
        assert bid < ask, f"open orders cross: bid {bid}, ask {ask}"

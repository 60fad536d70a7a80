"""A book as plain data: to keep it, to bring it back, and to tell whether two books are the same.

The state of a book is all that its future depends on. :func:`snapshot` adds the numbers that it goes by, so
that what is brought back gives its next events the same numbers too. Everything is made of dicts, lists,
strings and whole numbers (and the leases, which are floats), ready for JSON or msgpack.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from ..model import Order, Side
from ..terms import GTC, PostOnly, SelfTrade, Terms, TimeInForce
from .book import Book
from .check import check
from .reserving import Fill, Reservation
from .rules import RULES, MarketState, Rules


def state_of(book: Book) -> dict[str, Any]:
    """All that the future of ``book`` depends on. O(n log n) in its orders.

    Returns:
        ``market``: state, band, last price and time; ``orders``: their fields, in order of arrival;
        ``places``: their ids in order of priority, but for those that wait for their stop price;
        ``reservations``, ``pairs``, ``reached``: ids of stop orders that wait for what is reserved of their
        partner, and ``freed``: ids of orders that wait to be matched again.
    """
    orders = sorted(book.orders.values(), key=lambda order: order.sequence)
    placed = sorted((order for order in orders if order.priority), key=lambda order: order.priority)
    return {
        "market": [book.state.value, *book.band, book.last_price, book.time_ms],
        "orders": [_order_row(order) for order in orders],
        "places": [order.id for order in placed],
        "reservations": [
            [r.id, r.counterparty, r.purpose, r.expires, [[order.id, lots] for order, lots in r.fills]]
            for _, r in sorted(book.reservations.items())
        ],
        "pairs": sorted([id, partner] for id, partner in book._partners.items() if id < partner),
        "reached": list(book._reached),
        "freed": [order.id for order in placed if order.id in book._freed],
    }


def state_hash(book: Book) -> str:
    """SHA-256 of :func:`state_of`, in hexadecimal: the same for two books that will behave the same."""
    return hash_of(state_of(book))


def hash_of(state: Mapping[str, Any]) -> str:
    """SHA-256 of ``state`` as JSON with sorted keys and no spaces, in hexadecimal."""
    text = json.dumps(state, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def snapshot(book: Book) -> dict[str, Any]:
    """``book`` as plain data, for :func:`restore`. O(n log n) in its orders."""
    orders = sorted(book.orders.values(), key=lambda order: order.sequence)
    return {
        **state_of(book),
        "sequence": book.sequence,
        "numbers": [[order.sequence, order.priority] for order in orders],
    }


def restore(
    data: Mapping[str, Any], rules: Rules = RULES, on_closed: Callable[[Order], object] | None = None
) -> Book:
    """The book of which ``data`` is the :func:`snapshot`: every order in its old place. O(n log n).

    Raises:
        ValueError: ``data`` is no snapshot of a book that keeps ``rules``.
    """
    try:
        book = _restored(data, rules, on_closed)
        check(book)
        if snapshot(book) != data:
            raise ValueError("it has parts that belong to nothing")
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"this is no snapshot of a book: {error}") from error
    return book


def _restored(data: Mapping[str, Any], rules: Rules, on_closed: Callable[[Order], object] | None) -> Book:
    book = Book(rules, on_closed)
    state, low, high, book.last_price, book.time_ms = data["market"]
    book.set_state(MarketState(state))
    book.set_band(low, high)
    book.sequence = data["sequence"]
    by_priority: list[Order] = []
    reached = set(data["reached"])
    for row, (sequence, priority) in zip(data["orders"], data["numbers"], strict=True):
        order = _order_of(row)
        order.sequence, order.priority = sequence, priority
        book._enlist(order)
        book._mark_expiry(order)
        if order.untriggered and order.id in reached:
            book._reached[order.id] = order
        elif order.untriggered:
            book.stops.add(order)
        else:
            by_priority.append(order)
    by_priority.sort(key=lambda order: order.priority)
    for order in by_priority:
        if order.reserved:
            book._count_reserved(order, order.reserved)
        if order.open > order.hidden:
            book._come_back(order)
    for id, counterparty, purpose, expires, fills in data["reservations"]:
        held = [Fill(book.orders[order_id], lots) for order_id, lots in fills]
        book.reservations[id] = Reservation(id, counterparty, purpose, held, expires)
        book._add_lease(book.reservations[id])
    for id, partner in data["pairs"]:
        book._partners[id] = partner
        book._partners[partner] = id
    book._reached = {id: book._reached[id] for id in data["reached"]}
    for id in data["freed"]:
        book._freed[id] = book.orders[id]
    return book


def _order_row(order: Order) -> list[Any]:
    return [
        order.id,
        order.owner,
        order.side.value,
        order.price,
        order.quantity,
        order.open,
        order.hidden,
        order.reserved,
        order.filled,
        order.cancelled,
        order.cancel_requested,
        order.time_ms,
        order.client_order_id,
        terms_row(order.terms),
    ]


def _order_of(row: list[Any]) -> Order:
    id, owner, side, price, quantity, open, hidden, reserved, filled, cancelled, requested, *rest = row
    time_ms, client_order_id, terms = rest
    order = Order(id, owner, Side(side), price, quantity, _terms_of(terms), time_ms, client_order_id)
    order.open, order.hidden, order.reserved = open, hidden, reserved
    order.filled, order.cancelled, order.cancel_requested = filled, cancelled, requested
    return order


def terms_row(terms: Terms) -> list[Any] | None:
    """``terms`` as plain data; None for those of a plain order."""
    if terms == GTC:
        return None
    return [
        terms.time_in_force.value,
        terms.market,
        terms.post_only.value if terms.post_only else None,
        terms.stop_price,
        terms.display,
        terms.expires_ms,
        terms.self_trade.value,
    ]


def _terms_of(row: list[Any] | None) -> Terms:
    if row is None:
        return GTC
    force, market, post_only, stop_price, display, expires_ms, self_trade = row
    return Terms(
        TimeInForce(force),
        market,
        PostOnly(post_only) if post_only else None,
        stop_price,
        display,
        expires_ms,
        SelfTrade(self_trade),
    )

"""What a command did, in order: the engine lists it in ``Book.events``.

    Match          two orders of this book traded: one that arrived, came alive or was given back with another
    Execution      reserved quantity was committed to a counterparty elsewhere
    Cancellation   quantity was taken back, and why
    Trigger        a stop order has come alive; what it does follows
    Requeue        an iceberg shows its next tip, behind all others of its price
    Contention     an order did not get all it could have: more crosses, but is reserved for others
    Outbound       an order was set aside for its way through the network

The same commands on the same book give the same events. They hold the orders themselves, which go on
changing: whoever keeps events writes down at once what it needs of the orders.
"""

from __future__ import annotations

from typing import NamedTuple

from ..model import Order
from .codes import Reason


class Match(NamedTuple):
    """A trade between two orders of this book.

    Attributes:
        maker: The older one; the price is its price.
        taker: The newer one.
        price: In ticks.
        quantity: In lots.
    """

    maker: Order
    taker: Order
    price: int
    quantity: int


class Execution(NamedTuple):
    """A trade of reserved quantity, in lots, with a counterparty elsewhere; ``price`` in ticks."""

    order: Order
    price: int
    quantity: int


class Cancellation(NamedTuple):
    """``quantity`` lots of ``order`` were taken back."""

    order: Order
    quantity: int
    reason: Reason


class Trigger(NamedTuple):
    """A stop order has come alive."""

    order: Order


class Requeue(NamedTuple):
    """An iceberg shows its next tip, behind all others of its price; the trade that took the last one came
    before."""

    order: Order


class Contention(NamedTuple):
    """More crosses ``order`` than it could have: it is reserved."""

    order: Order


class Outbound(NamedTuple):
    """``quantity`` lots of ``order``, all that is open of it, were set aside for its way through the network.

    :meth:`~orderbook.engine.reserving.Reserving.fill_held` and ``release_held`` say what came of it.
    """

    order: Order
    quantity: int


Event = Match | Execution | Cancellation | Trigger | Requeue | Contention | Outbound

"""The matching engine of one market: pure, deterministic, exact, and usable without any network.

:class:`Book` is the engine; ``docs/engine.md`` explains it. Prices are whole ticks and quantities whole lots:
:class:`~orderbook.model.Instrument` turns decimal text into them.
"""

from ..model import Instrument, Order, OrderStatus, Side
from ..terms import FOK, GTC, IOC, MARKET, POST_ONLY, PostOnly, Routing, SelfTrade, Terms, TimeInForce
from .book import Book, Quote
from .codes import Code, Reason
from .events import Cancellation, Contention, Event, Execution, Match, Outbound, Requeue, Trigger
from .reserving import Crossing, Fill, Reservation
from .rules import MarketState, Rules
from .state import restore, snapshot, state_hash
from .views import Delta, Feed, LevelRow, OrderRow, Replica, Top, View, checksum, l1, l2, l3

__all__ = [
    "FOK",
    "GTC",
    "IOC",
    "MARKET",
    "POST_ONLY",
    "Book",
    "Cancellation",
    "Code",
    "Contention",
    "Crossing",
    "Delta",
    "Event",
    "Execution",
    "Feed",
    "Fill",
    "Instrument",
    "LevelRow",
    "MarketState",
    "Match",
    "Order",
    "OrderRow",
    "OrderStatus",
    "Outbound",
    "PostOnly",
    "Quote",
    "Reason",
    "Replica",
    "Requeue",
    "Reservation",
    "Routing",
    "Rules",
    "SelfTrade",
    "Side",
    "Terms",
    "TimeInForce",
    "Top",
    "Trigger",
    "View",
    "checksum",
    "l1",
    "l2",
    "l3",
    "restore",
    "snapshot",
    "state_hash",
]

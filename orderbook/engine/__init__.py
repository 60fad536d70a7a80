"""The matching engine of one market: pure, deterministic, exact, and usable without any network.

:class:`Book` is the engine; ``docs/engine.md`` explains it. Prices are whole ticks and quantities whole lots:
:class:`~orderbook.model.Instrument` turns decimal text into them.
"""

from ..model import Instrument, Order, OrderStatus, Side
from ..terms import FOK, GTC, IOC, MARKET, POST_ONLY, PostOnly, SelfTrade, Terms, TimeInForce
from .book import Book, Quote
from .codes import Code, Reason
from .events import Cancellation, Contention, Event, Execution, Match, Trigger
from .reserving import Crossing, Fill, Reservation
from .rules import MarketState, Rules

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
    "Event",
    "Execution",
    "Fill",
    "Instrument",
    "MarketState",
    "Match",
    "Order",
    "OrderStatus",
    "PostOnly",
    "Quote",
    "Reason",
    "Reservation",
    "Rules",
    "SelfTrade",
    "Side",
    "Terms",
    "TimeInForce",
    "Trigger",
]

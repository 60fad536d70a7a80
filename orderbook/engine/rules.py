"""What holds for a whole book: its bounds, and the state of its market."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from .. import limits


class MarketState(Enum):
    """What a market takes. A state governs what is begun: what was reserved before is kept in any of them."""

    OPEN = "open"
    CANCEL_ONLY = "cancel_only"
    """Nothing but cancellations, and reductions of what rests. Nothing trades."""
    HALTED = "halted"
    """Nothing at all; only time goes on."""


class Rules(NamedTuple):
    """The bounds of a book.

    Attributes:
        max_price: The highest price, in ticks.
        min_quantity: The smallest order, in lots.
        max_quantity: The largest order, in lots.
        max_orders: Live orders at the most.
    """

    max_price: int = limits.PRICE_TICKS
    min_quantity: int = 1
    max_quantity: int = limits.QUANTITY_LOTS
    max_orders: int = limits.OPEN_ORDERS


RULES = Rules()

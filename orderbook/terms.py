"""How an order is to be handled: its kind, how long it lives, what it does when it meets its own owner."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class TimeInForce(Enum):
    """What becomes of the part of an order that does not trade at once."""

    GTC = "gtc"
    """Good till cancelled: it rests."""
    GTD = "gtd"
    """Good till date: it rests until ``expires_ms``."""
    IOC = "ioc"
    """Immediate or cancel: it is cancelled."""
    FOK = "fok"
    """Fill or kill: there is none. The order trades completely at once, or is refused and changes nothing."""


class Routing(Enum):
    """How far an order's way goes, and what comes first."""

    ALONE = "alone"
    """The book is the whole market."""
    LOCAL_FIRST = "local-first"
    """Orders trade in their own book first, and what is left of them with others."""
    BEST_PRICE = "best-price"
    """An order goes where the price is best, its own book being one place among others."""


FILL_OR_KILL: Final = TimeInForce.FOK
BEST_PRICE: Final = Routing.BEST_PRICE
"""For where each order comes by: to ask an enumeration for a member takes as long as a call."""


class PostOnly(Enum):
    """What an order does that must only ever make a price, when it would take one."""

    REJECT = "reject"
    """It is refused."""
    SLIDE = "slide"
    """Its price moves to the nearest one that takes nothing."""


class SelfTrade(Enum):
    """What happens when an order would trade with an older one of the same owner; the newer order says."""

    CANCEL_NEWEST = "cancel_newest"
    """The newer one is cancelled: what it traded before that stays."""
    CANCEL_OLDEST = "cancel_oldest"
    """The older one is cancelled, and the newer one goes on."""
    CANCEL_BOTH = "cancel_both"
    DECREMENT = "decrement"
    """The open quantity of the smaller one is cancelled of both."""


@dataclass(frozen=True)
class Terms:
    """The instructions of one order; which of them go together says ``engine.codes.conflict_of``.

    Attributes:
        time_in_force: How long it lives.
        market: It takes any price there is, as far as the price band allows, and never rests.
        post_only: It never takes a price; what it does instead.
        stop_price: In ticks. It waits, invisible, until a trade at this price or beyond it: at or above for a
            buy order, at or below for a sell order. Then it is an order like any other.
        display: Lots that an iceberg order shows at a time; the others are hidden until these have traded.
        expires_ms: When a ``GTD`` order ends, in milliseconds since the epoch.
        self_trade: What it does when it meets an older order of its own owner.
    """

    time_in_force: TimeInForce = TimeInForce.GTC
    market: bool = False
    post_only: PostOnly | None = None
    stop_price: int | None = None
    display: int | None = None
    expires_ms: int | None = None
    self_trade: SelfTrade = SelfTrade.CANCEL_NEWEST

    @property
    def rests(self) -> bool:
        """Whether what is left of the order stays in the book."""
        return not self.market and self.time_in_force in (TimeInForce.GTC, TimeInForce.GTD)


GTC: Final = Terms()
"""A plain limit order, which most are: the engine tells it from all others by identity."""
IOC: Final = Terms(TimeInForce.IOC)
FOK: Final = Terms(TimeInForce.FOK)
MARKET: Final = Terms(TimeInForce.IOC, market=True)
POST_ONLY: Final = Terms(post_only=PostOnly.REJECT)

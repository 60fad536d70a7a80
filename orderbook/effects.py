"""What a step of the protocol asks its caller to do, and the clock it is given.

The negotiation does no IO: each of its methods returns a list of these, and whoever calls it (the worker, a
simulation) carries them out and tells the outcome with the method that the effect names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from .trade import Trade


class Announce(Struct, frozen=True):
    """Ask a peer for an offer; tell ``Negotiator.offer_answered`` or ``offer_failed``."""

    order_id: str
    round: int
    destination: str
    payload: Any


class Confirm(Struct, frozen=True):
    """Ask a maker to execute; tell ``Negotiator.match_answered`` or ``match_failed``.

    ``key`` is the maker's: only its holder may execute, and only its signature is an answer. None: the maker
    does not sign.
    """

    match_id: str
    maker: str
    destination: str
    payload: Any
    key: str | None = None


class Tell(Struct, frozen=True):
    """Tell a peer something that needs no answer: a reservation is not needed, we leave."""

    destination: str
    payload: Any


class Beat(Struct, frozen=True):
    """Send a heartbeat; tell ``Negotiator.heartbeat_answered`` or ``peer_lost``."""

    destination: str
    payload: Any


class Discover(Struct, frozen=True):
    """Look the market up soon: somebody has called whom we do not know yet."""


class Settled(Struct, frozen=True):
    """The order's way through the network is over for now: it is closed, or rests."""

    order_id: str


class Traded(Struct, frozen=True):
    """These trades were executed here."""

    trades: Sequence[Trade]


class DropTrades(Struct, frozen=True):
    """The first ``upto`` trades are in the journal: call ``Ledger.drop_trades``."""

    upto: int


PROMISES = (Confirm, Settled, Traded, DropTrades)
"""Effects whose time comes once the events of their step are durable: others may not see them before."""

Effect = Announce | Confirm | Tell | Beat | Discover | Settled | Traded | DropTrades


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps; leases and pauses are measured on it."""

    def time_ms(self) -> int:
        """Milliseconds since the epoch; only written into records."""

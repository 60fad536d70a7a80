"""What a step of the protocol asks its caller to do, and the clock it is given.

The negotiation does no IO: each of its methods returns a list of these, and whoever calls it (the worker, a
simulation) carries them out and tells the outcome with the method that the effect names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from .trade import Trade


class Question:
    """A message to the peer at ``destination``."""

    __slots__ = ("destination", "payload")

    def __init__(self, destination: str, payload: Any):
        self.destination = destination
        self.payload = payload


class Announce(Question):
    """Ask a peer for an offer; tell ``Negotiator.offer_answered`` or ``offer_failed``."""

    __slots__ = ("order_id", "round")

    def __init__(self, order_id: str, round: int, destination: str, payload: Any):
        super().__init__(destination, payload)
        self.order_id = order_id
        self.round = round


class Confirm(Question):
    """Ask a maker to execute; tell ``Negotiator.match_answered`` or ``match_failed``.

    ``key`` is the maker's: only its holder may execute, and only its signature is an answer. None: the maker
    does not sign.
    """

    __slots__ = ("key", "maker", "match_id")

    def __init__(self, match_id: str, maker: str, destination: str, payload: Any, key: str | None = None):
        super().__init__(destination, payload)
        self.match_id = match_id
        self.maker = maker
        self.key = key


class Tell(Question):
    """Tell a peer something that needs no answer: a reservation is not needed, we leave."""

    __slots__ = ()


class Beat(Question):
    """Send a heartbeat; tell ``Negotiator.heartbeat_answered`` or ``peer_lost``."""

    __slots__ = ()


class Discover:
    """Look the market up soon: somebody has called whom we do not know yet."""

    __slots__ = ()


class Settled:
    """The order's way through the network is over for now: it is closed, or rests."""

    __slots__ = ("order_id",)

    def __init__(self, order_id: str):
        self.order_id = order_id


class Traded:
    """These trades were executed here."""

    __slots__ = ("trades",)

    def __init__(self, trades: Sequence[Trade]):
        self.trades = trades


class Duplicate:
    """Tell the operator that two processes speak as the peer ``name``: what one says the other does not know,
    so that a match may be executed at one and refused by the other."""

    __slots__ = ("destination", "name", "other")

    def __init__(self, name: str, destination: str, other: str):
        self.name = name
        self.destination = destination
        self.other = other


class DropTrades:
    """Once the first ``upto`` trades are found in the journal's archive: call ``Ledger.drop_trades``."""

    __slots__ = ("upto",)

    def __init__(self, upto: int):
        self.upto = upto


PROMISES: Final = (Confirm, Settled, Traded)
"""Effects whose time comes once the events of their step are durable: others may not see them before."""

Effect = Question | Discover | Settled | Traded | Duplicate | DropTrades


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps; leases and pauses are measured on it."""

    def time_ms(self) -> int:
        """Milliseconds since the epoch; only written into records."""

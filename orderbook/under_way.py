"""What is known of an order on its way through the network, and of a match asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .events import Intended
from .model import Order
from .selection import Choice, OfferFill, PeerOffer
from .terms import FILL_OR_KILL


class Negotiation:
    """One order on its way through the network.

    Attributes:
        order: It is in the book, with ``held`` lots self-reserved.
        held: Self-reserved lots that are neither being confirmed nor in-doubt.
        asked: Lots that this round asks for: of an iceberg no more than it shows at a time.
        asked_at: When it did, on our monotonic clock.
        price: The worst price that it may take, in ticks.
        round: Counts its announcements.
        fruitless: Counts those of them, since the last fruitful one, that have got nothing.
        awaited: Destinations whose offer is still out.
        offers: In order of arrival.
        confirming: Match ids whose answer this round waits for.
        next: What a fill-or-kill order confirms when it has this answer, the last one first.
        contended: There may be more: reserved quantity was named, or a peer could not be asked.
        refused: Some of what this round confirmed was refused.
        more: There is more to be had of those whose offers were taken up, or to be asked for.
        filled: Something was executed in this round.
        paused: It waits for its next round.
        late: It has waited for an answer in doubt: what its owner wanted at once it does not begin now.
    """

    __slots__ = (
        "asked",
        "asked_at",
        "awaited",
        "confirming",
        "contended",
        "filled",
        "fruitless",
        "held",
        "late",
        "more",
        "next",
        "offers",
        "order",
        "paused",
        "price",
        "refused",
        "round",
    )

    def __init__(self, order: Order, held: int):
        self.order = order
        self.held = held
        self.asked = 0
        self.asked_at = 0.0
        self.price = order.price
        self.round = 0
        self.fruitless = 0
        self.awaited: set[str] = set()
        self.offers: list[PeerOffer] = []
        self.confirming: set[str] = set()
        self.next: list[Choice] = []
        self.contended = False
        self.refused = False
        self.more = False
        self.filled = False
        self.paused = False
        self.late = False

    @property
    def all_or_none(self) -> bool:
        """Whether it is a fill-or-kill order, that is not broken."""
        order = self.order
        return order.terms.time_in_force is FILL_OR_KILL and not order.filled


class Confirmation:
    """A match that a maker was asked to execute and has not answered; ``silences`` counts the tries.

    ``key`` is the maker's: whoever has its name by now, only that key's answer counts. None: it did not sign.
    """

    __slots__ = ("destination", "fills", "key", "lock_id", "maker", "order", "quantity", "silences")

    def __init__(
        self,
        order: Order,
        maker: str,
        destination: str,
        lock_id: str,
        fills: Sequence[OfferFill],
        key: str | None = None,
    ):
        self.order = order
        self.maker = maker
        self.destination = destination
        self.lock_id = lock_id
        self.fills = tuple(fills)
        self.key = key
        self.quantity = 0
        for fill in self.fills:
            self.quantity += fill.quantity
        self.silences = 0

    def intent(self, match_id: str) -> Intended:
        """The event to be journaled before this is sent."""
        return Intended(
            match_id=match_id,
            order_id=self.order.id,
            maker=self.maker,
            destination=self.destination,
            lock_id=self.lock_id,
            fills=tuple([(fill.order_id, fill.price, fill.quantity) for fill in self.fills]),
            key=self.key,
        )

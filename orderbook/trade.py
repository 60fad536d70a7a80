"""A trade, as both sides of it keep it. Pure."""

from __future__ import annotations

from msgspec import Struct

from .model import Side


class Trade(Struct, frozen=True):
    """One fill between two orders, at the maker's price.

    ``(match_id, maker_order_id)`` names it: a match with one peer may fill several of its resting orders.
    Both peers of a cross-peer trade keep the same record. ``price`` is in ticks, ``quantity`` in lots,
    ``time_ms`` is the maker's clock in milliseconds since the epoch, ``side`` is what the taker did (None in
    journals from before it was kept).
    """

    match_id: str
    market: str
    price: int
    quantity: int
    maker_order_id: str
    taker_order_id: str
    maker_peer: str
    taker_peer: str
    time_ms: int
    side: Side | None = None

    @property
    def cross_peer(self) -> bool:
        return self.maker_peer != self.taker_peer

    def orders_of(self, peer: str) -> list[str]:
        """The ids of the orders that ``peer`` has in this trade: what another peer calls its own order may
        be the id of one of ours."""
        ids = [self.maker_order_id] if self.maker_peer == peer else []
        if self.taker_peer == peer:
            ids.append(self.taker_order_id)
        return ids

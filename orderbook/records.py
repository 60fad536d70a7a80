"""What the client API of a peer answers (``api/server.py`` sends it, ``client.py`` reads it), as JSON.

Prices and quantities are decimal strings; times are milliseconds since the epoch. A reader passes over
fields that it does not know, and those with a default may be missing: peers and clients need not be of one
version.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from .messages import TradeRecord

Cursor = int | str
"""What a page says to pass as ``after`` for the next one."""


class OrderRecord(Struct, frozen=True):
    """An order as its peer shows it; at every instant ``quantity == open + reserved + filled + cancelled``.

    Attributes:
        price: The limit; None of a market order.
        in_doubt: What of ``reserved`` another peer was asked to execute, and has not answered yet.
        reason: Why some of it was cancelled, or None: ``docs/engine.md`` lists what there is.
        amended: Its price or quantity was another one at first.
        partner: The id of the other order of its pair, or None.
        time: When the peer accepted it, in milliseconds since the epoch.
    """

    id: str
    market: str
    side: str
    price: str | None
    quantity: str
    filled: str
    open: str
    reserved: str
    cancelled: str
    status: str
    owner: str
    client_order_id: str | None
    time: int
    time_in_force: str = "gtc"
    type: str = "limit"
    in_doubt: str = "0"
    reason: str | None = None
    post_only: str | None = None
    stop_price: str | None = None
    display: str | None = None
    expires_ms: int | None = None
    self_trade: str = "cancel_newest"
    amended: bool = False
    partner: str | None = None


class OwnFill(Struct, frozen=True):
    """What a trade was for one of the peer's own orders; price and quantity are the trade's.

    Attributes:
        role: The ``"maker"`` has rested, the ``"taker"`` has come and met it.
        side: What this order did; None of a few trades of journals from before it was kept.
        owner: Whose order it is; None, as the next one, where the peer has forgotten the order: an hour after
            it has closed.
    """

    order_id: str
    role: Literal["maker", "taker"]
    side: Literal["buy", "sell"] | None
    owner: str | None
    client_order_id: str | None


class TradeReport(TradeRecord):
    """A trade as a peer shows it to its clients.

    Attributes:
        fills: Of the peer's own orders: one, and of a trade within the peer two, the maker's first.
    """

    fills: list[OwnFill] = []  # noqa: RUF012  # a struct's default is copied


class Placed(Struct, frozen=True):
    """An order and the trades it has had so far."""

    order: OrderRecord
    trades: list[TradeReport]


class PlacedPair(Struct, frozen=True):
    """Two orders of which one cancels the other."""

    resting: Placed
    stop: Placed


class QuotedOrders(Struct, frozen=True):
    """The order of each quote; None where there was and is none."""

    orders: list[OrderRecord | None]


class OrderPage(Struct, frozen=True):
    orders: list[OrderRecord]
    next: Cursor | None


class TradePage(Struct, frozen=True):
    trades: list[TradeReport]
    next: Cursor | None


class BookRecord(Struct, frozen=True):
    """Open quantity by price, best price first: ``[(price, quantity), …]``."""

    market: str
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class PeerRecord(Struct, frozen=True):
    """Another peer, as the one asked sees it.

    ``refused`` says why they do not trade; ``key`` is its public key, or None if it does not sign.
    """

    name: str | None
    destination: str
    market: str
    heard_s_ago: float | None
    refused: str | None
    key: str | None = None


class MarketHealth(Struct, frozen=True):
    """One market at one peer in figures. ``reservations``, ``under_way`` and ``in_doubt`` are 0 at rest."""

    open_orders: int
    reservations: int
    under_way: int
    in_doubt: int
    orders: int
    trades: int
    cross_peer_trades: int
    peers: int
    best_bid: str | None
    best_ask: str | None
    state: str = "open"
    journal_waiting: int = 0


class ReservedFill(Struct, frozen=True):
    """Part of one of the peer's orders that is set aside."""

    order_id: str
    side: str
    price: str
    quantity: str


class ReservationRecord(Struct, frozen=True):
    """What a peer has set aside for ``peer``, and until when: ``for_order`` is the other's order."""

    lock_id: str
    peer: str
    for_order: str
    market: str
    expires_in_s: float
    fills: list[ReservedFill]


class Health(Struct, frozen=True):
    status: str
    peer: str
    markets: dict[str, MarketHealth]
    key: str | None = None


class DoubtFill(Struct, frozen=True):
    """Part of another peer's order that it was asked to execute."""

    order_id: str
    price: str
    quantity: str


class DoubtRecord(Struct, frozen=True):
    """A confirmation whose maker has not answered: whether it has executed is not known.

    Attributes:
        order_id: The peer's own order.
        maker: The other peer; ``key`` is its public key, or None if it did not sign.
        asked: How often it has been, and did not answer in time.
    """

    match_id: str
    market: str
    order_id: str
    side: str
    quantity: str
    maker: str
    destination: str
    asked: int
    fills: list[DoubtFill]
    key: str | None = None


class ProofRecord(Struct, frozen=True):
    """What both peers of a match have signed; ``orderbook.signing.proofs`` checks it."""

    match_id: str
    request: dict[str, Any]
    answer: dict[str, Any]


class StateRecord(Struct, frozen=True):
    """What a market takes at one peer: ``"open"``, ``"cancel_only"`` or ``"halted"``."""

    market: str
    state: str


class DoubtList(Struct, frozen=True):
    doubts: list[DoubtRecord]


class Cancelled(Struct, frozen=True):
    order: OrderRecord


class PeerList(Struct, frozen=True):
    peers: list[PeerRecord]


class ReservationList(Struct, frozen=True):
    reservations: list[ReservationRecord]


class ErrorRecord(Struct, frozen=True, omit_defaults=True):
    code: str
    message: str
    field: str | None = None


class ErrorAnswer(Struct, frozen=True):
    error: ErrorRecord


class FeedLine(Struct, frozen=True, omit_defaults=True):
    """One line; ``feed`` tells what it says."""

    type: Literal["snapshot", "delta"]
    sequence: int
    bids: list[tuple[str, str, int]]
    asks: list[tuple[str, str, int]]
    checksum: int
    previous: int | None = None

"""What a peer must not forget: the facts of one market, as its journal keeps them.

Replayed in order they rebuild the orders, trades and unanswered confirmations (``recovery``). What a restart
may forget is no event: reservations for others and self-reservations end with the process that made them.
Prices are in ticks, quantities in lots.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from .errors import JournalError
from .model import Order, Side
from .terms import GTC, IOC, Terms
from .trade import Trade


class Accepted(Struct, tag="accepted", frozen=True, omit_defaults=True):
    """An order was taken from a client. ``terms`` None: a plain one; ``partner``: the other one of its pair.

    Journals from before ``terms`` was kept tell by ``rests`` that an order is immediate or cancel.
    """

    order_id: str
    owner: str
    side: str
    price: int
    quantity: int
    time_ms: int
    client_order_id: str | None = None
    rests: bool = True
    terms: Terms | None = None
    partner: str | None = None


class Amended(Struct, tag="amended", frozen=True):
    """An order has another price or quantity now. It has lost its place in the queue, unless the price is the
    same and the quantity no larger."""

    order_id: str
    price: int
    quantity: int


class Triggered(Struct, tag="triggered", frozen=True):
    """A stop order has come alive."""

    order_id: str


class Cancelled(Struct, tag="cancelled", frozen=True, omit_defaults=True):
    """All of an order that neither is nor becomes filled is taken back; or only ``quantity`` lots of it.

    ``reason`` is one of :class:`~orderbook.engine.codes.Reason`; None in journals from before it was kept.
    """

    order_id: str
    reason: str | None = None
    quantity: int | None = None


class Executed(Struct, tag="executed", frozen=True):
    """A trade was executed; for the taker of a cross-peer match it also answers an :class:`Intended`."""

    match_id: str
    price: int
    quantity: int
    maker_order_id: str
    taker_order_id: str
    maker_peer: str
    taker_peer: str
    time_ms: int
    side: str | None = None


class Intended(Struct, tag="intended", frozen=True):
    """A confirmation is about to be sent: from now on only the maker's answer decides over ``fills``.

    ``fills`` are (order id, price, quantity); ``key`` is the maker's, or None if it does not sign.
    """

    match_id: str
    order_id: str
    maker: str
    destination: str
    lock_id: str
    fills: tuple[tuple[str, int, int], ...]
    key: str | None = None


class Refused(Struct, tag="refused", frozen=True):
    """The maker has refused a confirmation; its quantity is the order's again."""

    match_id: str


class Resolved(Struct, tag="resolved", frozen=True):
    """An operator has settled a doubt: the maker has not said what follows, executed or refused.

    ``outcome`` is ``"committed"`` or ``"refused"``, ``by`` who has decided.
    """

    match_id: str
    outcome: str
    by: str
    time_ms: int


class Switched(Struct, tag="switched", frozen=True):
    """An operator has opened, restricted or halted the market at this peer.

    ``state`` is the value of a :class:`~orderbook.engine.rules.MarketState`, ``by`` who has decided.
    """

    state: str
    by: str
    time_ms: int


class Signed(Struct, tag="signed", frozen=True):
    """What both peers of an executed match have signed, as it travelled: see ``proofs``."""

    match_id: str
    request: dict[str, Any]
    answer: dict[str, Any]


Event = (
    Accepted | Amended | Triggered | Cancelled | Executed | Intended | Refused | Resolved | Switched | Signed
)


def accepted_event(order: Order) -> Accepted:
    return Accepted(
        order_id=order.id,
        owner=order.owner,
        side=order.side.text,
        price=order.price,
        quantity=order.quantity,
        time_ms=order.time_ms,
        client_order_id=order.client_order_id,
        terms=None if order.terms is GTC else order.terms,
        partner=order.partner,
    )


def order_of(event: Accepted) -> Order:
    """The order that was accepted, as it was then."""
    terms = event.terms or (GTC if event.rests else IOC)
    order = Order(
        id=event.order_id,
        owner=event.owner,
        side=Side(event.side),
        price=event.price,
        quantity=event.quantity,
        terms=terms,
        time_ms=event.time_ms,
        client_order_id=event.client_order_id,
    )
    order.partner = event.partner
    return order


def trade_event(trade: Trade) -> Executed:
    return Executed(
        match_id=trade.match_id,
        price=trade.price,
        quantity=trade.quantity,
        maker_order_id=trade.maker_order_id,
        taker_order_id=trade.taker_order_id,
        maker_peer=trade.maker_peer,
        taker_peer=trade.taker_peer,
        time_ms=trade.time_ms,
        side=None if trade.side is None else trade.side.text,
    )


def trade_of(event: Executed, market: str) -> Trade:
    """The trade that ``event`` records, of the journal's ``market``."""
    return Trade(
        match_id=event.match_id,
        market=market,
        price=event.price,
        quantity=event.quantity,
        maker_order_id=event.maker_order_id,
        taker_order_id=event.taker_order_id,
        maker_peer=event.maker_peer,
        taker_peer=event.taker_peer,
        time_ms=event.time_ms,
        side=None if event.side is None else Side(event.side),
    )


def to_plain(event: Event) -> Any:
    """``event`` as a plain dict for JSON; ``type`` names its kind."""
    return msgspec.to_builtins(event)


def unpack(data: bytes) -> Event:
    """The event of :data:`pack`. Raises JournalError for what is none."""
    try:
        event: Event = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise JournalError(f"no event: {error}") from error
    return event


def parts(data: bytes) -> list[bytes]:
    """Of :data:`pack` of several events, what it is of each. Raises JournalError for what is no array."""
    try:
        return [bytes(each) for each in _splitter.decode(data)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise JournalError(f"no events: {error}") from error


pack = msgspec.msgpack.Encoder().encode
"""An event as msgpack, in the shape of :func:`to_plain`; or several as an array of that."""
_decoder = msgspec.msgpack.Decoder(Event)
_splitter = msgspec.msgpack.Decoder(list[msgspec.Raw])

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
from .terms import Terms


class Accepted(Struct, tag="accepted", frozen=True, omit_defaults=True, gc=False):
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


class Amended(Struct, tag="amended", frozen=True, gc=False):
    """An order has another price or quantity now. It has lost its place in the queue, unless the price is the
    same and the quantity no larger."""

    order_id: str
    price: int
    quantity: int


class Triggered(Struct, tag="triggered", frozen=True, gc=False):
    """A stop order has come alive."""

    order_id: str


class Requeued(Struct, tag="requeued", frozen=True, gc=False):
    """An iceberg shows its next tip, and has gone to the back of the queue. Older journals do not say so."""

    order_id: str


class Cancelled(Struct, tag="cancelled", frozen=True, omit_defaults=True, gc=False):
    """All of an order that neither is nor becomes filled is taken back; or only ``quantity`` lots of it.

    ``reason`` is one of :class:`~orderbook.engine.codes.Reason`; None in journals from before it was kept.
    """

    order_id: str
    reason: str | None = None
    quantity: int | None = None


class Executed(Struct, tag="executed", frozen=True, gc=False):
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


class Intended(Struct, tag="intended", frozen=True, gc=False):
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


class Refused(Struct, tag="refused", frozen=True, gc=False):
    """The maker has refused a confirmation; its quantity is the order's again."""

    match_id: str


class Resolved(Struct, tag="resolved", frozen=True, gc=False):
    """An operator has settled a doubt: the maker has not said what follows, executed or refused.

    ``outcome`` is ``"committed"`` or ``"refused"``, ``by`` who has decided.
    """

    match_id: str
    outcome: str
    by: str
    time_ms: int


class Switched(Struct, tag="switched", frozen=True, gc=False):
    """An operator has opened, restricted or halted the market at this peer.

    ``state`` is the value of a :class:`~orderbook.engine.rules.MarketState`, ``by`` who has decided.
    """

    state: str
    by: str
    time_ms: int


class Signed(Struct, tag="signed", frozen=True, gc=False):
    """What both peers of an executed match have signed, as it travelled: see ``proofs``."""

    match_id: str
    request: dict[str, Any]
    answer: dict[str, Any]


Event = (
    Accepted
    | Amended
    | Triggered
    | Requeued
    | Cancelled
    | Executed
    | Intended
    | Refused
    | Resolved
    | Switched
    | Signed
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

"""What peers say to each other.

Every request payload is an envelope ``{"type", "from", "payload"}``; the classes below are its payloads and
their answers. Prices and quantities travel as decimal strings. Fields that we do not know are ignored, so
that later versions can add some. Nothing here does IO.

    request             payload                                      answer
    AnnounceOpenOrder   {order, round, instrument}                   Offer, NoOffer or null
    CrossPeerMatch      {match_id, lock_id, fills, side, order_id}   MatchAnswer
    ReleaseLock         {lock_id}                                    Released
    Heartbeat           {sequence, best_bid, best_ask, …}            Heartbeat
    Goodbye             {}                                           null
    OpenSession         {version, ephemeral}                         SessionOpened

Answers name who gives them in ``from``, so that a destination that has changed hands is noticed. How all of
it is signed is told in ``seals``. No message holds a fraction, which JSON writes in more than one way.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from . import limits
from .model import Side

Name = Annotated[str, Meta(min_length=1, max_length=limits.NAME_LENGTH)]
LockId = Annotated[str, Meta(min_length=1, max_length=2 * limits.NAME_LENGTH)]
Decimal = Annotated[str, Meta(min_length=1, max_length=limits.DECIMAL_LENGTH)]
Digest = Annotated[str, Meta(max_length=limits.NAME_LENGTH)]
PublicKey = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0, le=limits.WHOLE_NUMBER)]


class Envelope(Struct):
    """How every request travels; ``payload`` is validated by what ``type`` says."""

    type: Name
    sender: Name = field(name="from")
    payload: Any


class OpenOrder(Struct):
    """An order as other peers see it: what is left of it, and nothing of its owner."""

    id: Name
    market: Name
    side: Side
    price: Decimal
    quantity: Decimal


class AnnounceOpenOrder(Struct):
    """ "Who can match this?" ``round`` tells a repeated announcement from a repeated message."""

    order: OpenOrder
    round: Count = 0
    instrument: Digest | None = None


class OfferedFill(Struct):
    """Part of a maker's resting order; in an offer and, as taken up, in a confirmation."""

    order_id: Name
    price: Decimal
    quantity: Decimal


Fills = Annotated[list[OfferedFill], Meta(min_length=1, max_length=limits.OFFER_FILLS)]


class Offer(Struct, omit_defaults=True):
    """What a maker has set aside for the announcer, for ``lease`` milliseconds from when it answered.

    ``key`` is there when the offer is signed: a confirmation is for the holder of that key and nobody else.
    """

    lock_id: LockId
    fills: Fills
    quantity: Decimal
    fully_matched: bool
    lease: Annotated[int, Meta(gt=0, le=limits.WHOLE_NUMBER)]
    contended: bool = False
    sender: Name | None = field(name="from", default=None)
    key: Name | None = None


class NoOffer(Struct, omit_defaults=True):
    """Nothing open; ``contended`` when reserved quantity would match."""

    contended: bool = False
    sender: Name | None = field(name="from", default=None)


class CrossPeerMatch(Struct):
    """ "Execute these of what you reserved." Asked again until answered; the answer never changes.

    ``side`` and ``order_id`` are those of the asker's order, so that both sides sign who buys, and with which
    order. Who does not sign may leave them out.
    """

    match_id: Name
    lock_id: LockId
    fills: Fills
    side: Side | None = None
    order_id: Name | None = None


class TradeRecord(Struct):
    """A trade as both sides keep it.

    ``side`` is what the taker did; ``time`` is in milliseconds of the epoch.
    """

    match_id: Name
    market: Name
    price: Decimal
    quantity: Decimal
    maker_order_id: Name
    taker_order_id: Name
    maker_peer: Name
    taker_peer: Name
    time: Count
    side: Literal["buy", "sell"] | None = None


class MatchAnswer(Struct, omit_defaults=True):
    """``committed`` with the trades, or ``rejected`` with the reason."""

    status: Literal["committed", "rejected"]
    trades: list[TradeRecord] = []
    reason: Annotated[str, Meta(max_length=200)] = ""
    sender: Name | None = field(name="from", default=None)


class ReleaseLock(Struct):
    """ "I do not need what you reserved." """

    lock_id: LockId


class Released(Struct):
    """Whether there was such a lock."""

    released: bool


class Heartbeat(Struct):
    """ "I am here, and these are my best open prices." ``sequence`` grows with every one sent.

    ``websocket``: requests are taken over a WebSocket on the same port as well, see ``lines``.
    ``session``: the newest version of sessions that are opened there, see ``signing.handshake``; 0: none.
    ``bid_since`` and ``ask_since`` say, where the first order at that price is a post-only one, when it was
    accepted, in milliseconds since the epoch: of two that cross the younger yields.
    """

    sequence: Count
    best_bid: Decimal | None = None
    best_ask: Decimal | None = None
    instrument: Digest | None = None
    sender: Name | None = field(name="from", default=None)
    websocket: bool = False
    bid_since: Count | None = None
    ask_since: Count | None = None
    session: Count = 0


class Goodbye(Struct):
    """ "I leave." What was reserved for the sender is free again."""


class OpenSession(Struct):
    """ "Let us agree on keys for this connection." It and its answer are always signed.

    ``ephemeral`` is the sender's X25519 public key for this session only.
    """

    version: Count
    ephemeral: PublicKey


class SessionOpened(Struct):
    """The other half of the agreement."""

    version: Count
    ephemeral: PublicKey
    sender: Name = field(name="from")

"""The maker's part of the protocol: reserve resting orders for others, execute or free them. No IO.

The maker alone decides whether a match happens. Its answer for a match id never changes: what was committed
is kept with the trades, and a refusal means that the lock is gone, or goes with the refusal, and no lock ever
comes back under its id. Where it has forgotten (without a journal a peer keeps only its newest trades) it
says that it does not know, which is no answer: the taker stays in doubt. Nor does it know of locks that were
made with another journal than its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from . import limits
from .book import Fill, Reservation
from .effects import Effect
from .errors import OrderBookError, ProtocolError
from .market import Market
from .messages import (
    AnnounceOpenOrder,
    CrossPeerMatch,
    MatchAnswer,
    NoOffer,
    Offer,
    OfferedFill,
    Released,
    ReleaseLock,
)
from .starts import is_kept
from .trade import Trade

Reply = tuple[Struct | None, list[Effect]]
"""The answer to a request, and what else is to be done."""

AnnouncementKey = tuple[str, str, int]
"""(sender, order id, round): a message that comes twice is one announcement."""
LOCK_MARK: Final = "@"
"""In a lock id: what follows is how many trades there were when the lock was made."""


class Standing:
    """What we know of a counterparty.

    Attributes:
        locks: The reservations that it holds, by lock id, each with the announcement that it answers.
        wasted: Leases that it let run out since it last confirmed something.
        last_wasted: When it last did, on our monotonic clock.
    """

    __slots__ = ("last_wasted", "locks", "wasted")

    def __init__(self) -> None:
        self.locks: dict[str, AnnouncementKey] = {}
        self.wasted = 0
        self.last_wasted = 0.0


class Maker:
    """Answers the other peers' announcements, confirmations and releases."""

    def __init__(self, market: Market):
        self._market = market
        self._book = market.book
        self._lock_of: dict[AnnouncementKey, str] = {}
        self._standings: dict[str, Standing] = {}

    def announce(self, sender: str, message: AnnounceOpenOrder) -> Reply:
        """Step 3: reserve what is open for an announced order and offer it. Raises OrderBookError."""
        announced, market, instrument = message.order, self._market, self._market.instrument
        if announced.market != instrument.market:
            raise ProtocolError(f"order.market must be {instrument.market} here")
        market.check_instrument(message.instrument)
        side = announced.side
        price = instrument.price(announced.price, "order.price")
        quantity = instrument.quantity(announced.quantity, "order.quantity")

        now = market.clock.monotonic()
        effects = self.expire(now) + market.expire_orders()
        key = (sender, announced.id, message.round)
        lock_id = self._lock_of.get(key)
        reservation = None if lock_id is None else self._book.reservations.get(lock_id)
        contended = False
        if reservation is None:
            fills, contended = self._book.crossing(side, price, quantity, most=limits.OFFER_FILLS)
            lease_s = self._lease_s(sender, now) if fills else 0.0
            if not lease_s:
                contended = contended or bool(fills)
                if not fills:
                    market.count("offer", "contended" if contended else "nothing")
                return NoOffer(True, market.peer) if contended else None, effects
            reservation = self._lock(key, fills, now + lease_s)
        offer = Offer(
            lock_id=reservation.id,
            fills=[
                OfferedFill(order.id, instrument.price_text(order.price), instrument.quantity_text(part))
                for order, part in reservation.fills
            ],
            quantity=instrument.quantity_text(reservation.quantity),
            fully_matched=reservation.quantity == quantity,
            lease=max(1, int(1000 * (reservation.expires - now))),
            contended=contended,
            sender=market.peer,
        )
        return offer, effects

    def match(self, sender: str, message: CrossPeerMatch, key: str | None) -> Reply:
        """Step 5: execute what was reserved, or refuse. Raises OrderBookError for what is no confirmation.

        ``key`` has signed it (None: nobody has). What was executed is told to no other one: the name may have
        changed hands, and our signed answer to its new holder would prove a trade that this one never made.
        """
        known = self._market.ledger.trades_of_match(sender, message.match_id)
        reservation = self._held_by(sender, message.lock_id)
        if not known and reservation is None:
            # A lock commits once, and is gone then: only without it the match may be one of long ago.
            known = self._market.ledger.archived_match(sender, message.match_id)
        if known:
            kept = self._market.ledger.taker_key(sender, message.match_id)
            if key != kept:
                raise ProtocolError(f"key must be {kept or 'none'}, which has confirmed this match before")
            if message.side is not None and known[0].side not in (None, message.side):
                raise ProtocolError("side must be what it was")
            if message.order_id not in (None, known[0].taker_order_id):
                raise ProtocolError("order_id must be what it was")
            self._market.count("confirmation", "repeated")
            return self._committed(known), []
        if reservation is None and self._may_be_forgotten(message.lock_id):
            self._market.count("confirmation", "forgotten")
            raise ProtocolError(
                "lock_id is older than the trades that this peer (it keeps no journal) can tell of"
            )
        if reservation is None and self._is_of_another_journal(message.lock_id):
            self._market.count("confirmation", "other_journal")
            raise ProtocolError(
                "lock_id was made with a journal that this peer does not have: another process has its name, "
                "or its journal was replaced"
            )
        effects = self.expire(self._market.clock.monotonic())
        reservation = self._held_by(sender, message.lock_id)
        if reservation is None:
            return self._rejected("lock_gone", "released, run out, or from before a restart"), effects
        try:
            quantities = self._quantities(reservation, message)
        except OrderBookError as error:
            return self._rejected("not_reserved", str(error)), effects + self._end(reservation, "refused")
        executed = self._book.commit(reservation, quantities)
        market, caused = self._market, self._book.events
        time_ms = market.clock.time_ms()
        trades = [
            market.trade(
                message.match_id, order, quantity, reservation.purpose, taker_peer=sender, time_ms=time_ms
            )
            for order, quantity in executed
        ]
        effects += market.traded(trades, key) + market.happened(caused)
        self._standings[sender].wasted = 0
        market.count("confirmation", "committed")
        effects += self._ended(reservation, "committed")
        return self._committed(trades), effects

    def release(self, sender: str, message: ReleaseLock) -> Reply:
        """Free what the sender does not need."""
        reservation = self._held_by(sender, message.lock_id)
        effects = [] if reservation is None else self._end(reservation, "released")
        return Released(reservation is not None), effects

    def expire(self, now: float) -> list[Effect]:
        """Free every reservation whose lease has run out."""
        effects: list[Effect] = []
        for reservation in self._book.expired(now):
            if reservation.counterparty == self._market.peer:
                effects += self._market.free(reservation)  # our own book's offer to ourselves
                continue
            standing = self._standings[reservation.counterparty]
            standing.wasted += 1
            standing.last_wasted = now
            effects += self._end(reservation, "expired")
        return effects

    def forget(self, counterparty: str) -> list[Effect]:
        """``counterparty`` has gone: free what was reserved for it."""
        standing = self._standings.get(counterparty)
        locks = sorted(standing.locks) if standing is not None else []
        held = [self._book.reservations[lock_id] for lock_id in locks]
        return [effect for reservation in held for effect in self._end(reservation, "left")]

    # -- locks -------------------------------------------------------------------------------------------

    def _held_by(self, counterparty: str, lock_id: str) -> Reservation | None:
        reservation = self._book.reservations.get(lock_id)
        return reservation if reservation and reservation.counterparty == counterparty else None

    def _lease_s(self, counterparty: str, now: float) -> float:
        """For how long ``counterparty`` may reserve now; 0: not at all.

        Who lets leases run out gets shorter ones, and then none for a while.
        """
        standing = self._standings.get(counterparty)
        if standing is None:
            if len(self._standings) >= limits.COUNTERPARTIES:
                self._drop_standings(now)
            room = len(self._standings) < limits.COUNTERPARTIES
            if not room or len(self._book.reservations) >= limits.RESERVATIONS:
                return self._no_lease("full")
            return limits.LEASE_S
        if standing.wasted and now - standing.last_wasted >= limits.COOL_OFF_S:
            standing.wasted = 0
        if len(self._book.reservations) >= limits.RESERVATIONS:
            return self._no_lease("full")
        if len(standing.locks) >= limits.RESERVATIONS_PER_COUNTERPARTY:
            return self._no_lease("quota")
        if not standing.wasted:
            return limits.LEASE_S
        if standing.wasted >= limits.LEASES_WASTED:
            return self._no_lease("cool_off")
        return float(max(limits.LEASE_S / 2 ** (standing.wasted // 2), limits.LEASE_LEAST_S))

    def _no_lease(self, reason: str) -> float:
        self._market.count("offer", reason)
        return 0.0

    def _drop_standings(self, now: float) -> None:
        """Forget those who hold nothing and whose cool-off is over."""
        for name, standing in list(self._standings.items()):
            if not standing.locks and now - standing.last_wasted >= limits.COOL_OFF_S:
                del self._standings[name]

    def _lock(self, key: AnnouncementKey, fills: Sequence[Fill], expires: float) -> Reservation:
        counterparty, order_id, _ = key
        self._market.count("offer", "offered")
        lock_id = self._new_lock_id()
        reservation = self._book.reserve(lock_id, counterparty, order_id, fills, expires)
        self._lock_of[key] = lock_id
        standing = self._standings.get(counterparty)
        if standing is None:
            standing = self._standings[counterparty] = Standing()
        standing.locks[lock_id] = key
        return reservation

    def _new_lock_id(self) -> str:
        starts = self._market.starts
        if starts is not None:
            return starts.new_lock_id()
        return f"{self._market.new_id()}{LOCK_MARK}{self._market.ledger.trade_count}"

    def _is_of_another_journal(self, lock_id: str) -> bool:
        """Whether a lock that is gone may have led to trades that another journal than ours keeps."""
        starts = self._market.starts
        return is_kept(lock_id) and (starts is None or not starts.has(lock_id))

    def _may_be_forgotten(self, lock_id: str) -> bool:
        """Whether a lock that is gone may have led to trades that can't be told of any more.

        Its trades came after it was made; so it did not where all trades since then are remembered.
        """
        _, mark, trades_before = lock_id.rpartition(LOCK_MARK)
        known = mark and trades_before.isdecimal() and len(trades_before) < 20
        return bool(known) and int(trades_before) < self._market.ledger.forgotten

    def _end(self, reservation: Reservation, how: str) -> list[Effect]:
        self._book.release(reservation)
        effects = self._market.happened(self._book.events)
        return effects + self._ended(reservation, how)

    def _ended(self, reservation: Reservation, how: str) -> list[Effect]:
        """Forget a lock; what it freed may cross what has come meanwhile."""
        self._market.count("lock", how)
        standing = self._standings[reservation.counterparty]
        del self._lock_of[standing.locks.pop(reservation.id)]
        if not standing.locks and not standing.wasted:
            del self._standings[reservation.counterparty]
        return self._market.rematch([order for order, _ in reservation.fills])

    # -- confirmations -----------------------------------------------------------------------------------

    def _quantities(self, reservation: Reservation, message: CrossPeerMatch) -> dict[str, int]:
        """Lots to execute by order id. Raises OrderBookError when they are not within the reservation."""
        instrument = self._market.instrument
        reserved = {fill.order.id: fill for fill in reservation.fills}
        quantities: dict[str, int] = {}
        for fill in message.fills:
            held = reserved.get(fill.order_id)
            quantity = instrument.quantity(fill.quantity, "fills.quantity")
            if held is None or fill.order_id in quantities or quantity > held.quantity:
                raise ProtocolError("fills must be within what was reserved")
            if message.side is not None and held.order.side is message.side:
                raise ProtocolError(f"side must be {held.order.side.opposite.value}, as was announced")
            if message.order_id not in (None, reservation.purpose):
                raise ProtocolError("order_id must be that of the order that was announced")
            if instrument.price(fill.price, "fills.price") != held.order.price:
                raise ProtocolError("fills.price must be the price that was offered")
            quantities[fill.order_id] = quantity
        return quantities

    def _committed(self, trades: Sequence[Trade]) -> MatchAnswer:
        records = [self._market.record(trade) for trade in trades]
        return MatchAnswer("committed", records, sender=self._market.peer)

    def _rejected(self, code: str, reason: str) -> MatchAnswer:
        self._market.count("confirmation", code)
        return MatchAnswer("rejected", reason=f"{code}: {reason}"[:200], sender=self._market.peer)

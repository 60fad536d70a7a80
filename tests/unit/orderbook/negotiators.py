"""Negotiators with a clock set by hand, and every answer under a test's control."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any, TypeVar

from orderbook.effects import Announce, Beat, Confirm, Effect, Settled, Tell
from orderbook.entry import NewOrder
from orderbook.envelopes import plain
from orderbook.market import Market
from orderbook.model import Instrument, Order
from orderbook.negotiation import Negotiator
from orderbook.terms import Routing

INSTRUMENT = Instrument("SIM", tick="1", lot="1")
Kind = TypeVar("Kind", bound=Effect)


class Clock:
    now = 100.0
    ahead_ms = 0

    def monotonic(self) -> float:
        return self.now

    def time_ms(self) -> int:
        return int(self.now * 1000) + self.ahead_ms


def only(effects: list[Effect], kind: type[Kind]) -> Kind:
    (effect,) = [effect for effect in effects if isinstance(effect, kind)]
    return effect


def settled(effects: list[Effect]) -> list[str]:
    """The ids of the orders whose way is over."""
    return [effect.order_id for effect in effects if isinstance(effect, Settled)]


def kinds(effects: list[Effect]) -> list[type[Effect]]:
    return [type(effect) for effect in effects]


class Peer:
    """A negotiator that knows the peers ``named`` at destinations of the same names."""

    def __init__(self, name: str, clock: Clock, *named: str, routing: Routing = Routing.LOCAL_FIRST):
        ids = itertools.count()
        market = Market(
            name,
            INSTRUMENT,
            clock=clock,
            new_id=lambda: f"{name}-{next(ids)}",
            random=Random(1),
            routing=routing,
        )
        self.negotiator = Negotiator(market)
        market.roster.discovered(named, clock.now)
        for other in named:
            market.roster.heard(other, other, clock.now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.negotiator, name)

    def place(
        self, side: str, price: int | None, quantity: int, owner: str = "ann", **more: object
    ) -> tuple[Order, list[Effect]]:
        limit = None if price is None else str(price)
        result = self.submit(NewOrder(side, limit, str(quantity), owner)._replace(**more))
        self.check()
        return result

    def answer(self, effect: Announce | Confirm | Tell | Beat) -> Any:
        """The answer to another's request; a step that breaks an invariant fails the test."""
        return self.told(effect.payload)

    def told(self, payload: Any) -> Any:
        """The answer to a request, as it travels."""
        answer = plain(self.handle(payload).content)
        self.check()
        return answer

    def forget_locks(self) -> None:
        """Free all that is reserved for others, as when their leases have run out."""
        for reservation in list(self.market.book.reservations.values()):
            self._maker.forget(reservation.counterparty)

    def envelope(self, kind: str, sender: str, **payload: Any) -> Any:
        return {"type": kind, "from": sender, "payload": payload}


def offered(taker: Peer, maker: Peer, side: str, price: int, quantity: int) -> tuple[Order, Announce, Any]:
    """``taker`` announces an order and ``maker`` answers; the answer has not arrived yet."""
    order, effects = taker.place(side, price, quantity)
    announce = only(effects, Announce)
    return order, announce, maker.answer(announce)


def confirmed(taker: Peer, announce: Announce, offer: Any) -> Confirm:
    effects = taker.offer_answered(announce.order_id, announce.round, announce.destination, offer)
    taker.check()
    return only(effects, Confirm)

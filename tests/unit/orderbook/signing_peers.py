"""Peers with keys that talk to each other through their channels, on a clock set by hand."""

from __future__ import annotations

import itertools
import json
from random import Random
from typing import Any, TypeVar

from orderbook.effects import Announce, Confirm, Effect
from orderbook.entry import NewOrder
from orderbook.envelopes import encode
from orderbook.event_forms import trade_of
from orderbook.events import Event, Executed, Signed
from orderbook.market import Market
from orderbook.model import Instrument, Order
from orderbook.negotiation import Negotiator
from orderbook.recovery import Recovered
from orderbook.signing import proofs
from orderbook.signing.channel import Channel
from orderbook.signing.gate import Gate
from orderbook.signing.identity import Identity
from orderbook.signing.proofs import Proof
from orderbook.signing.seals import Sealed
from orderbook.trade import Trade

INSTRUMENT = Instrument("SIM", tick="1", lot="1")
START_MS = 1_700_000_000_000
Kind = TypeVar("Kind", bound=Effect)


class Clock:
    """Seconds since the start, for all peers."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time_ms(self) -> int:
        return START_MS + int(1000 * self.now)


def only(effects: list[Effect], kind: type[Kind]) -> Kind:
    (effect,) = [effect for effect in effects if isinstance(effect, kind)]
    return effect


def travelled(message: Any) -> Any:
    """As it comes out at the other end of a connection."""
    return json.loads(encode(message))


class SigningPeer:
    """A market, its negotiator and channel; it knows the peers ``named`` at destinations of these names."""

    nonces = itertools.count()

    def __init__(self, name: str, clock: Clock, *named: str, key: str = "", unsigned: bool = False):
        ids = itertools.count()
        self.name = name
        self.signer = Identity.from_seed((key or name).encode().ljust(32))
        self.market = Market(
            name, INSTRUMENT, clock=clock, new_id=lambda: f"{name}-{next(ids)}", random=Random(1)
        )
        self.negotiator = Negotiator(self.market)
        gate = Gate(
            name,
            "SIM",
            self.signer,
            clock=clock,
            new_nonce=lambda: f"nonce-{next(self.nonces)}",
            unsigned=unsigned,
        )
        self.channel = Channel(self.negotiator, gate)
        self.journal: list[Event] = []
        self.market.roster.discovered(named, clock.now)
        for other in named:
            self.market.roster.heard(other, other, clock.now)

    def place(self, side: str, price: int, quantity: int) -> tuple[Order, list[Effect]]:
        return self.negotiator.submit(NewOrder(side, str(price), str(quantity), "ann"))

    def answer(self, message: Any) -> Any:
        """The answer to another's request, as it travels."""
        answer = self.channel.handle(travelled(message))
        self.negotiator.check()
        return travelled(answer.content)

    def told(self, effect: Any, request: Sealed, answer: Any) -> list[Effect]:
        """What the answer to our request makes us do."""
        effects = self.channel.answered(effect, request, answer)
        self.negotiator.check()
        return effects

    def signed(self) -> list[Signed]:
        """What the journal has of proofs."""
        self.journal += self.market.take_events()
        return [event for event in self.journal if isinstance(event, Signed)]

    def restarted(self, clock: Clock, *named: str) -> SigningPeer:
        """A new process with the same key and journal."""
        self.signed()
        peer = SigningPeer(self.name, clock, *named)
        peer.market.ledger.archive_in(Kept(self.journal))
        peer.negotiator.resume(Recovered(self.name, "SIM").apply(self.journal))
        return peer


class Kept:
    """What a journal has kept, to be looked up."""

    def __init__(self, journal: list[Event]):
        self._journal = journal

    def trades_of_match(self, match_id: str) -> list[Trade]:
        executed = (event for event in self._journal if isinstance(event, Executed))
        return [trade_of(event, "SIM") for event in executed if event.match_id == match_id]

    def proofs(self, match_id: str) -> list[Signed]:
        signed = (event for event in self._journal if isinstance(event, Signed))
        return [event for event in signed if event.match_id == match_id]


def confirmation(taker: SigningPeer, maker: SigningPeer, quantity: int = 4) -> tuple[Confirm, Sealed]:
    """``maker`` sells, ``taker`` buys and has chosen: the confirmation that is about to be sent."""
    maker.place("sell", 100, 10)
    _, effects = taker.place("buy", 105, quantity)
    announce = only(effects, Announce)
    request = taker.channel.seal(announce)
    confirm = only(taker.told(announce, request, maker.answer(request.message)), Confirm)
    return confirm, taker.channel.seal(confirm)


def proven(peer: SigningPeer) -> proofs.Proven:
    """What the only proof in ``peer``'s journal proves."""
    (signed,) = peer.signed()
    return proofs.check(Proof(travelled(signed.request), travelled(signed.answer)))

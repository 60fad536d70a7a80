"""The taker's part of the protocol: an order's way through the network. No IO.

    hold ─▶ announce ─▶ offers ─▶ choose ─▶ confirm ─▶ answers ─┬─▶ settle: the rest opens, and may rest
              ▲                                                 │
              └───────── some was refused, and is left ─────────┘

A confirmation without an answer is *in-doubt*: its quantity stays reserved, and the maker, who alone decides,
is asked again until it has answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import limits
from .effects import Announce, Confirm, Effect, Settled, Tell
from .errors import OrderBookError, ProtocolError
from .events import Intended, Refused
from .market import Market
from .messages import (
    AnnounceOpenOrder,
    CrossPeerMatch,
    MatchAnswer,
    Offer,
    OfferedFill,
    OpenOrder,
    ReleaseLock,
    envelope,
    parse,
)
from .model import Order, Side, Trade
from .roster import Peer
from .selection import EAGER_POLICIES, Choice, OfferFill, PeerOffer, choose


class Negotiation:
    """One order on its way through the network.

    Attributes:
        order: It rests in the book, with ``held`` lots self-reserved.
        held: Self-reserved lots that are neither being confirmed nor in-doubt.
        round: Counts its announcements.
        awaited: Destinations whose offer is still out.
        offers: In order of arrival.
        confirming: Match ids whose answer this round waits for.
        contended: There may be more: reserved quantity was named, or a peer could not be asked.
        refused: Some of what this round confirmed was refused.
    """

    __slots__ = ("awaited", "confirming", "contended", "held", "offers", "order", "refused", "round")

    def __init__(self, order: Order, held: int):
        self.order = order
        self.held = held
        self.round = 0
        self.awaited: set[str] = set()
        self.offers: list[PeerOffer] = []
        self.confirming: set[str] = set()
        self.contended = False
        self.refused = False


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
        self.quantity = sum(fill.quantity for fill in fills)
        self.silences = 0

    def intent(self, match_id: str) -> Intended:
        """The event to be journaled before this is sent."""
        return Intended(
            match_id=match_id,
            order_id=self.order.id,
            maker=self.maker,
            destination=self.destination,
            lock_id=self.lock_id,
            fills=self.fills,
            key=self.key,
        )


class Taker:
    """Finds counterparties for our own orders."""

    def __init__(self, market: Market):
        self._market = market
        self._book = market.book
        self.negotiations: dict[str, Negotiation] = {}
        """Orders under way, by order id."""
        self.confirmations: dict[str, Confirmation] = {}
        """What makers have not answered yet, by match id."""
        self._retries: dict[str, int] = {}
        self._retry_waiting: set[str] = set()

    # -- announcing --------------------------------------------------------------------------------------

    def announce(self, order: Order) -> list[Effect]:
        """Step 2: hold what is open of ``order`` and ask all peers; nothing where there is nobody to ask."""
        peers = self._market.roster.trading()
        if not order.open or not peers or order.id in self.negotiations:
            return []
        if len(self.negotiations) >= limits.NEGOTIATIONS:
            self.announce_later(order)
            return []
        negotiation = Negotiation(order, self._book.hold(order))
        self.negotiations[order.id] = negotiation
        return self._ask(negotiation, peers)

    def announce_later(self, order: Order) -> None:
        """Announce ``order`` after a jittered pause, so that of two that met only one comes first.

        The pauses double; after some tries it is left to the heartbeat to find what still crosses.
        """
        if order.id in self._retry_waiting:
            return
        tries = self._retries.get(order.id, 0)
        if not order.open or tries == limits.CONTENDED_RETRIES:
            self._retries.pop(order.id, None)
            return
        self._retries[order.id] = tries + 1
        self._retry_waiting.add(order.id)
        shortest, longest = limits.CONTENDED_RETRY_S
        pause = min(longest, shortest * 2**tries)
        self._market.agenda.later(
            self._market.random.uniform(0, 2 * pause), lambda: self._announce_again(order)
        )

    def _announce_again(self, order: Order) -> list[Effect]:
        self._retry_waiting.discard(order.id)
        return self.announce(order)

    def _ask(self, negotiation: Negotiation, peers: Sequence[Peer]) -> list[Effect]:
        order, instrument = negotiation.order, self._market.instrument
        negotiation.round += 1
        negotiation.offers = []
        negotiation.refused = negotiation.contended = False
        negotiation.awaited = {peer.destination for peer in peers}
        message = AnnounceOpenOrder(
            OpenOrder(
                id=order.id,
                market=instrument.market,
                side=order.side.value,
                price=instrument.price_text(order.price),
                quantity=instrument.quantity_text(negotiation.held),
            ),
            negotiation.round,
            instrument.fingerprint,
        )
        payload = envelope(self._market.peer, message)
        return [Announce(order.id, negotiation.round, peer.destination, payload) for peer in peers]

    # -- offers ------------------------------------------------------------------------------------------

    def offer_answered(self, order_id: str, round: int, destination: str, answer: object) -> list[Effect]:
        """A peer has answered. What is no valid offer counts as none; what comes too late is released."""
        negotiation = self._awaiting(order_id, round, destination)
        effects: list[Effect] = []
        named = answer if isinstance(answer, dict) else {}
        if "lock_id" in named:
            try:
                if negotiation is None:
                    raise ProtocolError("too late")
                self._take_offer(negotiation, destination, answer)
            except OrderBookError:
                effects += self._release(destination, named["lock_id"])
        elif negotiation is not None and named.get("contended") is True:
            negotiation.contended = True
        return effects if negotiation is None else effects + self._heard_from(negotiation, destination)

    def offer_failed(self, order_id: str, round: int, destination: str) -> list[Effect]:
        """A peer could not be asked or did not answer in time: it may hold a match that nobody named."""
        negotiation = self._awaiting(order_id, round, destination)
        if negotiation is None:
            return []
        negotiation.contended = True
        return self._heard_from(negotiation, destination)

    def _awaiting(self, order_id: str, round: int, destination: str) -> Negotiation | None:
        negotiation = self.negotiations.get(order_id)
        if negotiation is None or negotiation.round != round or destination not in negotiation.awaited:
            return None
        return negotiation

    def _take_offer(self, negotiation: Negotiation, destination: str, answer: object) -> None:
        """Note the offer in ``answer``. Raises OrderBookError when it is none, or not for this order."""
        offer = parse(answer, Offer)
        peer = self._market.roster.heard(destination, offer.sender, self._market.clock.monotonic())
        if peer is None or peer.name is None:
            raise ProtocolError(f"{destination} is not a peer of this market")
        order, instrument = negotiation.order, self._market.instrument
        fills: list[OfferFill] = []
        for fill in offer.fills:
            price = instrument.price(fill.price)
            if not order.side.crosses(order.price, price):
                raise ProtocolError(f"{peer.name} offers {fill.price}, outside the limit of {order.id}")
            fills.append(OfferFill(fill.order_id, price, instrument.quantity(fill.quantity)))
        if len({fill.order_id for fill in fills}) != len(fills):
            raise ProtocolError(f"{peer.name} offers one order twice")
        quantity = sum(fill.quantity for fill in fills)
        if quantity > negotiation.held:
            raise ProtocolError(f"{peer.name} offers more than was asked")
        negotiation.offers.append(
            PeerOffer(
                peer.name, destination, offer.lock_id, tuple(fills), quantity, offer.fully_matched, offer.key
            )
        )
        negotiation.contended |= offer.contended

    def _heard_from(self, negotiation: Negotiation, destination: str) -> list[Effect]:
        negotiation.awaited.discard(destination)
        if negotiation.awaited and not self._has_enough(negotiation):
            return []
        negotiation.awaited.clear()
        return self._choose(negotiation)

    def _has_enough(self, negotiation: Negotiation) -> bool:
        """Whether nothing better can be expected of those who have not answered.

        They would have to offer better prices than they last published. Only a policy for which the first is
        as good as any other need not wait for them.
        """
        market, side = self._market, negotiation.order.side
        if market.policy not in EAGER_POLICIES:
            return False
        choices = choose(negotiation.offers, side, negotiation.held, market.policy, market.random)
        if sum(choice.quantity for choice in choices) < negotiation.held:
            return False
        worst = [fill.price for choice in choices for fill in choice.fills]
        for destination in negotiation.awaited:
            peer = market.roster.at(destination)
            if peer is None:
                continue
            best = peer.best_ask if side is Side.BUY else peer.best_bid
            if best is not None and any(side.crosses(price, best) and price != best for price in worst):
                return False
        return True

    # -- choosing and confirming ---------------------------------------------------------------------------

    def _choose(self, negotiation: Negotiation) -> list[Effect]:
        """Step 4: confirm the best offers, release the others."""
        order, market = negotiation.order, self._market
        wanted = 0 if order.cancel_requested else negotiation.held
        choices = choose(negotiation.offers, order.side, wanted, market.policy, market.random)
        chosen = {(choice.offer.destination, choice.offer.lock_id) for choice in choices}
        effects: list[Effect] = []
        for choice in choices:
            effects.append(self._confirm(negotiation, choice))
        for offer in negotiation.offers:
            if (offer.destination, offer.lock_id) not in chosen:
                effects += self._release(offer.destination, offer.lock_id)
        return effects if choices else effects + self._settle(negotiation)

    def _confirm(self, negotiation: Negotiation, choice: Choice) -> Effect:
        offer, match_id = choice.offer, self._market.new_id()
        confirmation = Confirmation(
            negotiation.order, offer.peer, offer.destination, offer.lock_id, choice.fills, offer.key
        )
        negotiation.held -= confirmation.quantity
        negotiation.confirming.add(match_id)
        self.confirmations[match_id] = confirmation
        self._market.note(confirmation.intent(match_id))
        return self._ask_to_execute(match_id, confirmation)

    def _ask_to_execute(self, match_id: str, confirmation: Confirmation) -> Confirm:
        instrument = self._market.instrument
        fills = [
            OfferedFill(
                fill.order_id, instrument.price_text(fill.price), instrument.quantity_text(fill.quantity)
            )
            for fill in confirmation.fills
        ]
        order = confirmation.order
        message = CrossPeerMatch(match_id, confirmation.lock_id, fills, order.side.value, order.id)
        payload = envelope(self._market.peer, message)
        return Confirm(match_id, confirmation.maker, confirmation.destination, payload, confirmation.key)

    def _release(self, destination: str, lock_id: object) -> list[Effect]:
        try:
            message = parse({"lock_id": lock_id}, ReleaseLock)
        except ProtocolError:
            return []
        return [Tell(destination, envelope(self._market.peer, message))]

    def match_answered(self, match_id: str, answer: object) -> list[Effect]:
        """A maker has answered a confirmation, perhaps a repeated one. Only a valid answer ends its doubt."""
        confirmation = self.confirmations.get(match_id)
        if confirmation is None:
            return []  # answered before
        try:
            said = parse(answer, MatchAnswer)
            if said.sender not in (None, confirmation.maker):
                raise ProtocolError(f"from must be {confirmation.maker}: its address has changed hands")
        except ProtocolError:
            return self.match_failed(match_id)
        del self.confirmations[match_id]
        order = confirmation.order
        negotiation = self.negotiations.get(order.id)
        effects: list[Effect] = []
        if said.status == "committed":
            time_ms = said.trades[0].time if said.trades else self._market.clock.time_ms()
            for fill in confirmation.fills:
                self._book.fill_held(order, fill.quantity, fill.price)
            effects += self._market.traded(self._trades(match_id, confirmation, time_ms))
        elif negotiation is not None:
            self._market.note(Refused(match_id))
            negotiation.held += confirmation.quantity
            negotiation.refused |= match_id in negotiation.confirming
        else:
            self._market.note(Refused(match_id))
            self._book.release_held(order, confirmation.quantity)
            effects += self._market.rematch([order]) + self._market.cancel_rest(order)
            self.announce_later(order)
        return effects + self._answered(negotiation, match_id)

    def _trades(self, match_id: str, confirmation: Confirmation, time_ms: int) -> Sequence[Trade]:
        """A maker executes exactly what it was asked for, or nothing: so the fills are ours to know."""
        return [
            Trade(
                match_id=match_id,
                market=self._market.instrument.market,
                price=fill.price,
                quantity=fill.quantity,
                maker_order_id=fill.order_id,
                taker_order_id=confirmation.order.id,
                maker_peer=confirmation.maker,
                taker_peer=self._market.peer,
                time_ms=time_ms,
                side=confirmation.order.side,
            )
            for fill in confirmation.fills
        ]

    def match_failed(self, match_id: str) -> list[Effect]:
        """A confirmation has no answer: its quantity is in-doubt, and the maker is asked again in a while."""
        confirmation = self.confirmations.get(match_id)
        if confirmation is None:
            return []
        shortest, longest = limits.IN_DOUBT_RETRY_S
        pause = min(longest, shortest * 2 ** min(confirmation.silences, 16))
        confirmation.silences += 1
        self._market.agenda.later_about(pause, lambda: self._confirm_again(match_id))
        return self._answered(self.negotiations.get(confirmation.order.id), match_id)

    def _confirm_again(self, match_id: str) -> list[Effect]:
        confirmation = self.confirmations.get(match_id)
        if confirmation is None:
            return []
        maker = self._market.roster.named(confirmation.maker)
        if maker is not None:
            confirmation.destination = maker.destination
        return [self._ask_to_execute(match_id, confirmation)]

    def resume(self, match_id: str, confirmation: Confirmation) -> None:
        """After a restart: ask the maker again, soon."""
        self.confirmations[match_id] = confirmation
        confirmation.silences = 1
        self._market.agenda.later_about(limits.IN_DOUBT_RETRY_S[0], lambda: self._confirm_again(match_id))

    def _answered(self, negotiation: Negotiation | None, match_id: str) -> list[Effect]:
        """``match_id`` is answered or in-doubt; after the last of a round comes the next round, or the end.

        Where nothing was refused, all that was open has been offered and taken: only a refusal, whose
        quantity has to be found elsewhere, is a reason to ask again at once.
        """
        if negotiation is None or match_id not in negotiation.confirming:
            return []
        negotiation.confirming.discard(match_id)
        if negotiation.confirming:
            return []
        peers = self._market.roster.trading()
        again = negotiation.refused and negotiation.held and not negotiation.order.cancel_requested
        if again and peers and negotiation.round < limits.ROUNDS:
            return self._ask(negotiation, peers)
        negotiation.contended |= negotiation.refused
        return self._settle(negotiation)

    # -- the end -----------------------------------------------------------------------------------------

    def _settle(self, negotiation: Negotiation) -> list[Effect]:
        """Step 6: what is left opens and, matched with what came meanwhile, rests or is cancelled."""
        order = negotiation.order
        del self.negotiations[order.id]
        if negotiation.held:
            self._book.release_held(order, negotiation.held)
        effects = self._market.rematch([order]) + self._market.cancel_rest(order)
        if negotiation.contended:
            self.announce_later(order)
        else:
            self._retries.pop(order.id, None)
        return [*effects, Settled(order.id)]

    def forget(self, orders: Iterable[Order]) -> None:
        """These have closed; nothing about them is to be tried again."""
        for order in orders:
            self._retries.pop(order.id, None)

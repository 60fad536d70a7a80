"""The taker's part of the protocol: an order's way through the network. No IO.

    hold ─▶ announce ─▶ offers ─▶ choose ─▶ confirm ─▶ answers ─┬─▶ settle: the rest opens, and may rest
              ▲                                                 │
              └── some was refused, or there is more to have ───┘

Our own book competes with the other peers where orders are routed by best price, and for a fill-or-kill
order: it makes an offer like theirs, a reservation that is for ourselves.

A *fill-or-kill* order takes up offers only when they cover all of it, and confirms them one after the other,
since what one maker has executed no other one can undo:

- the first is refused: nothing has traded, the others are released, and all peers are asked again;
- one is in-doubt: the others are released, and the order waits for the answer; if that is a refusal, and
  nothing has traded, it is cancelled;
- a later one is refused: the order is *broken*. The rest of it is looked for at all peers, as if it were
  immediate-or-cancel, and what nobody has is cancelled with that reason.

With one maker, or one maker and our own book, which comes last and never refuses, it can't break.
"""

from __future__ import annotations

from typing import Final

from . import limits
from .confirmations import Confirmations
from .effects import Announce, Effect, Settled, Tell
from .envelopes import parse, request
from .errors import OrderBookError, ProtocolError
from .events import Refused
from .market import Market
from .messages import AnnounceOpenOrder, Offer, OpenOrder, ReleaseLock
from .model import BUY, Order
from .retries import Retries, pause_s
from .roster import Peer
from .selection import EAGER_POLICIES, Choice, OfferFill, PeerOffer, choose
from .terms import BEST_PRICE, FILL_OR_KILL
from .under_way import Confirmation, Negotiation

OURSELVES: Final = ""
"""The destination of what our own book offers."""


class Taker:
    """Finds counterparties for our own orders."""

    def __init__(self, market: Market):
        self._market = market
        self._book = market.book
        self.negotiations: dict[str, Negotiation] = {}
        """Orders under way, by order id."""
        self.waiting: dict[str, Negotiation] = {}
        """Fill-or-kill orders of which a part is in-doubt, by order id; the rest is held meanwhile."""
        self.confirmations = Confirmations(market)
        """What makers have not answered yet."""
        self.retries = Retries(market.agenda, market.random, self.announce)

    # -- announcing --------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether no further order can be sent on its way."""
        return len(self.negotiations) >= limits.NEGOTIATIONS

    def announce(self, order: Order) -> list[Effect]:
        """Step 2: hold what is open of a resting ``order`` and ask all peers; nothing where there is nobody
        to ask, or while the market is not open. A post-only order asks nobody: it waits to be found."""
        peers = self._market.roster.trading() if self._market.trades else []
        if order.level is None or not peers or order.terms.post_only or order.id in self.negotiations:
            return []
        if self.is_full:
            self.retries.later(order)
            return []
        return self._begin(Negotiation(order, self._book.hold(order)), peers)

    def enter(self, order: Order, held: int) -> list[Effect]:
        """``order`` has come alive, or ``held`` lots of it were set aside for its way."""
        if not held:
            return self.announce(order)
        if not self.is_full:
            return self._begin(Negotiation(order, held), self._market.roster.trading())
        effects = self._begin(Negotiation(order, held), [])
        self.retries.later(order)
        return effects

    def _begin(self, negotiation: Negotiation, peers: list[Peer]) -> list[Effect]:
        self.negotiations[negotiation.order.id] = negotiation
        return self._ask(negotiation, peers)

    def _ask(self, negotiation: Negotiation, peers: list[Peer]) -> list[Effect]:
        order, market = negotiation.order, self._market
        instrument = market.instrument
        negotiation.round += 1
        negotiation.offers = []
        negotiation.refused = negotiation.contended = negotiation.more = negotiation.filled = False
        negotiation.asked = negotiation.held
        if order.terms.display is not None and order.terms.display < negotiation.held:
            negotiation.asked, negotiation.more = order.terms.display, True
        negotiation.price = order.price
        if self._book.routing is BEST_PRICE or negotiation.all_or_none:
            self._offer_our_own(negotiation)
        negotiation.awaited = {peer.destination for peer in peers}
        if not peers:
            return self._choose(negotiation)
        message = AnnounceOpenOrder(
            OpenOrder(
                id=order.id,
                market=instrument.market,
                side=order.side,
                price=instrument.price_text(negotiation.price),
                quantity=instrument.quantity_text(negotiation.asked),
            ),
            negotiation.round,
            instrument.fingerprint,
        )
        payload = request(market.peer, message)
        negotiation.asked_at = market.clock.monotonic()
        return [Announce(order.id, negotiation.round, peer.destination, payload) for peer in peers]

    def _offer_our_own(self, negotiation: Negotiation) -> None:
        """Reserve what our own book has for an order, as another peer would."""
        market, asked = self._market, negotiation.asked
        fills, negotiation.price = self._book.reach(negotiation.order, asked)
        if not fills:
            return
        expires = market.clock.monotonic() + limits.LEASE_S
        lock_id = market.new_id()
        reservation = self._book.reserve(lock_id, market.peer, negotiation.order.id, fills, expires)
        ours = tuple(OfferFill(order.id, order.price, quantity) for order, quantity in fills)
        quantity = reservation.quantity
        negotiation.offers.append(
            PeerOffer(market.peer, OURSELVES, lock_id, ours, quantity, quantity == asked, expires=expires)
        )

    # -- offers ------------------------------------------------------------------------------------------

    def offer_answered(self, order_id: str, round: int, destination: str, answer: object) -> list[Effect]:
        """A peer has answered. What is no valid offer counts as none; what comes too late is released."""
        negotiation = self._awaiting(order_id, round, destination)
        effects: list[Effect] = []
        offer = answer if isinstance(answer, Offer) else None
        if offer is not None:
            lock_id: object = offer.lock_id
        else:
            lock_id = answer.get("lock_id") if isinstance(answer, dict) else None
        if lock_id is not None:
            try:
                if negotiation is None:
                    raise ProtocolError("too late")
                self._take_offer(negotiation, destination, offer or parse(answer, Offer))
            except OrderBookError:
                effects += self._refuse(destination, lock_id)
        elif negotiation is not None and isinstance(answer, dict) and answer.get("contended") is True:
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

    def _take_offer(self, negotiation: Negotiation, destination: str, offer: Offer) -> None:
        """Note ``offer``. Raises OrderBookError when it is not for this order."""
        market = self._market
        peer = market.roster.heard(destination, offer.sender, market.clock.monotonic())
        if peer is None or peer.name is None:
            raise ProtocolError(f"{destination} is not a peer of this market")
        doubts = self.confirmations.doubts
        if doubts and doubts.get(peer.name, 0) >= limits.DOUBTS_PER_MAKER:
            raise ProtocolError(f"{peer.name} is to answer what it was asked before")
        order, instrument = negotiation.order, market.instrument
        fills: list[OfferFill] = []
        quantity = 0
        for fill in offer.fills:
            price, part = instrument.price(fill.price), instrument.quantity(fill.quantity)
            if not order.side.crosses(negotiation.price, price):
                raise ProtocolError(f"{peer.name} offers {fill.price}, outside the limit of {order.id}")
            fills.append(OfferFill(fill.order_id, price, part))
            quantity += part
        if len(fills) > 1 and len({fill.order_id for fill in fills}) != len(fills):
            raise ProtocolError(f"{peer.name} offers one order twice")
        if quantity > negotiation.asked:
            raise ProtocolError(f"{peer.name} offers more than was asked")
        negotiation.offers.append(
            PeerOffer(
                peer.name,
                destination,
                offer.lock_id,
                tuple(fills),
                quantity,
                offer.fully_matched,
                offer.key,
                negotiation.asked_at + offer.lease / 1000,
                offer.contended,
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
        choices = choose(negotiation.offers, side, negotiation.asked, market.policy, market.random)
        if sum(choice.quantity for choice in choices) < negotiation.asked:
            return False
        worst = [fill.price for choice in choices for fill in choice.fills]
        for destination in negotiation.awaited:
            peer = market.roster.at(destination)
            if peer is None:
                continue
            best = peer.best_ask if side is BUY else peer.best_bid
            if best is not None and any(side.crosses(price, best) and price != best for price in worst):
                return False
        return True

    # -- choosing and confirming ---------------------------------------------------------------------------

    def _choose(self, negotiation: Negotiation) -> list[Effect]:
        """Step 4: confirm the best offers, release the others."""
        order, market = negotiation.order, self._market
        wanted = 0 if order.cancel_requested or not market.trades else negotiation.asked
        offers = [offer for offer in negotiation.offers if offer.destination or self._still_ours(offer)]
        all_or_none = negotiation.all_or_none
        if all_or_none:
            safe = market.clock.monotonic() + limits.LEASE_LEFT_S
            usable = [offer for offer in offers if offer.expires >= safe]
            choices = choose(usable, order.side, wanted, market.policy, market.random)
            if sum(choice.quantity for choice in choices) < wanted:
                choices = []
        else:
            choices = choose(offers, order.side, wanted, market.policy, market.random)
        chosen = {choice.offer for choice in choices}
        effects: list[Effect] = []
        if all_or_none:
            # Our own comes last, before it the leases that last longest.
            negotiation.next = sorted(choices, key=_certainty, reverse=True)
        else:
            for choice in choices:
                effects += self._take_up(negotiation, choice)
        for offer in offers:
            if offer not in chosen:
                effects += self._let_go(offer)
        if negotiation.next:
            effects += self._take_up_next(negotiation)
        return effects if negotiation.confirming else effects + self._round_over(negotiation)

    def _still_ours(self, offer: PeerOffer) -> bool:
        """Whether what our own book offers is reserved still."""
        return offer.lock_id in self._book.reservations

    def _take_up(self, negotiation: Negotiation, choice: Choice) -> list[Effect]:
        negotiation.more |= choice.offer.contended
        if choice.offer.destination == OURSELVES:
            return self._trade_here(negotiation, choice)
        return [self._confirm(negotiation, choice)]

    def _take_up_next(self, negotiation: Negotiation) -> list[Effect]:
        """Go on with a fill-or-kill order, until there is an answer to wait for."""
        effects: list[Effect] = []
        safe = self._market.clock.monotonic() + limits.LEASE_LEFT_S
        while negotiation.next and not negotiation.confirming:
            choice = negotiation.next[-1]
            here = choice.offer.destination == OURSELVES
            gone = not self._still_ours(choice.offer) if here else choice.offer.expires < safe
            if gone or negotiation.order.cancel_requested or not self._market.trades:
                negotiation.refused = True
                return effects + self._drop_the_next(negotiation)
            negotiation.next.pop()
            effects += self._take_up(negotiation, choice)
        return effects

    def _drop_the_next(self, negotiation: Negotiation) -> list[Effect]:
        """A fill-or-kill order takes up nothing more of what it had chosen."""
        dropped, negotiation.next = negotiation.next, []
        return [effect for choice in dropped for effect in self._let_go(choice.offer)]

    def _trade_here(self, negotiation: Negotiation, choice: Choice) -> list[Effect]:
        """Take up what our own book offers: local trades, like those of an order that meets others here."""
        market, book = self._market, self._book
        reservation = book.reservations[choice.offer.lock_id]
        quantities = {fill.order_id: fill.quantity for fill in choice.fills}
        book.commit_here(reservation, quantities, negotiation.order)
        negotiation.held -= choice.quantity
        negotiation.filled = True
        effects = market.happened(book.events)
        return effects + market.rematch([fill.order for fill in reservation.fills])

    def _let_go(self, offer: PeerOffer) -> list[Effect]:
        if offer.destination != OURSELVES:
            return [self._release(offer.destination, ReleaseLock(offer.lock_id))]
        reservation = self._book.reservations.get(offer.lock_id)
        return [] if reservation is None else self._market.free(reservation)

    def _confirm(self, negotiation: Negotiation, choice: Choice) -> Effect:
        offer, match_id = choice.offer, self._market.new_id()
        confirmation = Confirmation(
            negotiation.order, offer.peer, offer.destination, offer.lock_id, choice.fills, offer.key
        )
        negotiation.held -= confirmation.quantity
        negotiation.confirming.add(match_id)
        return self.confirmations.ask(match_id, confirmation)

    def _refuse(self, destination: str, lock_id: object) -> list[Effect]:
        """Release what was offered and is not taken; what is no lock id needs no answer."""
        try:
            return [self._release(destination, parse({"lock_id": lock_id}, ReleaseLock))]
        except ProtocolError:
            return []

    def _release(self, destination: str, message: ReleaseLock) -> Effect:
        return Tell(destination, request(self._market.peer, message))

    def match_answered(self, match_id: str, answer: object) -> list[Effect]:
        """A maker has answered a confirmation, perhaps a repeated one. Only a valid answer ends its doubt."""
        try:
            answered = self.confirmations.answered(match_id, answer)
        except ProtocolError:
            return self.match_failed(match_id)
        if answered is None:
            return []
        confirmation, said = answered
        order = confirmation.order
        negotiation = self._of(order)
        effects: list[Effect] = []
        if said.status == "committed":
            effects += self._market.traded(self.confirmations.trades(match_id, confirmation, said))
            self._book.fill_held(order, *[(fill.quantity, fill.price) for fill in confirmation.fills])
            effects += self._market.happened(self._book.events)  # it may have brought stops alive
            if negotiation is None:
                effects += self._market.rematch([order])  # an iceberg may show its next tip
            else:
                negotiation.filled = True
        elif negotiation is not None:
            self._market.note(Refused(match_id))
            negotiation.held += confirmation.quantity
            negotiation.refused |= match_id in negotiation.confirming
        else:
            self._market.note(Refused(match_id))
            effects += self._market.give_back(order, confirmation.quantity)
            self.retries.later(order)
        return effects + self._answered(negotiation, match_id)

    def _of(self, order: Order) -> Negotiation | None:
        """The negotiation of ``order``; one that has waited for an answer goes on."""
        waiting = self.waiting.pop(order.id, None)
        if waiting is not None:
            self.negotiations[order.id] = waiting
        return self.negotiations.get(order.id)

    def match_failed(self, match_id: str) -> list[Effect]:
        """A confirmation has no answer: its quantity is in-doubt, and the maker is asked again in a while."""
        confirmation = self.confirmations.failed(match_id)
        if confirmation is None:
            return []
        order = confirmation.order
        negotiation = self.negotiations.get(order.id)
        if negotiation is None or order.terms.time_in_force is not FILL_OR_KILL:
            return self._answered(negotiation, match_id)
        # Whether the rest of it is wanted is not known before this is.
        negotiation.late = True
        self.waiting[order.id] = self.negotiations.pop(order.id)
        effects = [*self._drop_the_next(negotiation), Settled(order.id)]
        return effects + self.cancelled(order) if order.cancel_requested else effects

    def wait(self, order: Order, held: int) -> bool:
        """After a restart: let a fill-or-kill order with a part in-doubt wait for the answer, and hold the
        rest. Returns whether it is one."""
        doubts = {
            id for id, confirmation in self.confirmations.unanswered.items() if confirmation.order is order
        }
        if not doubts or order.terms.time_in_force is not FILL_OR_KILL or order.cancel_requested:
            return False
        negotiation = self.waiting[order.id] = Negotiation(order, held)
        negotiation.confirming = doubts
        negotiation.late = True
        return True

    def cancelled(self, order: Order) -> list[Effect]:
        """``order`` was taken back: if it waits for an answer, no more than that is to be waited for."""
        waiting = self.waiting.pop(order.id, None)
        if waiting is not None:
            return self._end(waiting)
        negotiation = self.negotiations.get(order.id)
        return [] if negotiation is None else self._next_round(negotiation)

    def _answered(self, negotiation: Negotiation | None, match_id: str) -> list[Effect]:
        """``match_id`` is answered or in-doubt; after the last of a round comes the next one, or the end."""
        if negotiation is None or match_id not in negotiation.confirming:
            return []
        negotiation.confirming.discard(match_id)
        effects: list[Effect] = []
        if negotiation.refused:
            effects += self._drop_the_next(negotiation)
        elif negotiation.next:
            effects += self._take_up_next(negotiation)
        return effects if negotiation.confirming else effects + self._round_over(negotiation)

    def _round_over(self, negotiation: Negotiation) -> list[Effect]:
        """Ask again, or settle.

        Where nothing was refused, all that was open has been offered and taken. So a reason to ask again at
        once is only a refusal, whose quantity has to be found elsewhere; or that something was filled, and
        there is more. Who is refused again and again asks ever more rarely.
        """
        order = negotiation.order
        negotiation.fruitless = 0 if negotiation.filled else negotiation.fruitless + 1
        broken = order.terms.time_in_force is FILL_OR_KILL and order.filled
        more = negotiation.filled and (negotiation.more or broken)
        ends = order.cancel_requested or (negotiation.late and negotiation.all_or_none)
        ends = ends or not self._market.trades
        again = (negotiation.refused or more) and negotiation.held and not ends
        if again and negotiation.fruitless < limits.ROUNDS and negotiation.round < limits.ROUNDS_MAX:
            negotiation.paused = True
            if negotiation.fruitless < 2:
                return self._next_round(negotiation)
            pause = pause_s(self._market.random, negotiation.fruitless - 2)
            self._market.agenda.later(pause, lambda: self._next_round(negotiation))
            return []
        negotiation.contended |= negotiation.refused
        return self._settle(negotiation)

    def _next_round(self, negotiation: Negotiation) -> list[Effect]:
        """Ask again, if that is what it waits for and there is anybody to ask."""
        if not negotiation.paused:
            return []
        negotiation.paused = False
        peers = self._market.roster.trading()
        if peers and not negotiation.order.cancel_requested and self._market.trades:
            return self._ask(negotiation, peers)
        negotiation.contended |= negotiation.refused
        return self._settle(negotiation)

    # -- the end -----------------------------------------------------------------------------------------

    def _settle(self, negotiation: Negotiation) -> list[Effect]:
        """Step 6: what is left opens and, matched with what came meanwhile, rests or is cancelled."""
        order = negotiation.order
        del self.negotiations[order.id]
        effects = self._end(negotiation)
        if negotiation.contended:
            self.retries.later(order)
        else:
            self.retries.forget(order)
        return [*effects, Settled(order.id)]

    def _end(self, negotiation: Negotiation) -> list[Effect]:
        order = negotiation.order
        if negotiation.held:
            return self._market.give_back(order, negotiation.held)
        return self._market.rematch([order])

    def forget(self, orders: list[Order]) -> None:
        """These have closed; nothing about them is to be tried again."""
        for order in orders:
            self.retries.forget(order)


def _certainty(choice: Choice) -> tuple[bool, float]:
    """How sure it is that what was offered is still there."""
    return choice.offer.destination == OURSELVES, choice.offer.expires

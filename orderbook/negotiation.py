"""The order book protocol as a state machine: messages and clock in, messages and effects out. No IO.

A :class:`Negotiator` is one market at one peer: clients' orders come in by :meth:`~Negotiator.submit`,
:meth:`~Negotiator.amend` and :meth:`~Negotiator.cancel`, other peers' requests by
:meth:`~Negotiator.handle`, answers to our own requests by the methods that the effects name, and time by
:meth:`~Negotiator.tick`. Each of them is one step: it reads and changes the book without waiting for
anything, and returns what its caller is to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from . import limits
from .desk import Desk
from .effects import Beat, Discover, DropTrades, Duplicate, Effect, Settled, Tell
from .engine import Code, Reason
from .entry import Amendment, NewOrder, NewPair, NewQuote
from .envelopes import parse, parse_request, request
from .errors import InvalidFieldError, OrderBookError, UnknownDoubtError
from .events import Resolved
from .maker import Maker, Reply
from .market import Market
from .messages import AnnounceOpenOrder, CrossPeerMatch, Goodbye, Heartbeat, ReleaseLock
from .model import Order, Side, check_name
from .recovery import Recovered
from .roster import Peer
from .taker import Taker
from .terms import PostOnly
from .under_way import Confirmation


class Answer:
    """What another peer is to be told.

    Attributes:
        content: The answer: a message, None, or what the gate has made of it, ready for JSON.
        promise: It may only be told once the events of this step are durable.
        effects: What else is to be done.
    """

    __slots__ = ("content", "effects", "promise")

    def __init__(self, content: Any, promise: bool, effects: list[Effect]):
        self.content = content
        self.promise = promise
        self.effects = effects


class Negotiator:
    """One market at one peer, in both of its roles."""

    def __init__(self, market: Market):
        self.market = market
        self._maker = Maker(market)
        self._taker = Taker(market)
        self._desk = Desk(market, self._taker)
        self._unanswered = self._taker.confirmations.unanswered
        self._heartbeats = 0
        self._to_ourselves: deque[int] = deque(maxlen=limits.OWN_DESTINATIONS)
        """Sequences of the heartbeats that we have given ourselves, and not heard yet."""
        self._handlers: dict[type, Callable[[str, Any], Reply]] = {
            AnnounceOpenOrder: self._maker.announce,
            ReleaseLock: self._maker.release,
            Heartbeat: self._handle_heartbeat,
            Goodbye: self._handle_goodbye,
        }
        self.market.agenda.later_about(limits.HEARTBEAT_S, self._beat)

    def resume(self, recovered: Recovered) -> list[Effect]:
        """Go on, with a new market, where the journal of an earlier process ends.

        Open orders rest in their old order, and meet what they had not met when it ended; makers are asked
        about what is in-doubt.
        """
        market, book = self.market, self.market.book
        resting: list[tuple[Order, int]] = []
        for order in recovered.finish().orders.values():
            market.ledger.add_order(order, recovered.submitted.get(order.id))
            open = order.open
            if not order.untriggered:
                # Held, since orders of a past may cross.
                order.open, order.reserved = 0, order.reserved + open
                resting.append((order, open))
            book.add(order)
        book.last_price = recovered.last_price
        if recovered.state is not book.state:
            book.set_state(recovered.state)
        market.ledger.resume(recovered.archived_trades, recovered.archived_cross_peer, recovered.trades)
        for match_id, confirmation in recovered.confirmations.items():
            self._taker.confirmations.resume(match_id, confirmation)
        for order in recovered.orders.values():
            if order.partner is not None and order.untriggered:
                book.link(order, recovered.orders.get(order.partner))
        effects = market.expire_orders()
        book.go_on()
        effects += market.happened(book.events)
        for order, open in resting:
            if open and not self._taker.wait(order, open):
                effects += market.give_back(order, open)
        return self._end_step(effects)

    # -- clients ---------------------------------------------------------------------------------------

    def submit(self, new: NewOrder) -> tuple[Order, list[Effect]]:
        """See :meth:`Desk.submit`. The order is on its way through the network until an effect ``Settled``
        names it, perhaps one of these."""
        order, effects = self._desk.submit(new)
        return order, self._on_its_way(order, effects)

    def submit_pair(self, new: NewPair) -> tuple[tuple[Order, Order], list[Effect]]:
        """See :meth:`Desk.submit_pair`; ``Settled`` names the first order."""
        pair, effects = self._desk.submit_pair(new)
        return pair, self._on_its_way(pair[0], effects)

    def amend(self, order_id: str, change: Amendment) -> tuple[Order, list[Effect]]:
        """See :meth:`Desk.amend`; ``Settled`` as for :meth:`submit`."""
        order, effects = self._desk.amend(order_id, change)
        return order, self._on_its_way(order, effects)

    def mass_quote(
        self, owner: object, quotes: Sequence[NewQuote]
    ) -> tuple[list[Order | None], list[Effect]]:
        """See :meth:`Desk.mass_quote`; ``Settled`` names each of the orders."""
        orders, effects = self._desk.mass_quote(owner, quotes)
        effects = self._end_step(effects)
        for order in orders:
            if order is not None and order.id not in self._taker.negotiations:
                effects.append(Settled(order.id))
        return orders, effects

    def quotes_under_way(self, owner: object, quotes: Sequence[NewQuote]) -> str | None:
        """The id of one of their orders that is on its way through the network, or None."""
        ids = (order.id for order in self._desk.quoted(owner, quotes) if order is not None)
        return next((id for id in ids if self.is_under_way(id)), None)

    def cancel(self, order_id: str) -> tuple[Order, list[Effect]]:
        """See :meth:`Desk.cancel`."""
        order, effects = self._desk.cancel(order_id)
        return order, self._end_step(effects)

    def set_state(self, state: object, by: object) -> list[Effect]:
        """See :meth:`Desk.set_state`."""
        return self._end_step(self._desk.set_state(state, by))

    def _on_its_way(self, order: Order, effects: list[Effect]) -> list[Effect]:
        """``Settled`` says when the way of ``order`` is over; if it has none, at once."""
        effects = self._end_step(effects)
        if order.id in self._taker.negotiations:
            return effects
        for effect in effects:
            if isinstance(effect, Settled) and effect.order_id == order.id:
                return effects
        effects.append(Settled(order.id))
        return effects

    # -- other peers' requests -------------------------------------------------------------------------

    def handle(self, payload: object, key: str | None = None) -> Answer:
        """Answer a request of another peer.

        Args:
            payload: The envelope, as decoded from JSON.
            key: Who has signed it; None: nobody.

        Raises:
            OrderBookError: It is no valid request; nothing has changed.
        """
        sender, message = parse_request(payload)
        return self.answer(check_name(sender, "from"), message, key)

    def answer(self, sender: str, message: Any, key: str | None = None) -> Answer:
        """As :meth:`handle`, for a request that has been read, from a sender whose name is checked."""
        kind = type(message)
        if sender == self.market.peer:
            # Our own broadcast; and where a look-up has found us, a heartbeat that says so.
            if kind is not Heartbeat:
                return Answer(None, False, [])
            heartbeat = self._heartbeat()
            self._to_ourselves.append(heartbeat.sequence)
            return Answer(heartbeat, False, [])
        promise = kind is CrossPeerMatch
        if promise:
            content, effects = self._maker.match(sender, message, key)
        else:
            content, effects = self._handlers[kind](sender, message)
        known = self.market.roster.called(sender, self.market.clock.monotonic())
        if not known and kind is not Goodbye:
            effects.append(Discover())
        return Answer(content, promise, self._end_step(effects))

    def _handle_heartbeat(self, sender: str, message: Heartbeat) -> Reply:
        self.market.check_instrument(message.instrument)
        effects = self._compare(self.market.roster.named(sender), message)
        return self._heartbeat(), effects

    def _handle_goodbye(self, sender: str, message: Goodbye) -> Reply:
        return None, self._gone(sender)

    def _gone(self, name: str) -> list[Effect]:
        """The peer ``name`` has left or vanished, and what was reserved for it is free."""
        peer = self.market.roster.named(name)
        if peer is not None:
            self.market.roster.lost(peer.destination)
        return self._maker.forget(name)

    # -- answers to our requests -----------------------------------------------------------------------

    def offer_answered(self, order_id: str, round: int, destination: str, answer: object) -> list[Effect]:
        """A peer has answered an ``Announce`` (``answer``: as decoded from JSON)."""
        return self._end_step(self._taker.offer_answered(order_id, round, destination, answer))

    def offer_failed(self, order_id: str, round: int, destination: str) -> list[Effect]:
        """A peer could not be asked, or did not answer in time."""
        return self._end_step(self._taker.offer_failed(order_id, round, destination))

    def match_answered(self, match_id: str, answer: object) -> list[Effect]:
        """A maker has answered a ``Confirm``."""
        return self._end_step(self._taker.match_answered(match_id, answer))

    def match_failed(self, match_id: str) -> list[Effect]:
        """A ``Confirm`` has no answer, or one that is none: the maker will be asked again."""
        return self._end_step(self._taker.match_failed(match_id))

    def heartbeat_answered(self, destination: str, answer: object) -> list[Effect]:
        """A peer has answered a ``Beat`` with its own heartbeat."""
        try:
            message = parse(answer, Heartbeat)
            name = None if message.sender is None else check_name(message.sender, "from")
        except OrderBookError:
            self.market.roster.lost(destination)
            return []
        peer = self.market.roster.heard(destination, name, self.market.clock.monotonic())
        effects = self._look_for_duplicates(destination, name, peer, message.sequence)
        return self._end_step(effects + self._compare(peer, message))

    def _look_for_duplicates(
        self, destination: str, name: str | None, peer: Peer | None, sequence: int
    ) -> list[Effect]:
        """Whether what answers at ``destination`` is another process than who has that name: ours, or that of
        ``peer``."""
        if name == self.market.peer:
            if sequence in self._to_ourselves:
                self._to_ourselves.remove(sequence)
                return []
            self.market.count("duplicate", "of_us")
            return [Duplicate(name, destination, "this one")]
        if peer is None or not peer.is_duplicate(sequence):
            return []
        self.market.count("duplicate", "of_another")
        return [Duplicate(peer.name or "", destination, peer.came_from or "")]

    def peer_refuses(self, destination: str, reason: str) -> list[Effect]:
        """A peer has answered a ``Beat`` with an error: it is there, but does not trade with us."""
        self.market.roster.refuses(destination, reason, self.market.clock.monotonic())
        return []

    def peer_lost(self, destination: str) -> list[Effect]:
        """``destination`` refused or broke a connection."""
        self.market.roster.lost(destination)
        return []

    # -- doubts ----------------------------------------------------------------------------------------

    def doubts(self) -> list[tuple[str, Confirmation]]:
        """Confirmations, by match id, that a maker did not answer in time and is asked again."""
        return [entry for entry in self._unanswered.items() if entry[1].silences]

    def doubt(self, match_id: str) -> Confirmation:
        """One of :meth:`doubts`. Raises UnknownDoubtError."""
        confirmation = self._unanswered.get(match_id)
        if confirmation is None or not confirmation.silences:
            raise UnknownDoubtError(
                f"no doubt about match {match_id[: limits.NAME_LENGTH]!r} here: it is answered, or not ours"
            )
        return confirmation

    def resolve(self, match_id: str, outcome: object, by: object) -> tuple[Order, list[Effect]]:
        """An operator settles a doubt whose maker will not come back. The maker alone knows, so this may be
        wrong: should it come back after all, its books and ours may disagree.

        Args:
            match_id: Of the doubt.
            outcome: ``"committed"``: it trades; ``"refused"``: the quantity is the order's again.
            by: Who has decided; it is journaled.

        Raises:
            UnknownDoubtError: There is no such doubt.
            InvalidFieldError: A field breaks a rule.
        """
        if outcome not in ("committed", "refused"):
            raise InvalidFieldError("outcome", 'must be "committed" or "refused"')
        name, order = check_name(by, "by"), self.doubt(match_id).order
        self.market.note(Resolved(match_id, str(outcome), name, self.market.clock.time_ms()))
        said = {"status": "committed" if outcome == "committed" else "rejected"}
        return order, self._end_step(self._taker.match_answered(match_id, said))

    # -- discovery and heartbeats ----------------------------------------------------------------------

    def discovered(self, destinations: Sequence[str]) -> list[Effect]:
        """A look-up has found ``destinations`` (``host:port``); those that are new are asked who they are."""
        return self._beats(self.market.roster.discovered(destinations, self.market.clock.monotonic()))

    def _beat(self) -> list[Effect]:
        market, now = self.market, self.market.clock.monotonic()
        market.agenda.later_about(limits.HEARTBEAT_S, self._beat)
        effects = self._sweep()
        if market.ledger.excess:
            effects.append(DropTrades(market.ledger.trade_count))
        for peer in market.roster.drop_silent(now):
            if peer.name is not None:
                effects += self._maker.forget(peer.name)
        # Of two peers only the one whose turn comes first asks: question and answer tell both.
        return effects + self._beats(market.roster.not_heard_since(now - limits.HEARTBEAT_S / 2))

    def _sweep(self) -> list[Effect]:
        """Forget what has closed long ago, little by little: what a second has closed takes milliseconds."""
        market, most = self.market, limits.ORDERS_SWEPT
        if market.ledger.sweep(market.clock.monotonic(), most) == most:
            market.agenda.later(0.0, self._sweep)
        return []

    def leave(self) -> list[Effect]:
        """We are about to end: say goodbye, so that nobody waits for us."""
        payload = request(self.market.peer, Goodbye())
        return [Tell(peer.destination, payload) for peer in self.market.roster.trading()]

    def _beats(self, peers: Sequence[Peer]) -> list[Effect]:
        if not peers:
            return []
        payload = request(self.market.peer, self._heartbeat())
        return [Beat(peer.destination, payload) for peer in peers]

    def _heartbeat(self) -> Heartbeat:
        market = self.market
        (bid, bid_since), (ask, ask_since) = self._best(Side.BUY), self._best(Side.SELL)
        self._heartbeats += 1
        return Heartbeat(
            sequence=self._heartbeats,
            best_bid=bid,
            best_ask=ask,
            instrument=market.instrument.fingerprint,
            sender=market.peer,
            websocket=market.websocket,
            session=market.session,
            bid_since=bid_since,
            ask_since=ask_since,
        )

    def _best(self, side: Side) -> tuple[str | None, int | None]:
        """The best price that there is to trade with, and since when if the first order there is a post-only
        one."""
        level = self.market.book.ladder(side).best
        if level is None or not self.market.trades:
            return None, None
        first = level.head
        posted = first is not None and first.terms.post_only is not None
        since = first.time_ms if first is not None and posted else None
        return self.market.instrument.price_text(level.price), since

    def _compare(self, peer: Peer | None, message: Heartbeat) -> list[Effect]:
        """Announce what the best prices of ``peer`` cross; of two post-only orders the younger yields."""
        instrument, book = self.market.instrument, self.market.book
        if peer is None or not peer.tells_news(message.sequence, self.market.clock.monotonic()):
            return []  # unknown yet, or overtaken by a newer one
        peer.websocket, peer.session = message.websocket, message.session
        try:
            self.market.check_instrument(message.instrument)
            bid = message.best_bid and instrument.price(message.best_bid, "best_bid")
            ask = message.best_ask and instrument.price(message.best_ask, "best_ask")
        except OrderBookError as error:
            peer.refused = str(error)
            return []
        peer.refused, peer.best_bid, peer.best_ask = None, bid or None, ask or None
        effects: list[Effect] = []
        if not self.market.trades:
            return effects
        bests = (Side.BUY, bid, message.bid_since), (Side.SELL, ask, message.ask_since)
        for side, price, since in bests:
            if price:
                for order in book.crossed_by(side, price, limits.REANNOUNCE_PER_HEARTBEAT):
                    if order.terms.post_only is None:
                        self._taker.retries.later(order)
                    elif since is not None and (order.time_ms, self.market.peer) > (since, peer.name or ""):
                        effects += self._yield(order, price)
        return effects

    def _yield(self, order: Order, other: int) -> list[Effect]:
        """A post-only ``order`` crosses an older one at another peer, at the price ``other``: neither may
        take, so this one goes away from there, or altogether."""
        market, book = self.market, self.market.book
        before = order.price, order.quantity
        apart = other - 1 if order.side is Side.BUY else other + 1
        slides = order.terms.post_only is PostOnly.SLIDE and 1 <= apart <= market.instrument.max_price
        if slides and order.reserved:
            return []  # its price can't change now; the next heartbeat comes soon
        if slides and book.amend(order.id, price=apart) is Code.OK:
            market.note_change(order, *before)
        else:
            book.cancel(order.id, reason=Reason.POST_ONLY)
        return market.happened(book.events)

    # -- time ------------------------------------------------------------------------------------------

    def tick(self) -> list[Effect]:
        """Do what is due by now: free leases that have run out, ask again, send heartbeats."""
        now = self.market.clock.monotonic()
        effects = self._maker.expire(now) + self.market.expire_orders()
        for step in self.market.agenda.due(now):
            effects += step()
        return self._end_step(effects)

    def next_due(self) -> float | None:
        """When :meth:`tick` is next wanted, on the monotonic clock."""
        due = self.market.book.next_expiry()
        for time in (self.market.agenda.next_due(), self._next_order_expiry()):
            if time is not None and (due is None or time < due):
                due = time
        return due

    def _next_order_expiry(self) -> float | None:
        """When the next order expires, on the monotonic clock, as far as the wall clock can be trusted."""
        expires_ms = self.market.book.next_expiry_ms
        if expires_ms is None:
            return None
        clock = self.market.clock
        return clock.monotonic() + max(0.0, (expires_ms - clock.time_ms()) / 1000)

    def _end_step(self, effects: list[Effect]) -> list[Effect]:
        outbound = self.market.outbound
        while outbound:
            effects += self._taker.enter(*outbound.pop(0))
        closed = self.market.file_closed()
        if closed:
            self._taker.forget(closed)
        return effects

    # -- views -----------------------------------------------------------------------------------------

    @property
    def in_doubt(self) -> int:
        """How many :meth:`doubts` there are."""
        return len(self.doubts())

    def lots_in_doubt(self) -> dict[str, int]:
        """What of which order is in-doubt, in lots by order id."""
        lots: dict[str, int] = {}
        for _, confirmation in self.doubts():
            lots[confirmation.order.id] = lots.get(confirmation.order.id, 0) + confirmation.quantity
        return lots

    def is_under_way(self, order_id: str) -> bool:
        """Whether ``Settled`` will name this order."""
        return order_id in self._taker.negotiations

    def is_in_doubt(self, match_id: str) -> bool:
        """Whether a maker has been asked about ``match_id`` and has not answered."""
        return match_id in self._unanswered

    @property
    def makers_in_doubt(self) -> list[tuple[str, str | None]]:
        """Name and key of the maker of each confirmation that is not answered."""
        return [(confirmation.maker, confirmation.key) for confirmation in self._unanswered.values()]

    @property
    def under_way(self) -> int:
        """Orders on their way through the network, and confirmations that are not answered."""
        return len(self._taker.negotiations) + len(self._unanswered)

    def check(self) -> None:
        """Verify every invariant of the book, and that each reserved lot has exactly one reason. O(orders).

        Raises:
            AssertionError: Naming what does not hold.
        """
        book = self.market.book
        book.check()
        unexplained = {order.id: order.reserved for order in book.orders.values()}
        for reservation in book.reservations.values():
            for order, quantity in reservation.fills:
                unexplained[order.id] -= quantity
        assert not self.market.outbound, "an order was sent out, and nobody took it along"
        for negotiation in (*self._taker.negotiations.values(), *self._taker.waiting.values()):
            unexplained[negotiation.order.id] -= negotiation.held
        for confirmation in self._unanswered.values():
            unexplained[confirmation.order.id] -= confirmation.quantity
        wrong = {id: quantity for id, quantity in unexplained.items() if quantity}
        assert not wrong, f"reserved lots without a reason (or with two): {wrong}"

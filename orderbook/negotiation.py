"""The order book protocol as a state machine: messages and clock in, messages and effects out. No IO.

A :class:`Negotiator` is one market at one peer: clients' orders come in by :meth:`~Negotiator.submit`,
:meth:`~Negotiator.amend` and :meth:`~Negotiator.cancel`, other peers' requests by
:meth:`~Negotiator.handle`, answers to our own requests by the methods that the effects name, and time by
:meth:`~Negotiator.tick`. Each of them is one step: it reads and changes the book without waiting for
anything, and returns what its caller is to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from . import limits
from .effects import Beat, Discover, DropTrades, Effect, Settled, Tell
from .engine import Code, Reason
from .entry import Amendment, NewOrder, NewPair, change_of, order_of, pair_of
from .errors import (
    BusyError,
    DuplicateOrderError,
    InvalidFieldError,
    OrderBookError,
    OrderClosedError,
    OrderRefusedError,
    UnderWayError,
    UnknownDoubtError,
)
from .events import Accepted, Amended, Resolved, accepted_event
from .maker import Maker, Reply
from .market import Market
from .messages import Envelope, Goodbye, Heartbeat, parse, parse_request, request
from .model import Order, Side, check_name
from .recovery import Recovered
from .roster import Peer
from .taker import Taker
from .terms import PostOnly
from .under_way import Confirmation


class Answer(NamedTuple):
    """What another peer is to be told.

    Attributes:
        content: The answer: a message, None, or what the gate has made of it, ready for JSON.
        promise: It may only be told once the events of this step are durable.
        effects: What else is to be done.
    """

    content: Any
    promise: bool
    effects: list[Effect]


class Negotiator:
    """One market at one peer, in both of its roles."""

    def __init__(self, market: Market):
        self.market = market
        self._maker = Maker(market)
        self._taker = Taker(market)
        self._unanswered = self._taker.confirmations.unanswered
        self._heartbeats = 0
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
        market.ledger.resume(recovered.archived_trades, recovered.archived_cross_peer, recovered.trades)
        for match_id, confirmation in recovered.confirmations.items():
            self._taker.confirmations.resume(match_id, confirmation)
        effects = market.expire_orders()
        for order in recovered.orders.values():
            if order.partner is not None and order.untriggered:
                book.link(order, recovered.orders.get(order.partner))
                effects += market.happened(book.events)
        for order, open in resting:
            if open and not self._taker.wait(order, open):
                effects += market.give_back(order, open)
        return self._end_step(effects)

    # -- clients ---------------------------------------------------------------------------------------

    def submit(self, new: NewOrder) -> tuple[Order, list[Effect]]:
        """Take a client's order: steps 1 and 2 of the protocol.

        Returns:
            The order and what to do. It is on its way through the network until an effect ``Settled`` names
            it, perhaps one of these. The same ``client_order_id`` again gives the order it named first.

        Raises:
            InvalidFieldError: A field breaks a rule.
            DuplicateOrderError: The owner used this ``client_order_id`` for a different order.
            BusyError: The book is full.
        """
        market, book = self.market, self.market.book
        effects = market.expire_orders()
        order = order_of(new, market.instrument, market.new_id(), market.clock.time_ms())
        known = self._known(order)
        if known is not None:
            return known, self._again(known, effects)
        self._check_room(1)
        accepted = accepted_event(order)
        self._keep_apart(order)
        check_code(book.submit(order))
        self._note_accepted(order, accepted)
        effects += market.happened(book.events)
        return order, self._go_out(order, effects)

    def submit_pair(self, new: NewPair) -> tuple[tuple[Order, Order], list[Effect]]:
        """Take two orders of which one cancels the other: see :meth:`~orderbook.engine.Book.submit_pair`.

        Returns:
            The one that can rest and the stop order, and what to do. ``Settled`` names the first one. The
            same ``client_order_id`` of either again gives the pair that it named first.

        Raises:
            As :meth:`submit`.
        """
        market, book = self.market, self.market.book
        effects = market.expire_orders()
        ids = market.new_id(), market.new_id()
        resting, stop = pair_of(new, market.instrument, ids, market.clock.time_ms())
        known = self._known_pair(resting, stop)
        if known is not None:
            return known, self._again(known[0], effects)
        self._check_room(2)
        accepted = [accepted_event(order) for order in (stop, resting)]
        self._keep_apart(resting)
        check_code(book.submit_pair(resting, stop))
        for order, event in zip((stop, resting), accepted, strict=True):
            self._note_accepted(order, event)
        effects += market.happened(book.events)
        return (resting, stop), self._go_out(resting, effects)

    def _known(self, order: Order) -> Order | None:
        """The order that its owner has given the same name before. Raises DuplicateOrderError when it was a
        different one."""
        if order.client_order_id is None:
            return None
        known = self.market.ledger.order_of_client(order.owner, order.client_order_id)
        if known is None:
            return None
        paired = (known.partner is None) is (order.partner is None)
        if not paired or not self.market.ledger.same(known, order):
            raise different(known)
        return known

    def _known_pair(self, resting: Order, stop: Order) -> tuple[Order, Order] | None:
        """The pair of which the owner has given one or both orders the same name before. Raises
        DuplicateOrderError when it was a different one."""
        named = self._known(resting), self._known(stop)
        first = named[0] or named[1]
        if first is None:
            return None
        if not self.market.ledger.knows(str(first.partner)):
            raise different(first)  # it has closed long ago, and is forgotten
        other = self.market.ledger.order(str(first.partner))
        pair = (first, other) if named[0] else (other, first)
        for known, order, name in zip(pair, (resting, stop), named, strict=True):
            alike = known.client_order_id == order.client_order_id and self.market.ledger.same(known, order)
            if not alike or name not in (None, known):
                raise different(first)
        return pair

    def _again(self, known: Order, effects: list[Effect]) -> list[Effect]:
        if known.id not in self._taker.negotiations:
            effects.append(Settled(known.id))
        return self._end_step(effects)

    def _check_room(self, orders: int) -> None:
        market = self.market
        if len(market.book.orders) + orders > limits.OPEN_ORDERS:
            raise BusyError(f"the book of {market.instrument.market} is full here: try another peer")

    def _note_accepted(self, order: Order, accepted: Accepted) -> None:
        """The book has taken ``order``, perhaps at another price."""
        self.market.note(accepted)
        self.market.ledger.add_order(order)
        self._note_change(order, accepted.price, accepted.quantity)

    def amend(self, order_id: str, change: Amendment) -> tuple[Order, list[Effect]]:
        """Change an order; what it crosses then it trades with, here and at other peers, as a new one would.

        With the same price and no larger quantity it keeps its place in the queue, else it goes to the back.
        What is reserved of it for others stays as it is: then its price can't change, nor its quantity be
        less than what is reserved and filled.

        Returns:
            As :meth:`submit`.

        Raises:
            InvalidFieldError: A field breaks a rule.
            UnknownOrderError: No such order here.
            OrderClosedError: It is filled or cancelled already.
            UnderWayError: It is on its way through the network: wait until that is over.
            OrderRefusedError: A rule of the book forbids it, and the order is what it was.
        """
        market, book = self.market, self.market.book
        price, quantity = change_of(change, market.instrument)
        effects = market.expire_orders()
        order = self._live(order_id)
        if self.is_under_way(order_id) or order_id in self._taker.waiting:
            raise UnderWayError(f"order {order_id} is on its way through the network: ask again in a moment")
        before = order.price, order.quantity
        if price is not None:
            price = self._apart(order, price)
        check_code(book.amend(order.id, price=price, quantity=quantity))
        self._note_change(order, *before)
        effects += market.happened(book.events)
        stays = order.price == before[0] and order.quantity <= before[1]
        return order, self._end_step([*effects, Settled(order.id)]) if stays else self._go_out(order, effects)

    def cancel(self, order_id: str) -> tuple[Order, list[Effect]]:
        """Take an order back: what is open is cancelled now; what is reserved fills, or is cancelled when its
        reservation ends.

        Raises:
            UnknownOrderError: No such order here.
            OrderClosedError: It is filled or cancelled already.
        """
        order = self._live(order_id)
        self.market.book.cancel(order.id)
        effects = self.market.happened(self.market.book.events)
        return order, self._end_step(effects + self._taker.cancelled(order))

    def _live(self, order_id: str) -> Order:
        order = self.market.ledger.order(order_id)
        if not order.live:
            raise OrderClosedError(f"order {order_id} is {order.status.value} already")
        return order

    def _go_out(self, order: Order, effects: list[Effect]) -> list[Effect]:
        """``order`` has come in, or has moved, and goes its way; ``Settled`` says when that is over."""
        effects += self._taker.announce(order)
        effects = self._end_step(effects)
        if order.id not in self._taker.negotiations and Settled(order.id) not in effects:
            effects.append(Settled(order.id))
        return effects

    def _note_change(self, order: Order, price: int, quantity: int) -> None:
        """The order has another price or quantity than it had, by itself or as its owner wished."""
        moved = order.price != price and not order.terms.market
        if moved or order.quantity != quantity:
            self.market.ledger.amended(order, price, quantity)
            self.market.note(Amended(order.id, order.price, order.quantity))

    def _keep_apart(self, order: Order) -> None:
        order.price = self._apart(order, order.price)

    def _apart(self, order: Order, price: int) -> int:
        """Where ``order`` may rest: a post-only one keeps clear of what other peers have last published, as
        the book does of its own orders. Raises OrderRefusedError."""
        other = self.market.roster.best(order.side.opposite) if order.terms.post_only is not None else None
        if other is None or not order.side.crosses(price, other):
            return price
        apart = other - 1 if order.side is Side.BUY else other + 1
        if order.terms.post_only is PostOnly.REJECT or not 1 <= apart <= self.market.instrument.max_price:
            check_code(Code.POST_ONLY_CROSSES)
        return apart

    # -- other peers' requests -------------------------------------------------------------------------

    def handle(self, payload: object) -> Answer:
        """Answer a request of another peer.

        Args:
            payload: The envelope, as decoded from JSON or as :func:`messages.read_request` reads it.

        Raises:
            OrderBookError: It is no valid request; nothing has changed.
        """
        asked = payload if isinstance(payload, Envelope) else parse_request(payload)
        sender, kind = check_name(asked.sender, "from"), asked.type
        if sender == self.market.peer:
            return Answer(None, False, [])  # our own broadcast
        content, effects = self._handlers[kind](self, sender, asked.payload)
        known = self.market.roster.called(sender, self.market.clock.monotonic())
        if not known and kind != "Goodbye":
            effects.append(Discover())
        return Answer(content, kind == "CrossPeerMatch", self._end_step(effects))

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

    _handlers: ClassVar[dict[str, Callable[[Negotiator, str, Any], Reply]]] = {
        "AnnounceOpenOrder": lambda self, sender, message: self._maker.announce(sender, message),
        "CrossPeerMatch": lambda self, sender, message: self._maker.match(sender, message),
        "ReleaseLock": lambda self, sender, message: self._maker.release(sender, message),
        "Heartbeat": _handle_heartbeat,
        "Goodbye": _handle_goodbye,
    }

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
        return self._end_step(self._compare(peer, message))

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
        return self._beats(self.market.roster.discovered(destinations))

    def _beat(self) -> list[Effect]:
        market, now = self.market, self.market.clock.monotonic()
        market.agenda.later_about(limits.HEARTBEAT_S, self._beat)
        market.ledger.sweep(now)
        effects: list[Effect] = []
        if market.ledger.excess:
            effects.append(DropTrades(market.ledger.trade_count))
        for peer in market.roster.drop_silent(now):
            if peer.name is not None:
                effects += self._maker.forget(peer.name)
        # Of two peers only the one whose turn comes first asks: question and answer tell both.
        return effects + self._beats(market.roster.not_heard_since(now - limits.HEARTBEAT_S / 2))

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
        """The best open price, and since when if the first order there is a post-only one."""
        level = self.market.book.ladder(side).best
        if level is None:
            return None, None
        first = level.head
        posted = first is not None and first.terms.post_only is not None
        since = first.time_ms if first is not None and posted else None
        return self.market.instrument.price_text(level.price), since

    def _compare(self, peer: Peer | None, message: Heartbeat) -> list[Effect]:
        """Announce what the best prices of ``peer`` cross; of two post-only orders the younger yields."""
        instrument, book = self.market.instrument, self.market.book
        if peer is None or message.sequence <= peer.sequence:
            return []  # unknown yet, or overtaken by a newer one
        peer.sequence, peer.websocket, peer.session = message.sequence, message.websocket, message.session
        try:
            self.market.check_instrument(message.instrument)
            bid = message.best_bid and instrument.price(message.best_bid, "best_bid")
            ask = message.best_ask and instrument.price(message.best_ask, "best_ask")
        except OrderBookError as error:
            peer.refused = str(error)
            return []
        peer.refused, peer.best_bid, peer.best_ask = None, bid or None, ask or None
        effects: list[Effect] = []
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
            self._note_change(order, *before)
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
        times = (self.market.book.next_expiry(), self.market.agenda.next_due(), self._next_order_expiry())
        return min((time for time in times if time is not None), default=None)

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
        self._taker.forget(self.market.file_closed())
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


def different(known: Order) -> DuplicateOrderError:
    return DuplicateOrderError(
        f"client_order_id {known.client_order_id} of {known.owner} names a different order: use a new one"
    )


def check_code(code: Code) -> None:
    """Raises OrderRefusedError for every code but ``OK``."""
    if code is not Code.OK:
        raise OrderRefusedError(code.value, code.rule)

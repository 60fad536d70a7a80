"""The order book protocol as a state machine: messages and clock in, messages and effects out. No IO.

A :class:`Negotiator` is one market at one peer: clients' orders come in by :meth:`~Negotiator.submit` and
:meth:`~Negotiator.cancel`, other peers' requests by :meth:`~Negotiator.handle`, answers to our own requests
by the methods that the effects name, and time by :meth:`~Negotiator.tick`. Each of them is one step: it reads
and changes the book without waiting for anything, and returns what its caller is to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from . import limits
from .effects import Beat, Discover, DropTrades, Effect, Settled, Tell
from .engine import Code
from .errors import (
    BusyError,
    DuplicateOrderError,
    InvalidFieldError,
    OrderBookError,
    OrderClosedError,
    ProtocolError,
)
from .events import accepted_event
from .maker import Maker
from .market import Market
from .messages import CrossPeerMatch, Envelope, Goodbye, Heartbeat, envelope, parse, plain
from .model import Order, Side, check_name
from .recovery import Recovered
from .roster import Peer
from .taker import Taker

Reply = tuple[Any, list[Effect]]


class Answer(NamedTuple):
    """What another peer is to be told.

    Attributes:
        content: The answer, ready for JSON.
        promise: It may only be told once the events of this step are durable.
        effects: What else is to be done.
    """

    content: Any
    promise: bool
    effects: list[Effect]


class NewOrder(NamedTuple):
    """What a client submits, unchecked.

    Attributes:
        side: ``"buy"`` or ``"sell"``.
        price: The limit, a decimal string; None for a market order.
        quantity: A decimal string.
        owner: Whose order it is.
        client_order_id: The owner's own name for it, or None.
        type: ``"limit"`` (also None), or ``"market"``: it takes any price there is, and never rests.
        time_in_force: ``"gtc"`` (also None), good till cancelled; or ``"ioc"``, immediate or cancel: what has
            met every peer and is left is cancelled.
    """

    side: object
    price: object
    quantity: object
    owner: object
    client_order_id: object = None
    type: object = None
    time_in_force: object = None


def terms_of(order: Order) -> tuple[object, ...]:
    """What makes a repeated submission the same."""
    return (order.side, order.price, order.quantity, order.rests)


class Negotiator:
    """One market at one peer, in both of its roles."""

    def __init__(self, market: Market):
        self.market = market
        self._maker = Maker(market)
        self._taker = Taker(market)
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
            market.ledger.add_order(order)
            open = order.open
            order.open, order.reserved = 0, order.reserved + open  # held, since orders of a past may cross
            book.add(order)
            resting.append((order, open))
        market.ledger.resume(recovered.archived_trades, recovered.archived_cross_peer, recovered.trades)
        for match_id, confirmation in recovered.confirmations.items():
            self._taker.resume(match_id, confirmation)
        effects: list[Effect] = []
        for order, open in resting:
            if open:
                book.release_held(order, open)
                effects += market.rematch([order]) + market.cancel_rest(order)
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
        order = self._checked(new)
        if order.client_order_id is not None:
            known = market.ledger.order_of_client(order.owner, order.client_order_id)
            if known is not None:
                if terms_of(known) != terms_of(order):
                    raise DuplicateOrderError(
                        f"client_order_id {known.client_order_id} of {known.owner} names a different order: "
                        "use a new one"
                    )
                return known, [] if known.id in self._taker.negotiations else [Settled(known.id)]
        if len(book.orders) >= limits.OPEN_ORDERS:
            raise BusyError(f"the book of {market.instrument.market} is full here: try another peer")

        code = book.submit(order)
        if code is not Code.OK:
            raise InvalidFieldError("order", code.rule)
        market.ledger.add_order(order)
        market.note(accepted_event(order))
        effects = market.happened(book.events)
        effects += self._taker.announce(order)
        if order.id not in self._taker.negotiations:
            effects += market.cancel_rest(order)
            effects.append(Settled(order.id))
        return order, self._end_step(effects)

    def _checked(self, new: NewOrder) -> Order:
        instrument = self.market.instrument
        if new.side not in ("buy", "sell"):
            raise InvalidFieldError("side", 'must be "buy" or "sell"')
        if new.type not in (None, "limit", "market"):
            raise InvalidFieldError("type", 'must be "limit" or "market"')
        if new.time_in_force not in (None, "gtc", "ioc"):
            raise InvalidFieldError("time_in_force", 'must be "gtc" or "ioc"')
        side = Side(new.side)
        if new.type != "market":
            price, rests = instrument.price(new.price), new.time_in_force != "ioc"
        elif new.price is not None:
            raise InvalidFieldError("price", "must be left out of a market order")
        elif new.time_in_force == "gtc":
            raise InvalidFieldError("time_in_force", 'must be "ioc" for a market order, which never rests')
        else:
            price, rests = (instrument.max_price if side is Side.BUY else 1), False
        client_order_id = new.client_order_id
        if client_order_id is not None:
            client_order_id = check_name(client_order_id, "client_order_id")
        return Order(
            owner=check_name(new.owner, "owner"),
            side=side,
            price=price,
            rests=rests,
            quantity=instrument.quantity(new.quantity),
            client_order_id=client_order_id,
            id=self.market.new_id(),
            time_ms=self.market.clock.time_ms(),
        )

    def cancel(self, order_id: str) -> tuple[Order, list[Effect]]:
        """Take an order back: what is open is cancelled now; what is reserved fills, or is cancelled when its
        reservation ends.

        Raises:
            UnknownOrderError: No such order here.
            OrderClosedError: It is filled or cancelled already.
        """
        order = self.market.ledger.order(order_id)
        if not order.live:
            raise OrderClosedError(f"order {order_id} is {order.status.value} already")
        self.market.book.cancel(order.id)
        return order, self._end_step(self.market.happened(self.market.book.events))

    # -- other peers' requests -------------------------------------------------------------------------

    def handle(self, payload: object) -> Answer:
        """Answer a request of another peer.

        Args:
            payload: The envelope, as decoded from JSON.

        Raises:
            OrderBookError: It is no valid request; nothing has changed.
        """
        request = parse(payload, Envelope)
        handler = self._handlers.get(request.type)
        if handler is None:
            raise ProtocolError(f"type must be one of {', '.join(self._handlers)}")
        if check_name(request.sender, "from") == self.market.peer:
            return Answer(None, False, [])  # our own broadcast
        content, effects = handler(self, request.sender, request.payload)
        known = self.market.roster.called(request.sender, self.market.clock.monotonic())
        if not known and request.type != Goodbye.__name__:
            effects.append(Discover())
        return Answer(content, request.type == CrossPeerMatch.__name__, self._end_step(effects))

    def _handle_heartbeat(self, sender: str, payload: object) -> Reply:
        message = parse(payload, Heartbeat)
        self.market.check_instrument(message.instrument)
        self._compare(self.market.roster.named(sender), message)
        return plain(self._heartbeat()), []

    def _handle_goodbye(self, sender: str, payload: object) -> Reply:
        parse(payload, Goodbye)
        return None, self._gone(sender)

    def _gone(self, name: str) -> list[Effect]:
        """The peer ``name`` has left or vanished, and what was reserved for it is free."""
        peer = self.market.roster.named(name)
        if peer is not None:
            self.market.roster.lost(peer.destination)
        return self._maker.forget(name)

    _handlers: ClassVar[dict[str, Callable[[Negotiator, str, object], Reply]]] = {
        "AnnounceOpenOrder": lambda self, sender, payload: self._maker.announce(sender, payload),
        "CrossPeerMatch": lambda self, sender, payload: self._maker.match(sender, payload),
        "ReleaseLock": lambda self, sender, payload: self._maker.release(sender, payload),
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
        self._compare(self.market.roster.heard(destination, name, self.market.clock.monotonic()), message)
        return []

    def peer_refuses(self, destination: str, reason: str) -> list[Effect]:
        """A peer has answered a ``Beat`` with an error: it is there, but does not trade with us."""
        self.market.roster.refuses(destination, reason, self.market.clock.monotonic())
        return []

    def peer_lost(self, destination: str) -> list[Effect]:
        """``destination`` refused or broke a connection."""
        self.market.roster.lost(destination)
        return []

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
        payload = envelope(self.market.peer, Goodbye())
        return [Tell(peer.destination, payload) for peer in self.market.roster.trading()]

    def _beats(self, peers: Sequence[Peer]) -> list[Effect]:
        if not peers:
            return []
        payload = envelope(self.market.peer, self._heartbeat())
        return [Beat(peer.destination, payload) for peer in peers]

    def _heartbeat(self) -> Heartbeat:
        market = self.market
        bid, ask = market.book.best(Side.BUY), market.book.best(Side.SELL)
        self._heartbeats += 1
        return Heartbeat(
            sequence=self._heartbeats,
            best_bid=None if bid is None else market.instrument.price_text(bid),
            best_ask=None if ask is None else market.instrument.price_text(ask),
            instrument=market.instrument.fingerprint,
            sender=market.peer,
            websocket=market.websocket,
        )

    def _compare(self, peer: Peer | None, message: Heartbeat) -> None:
        """Announce again what the best prices of ``peer`` cross."""
        instrument, book = self.market.instrument, self.market.book
        if peer is None or message.sequence <= peer.sequence:
            return  # unknown yet, or overtaken by a newer one
        peer.sequence, peer.websocket = message.sequence, message.websocket
        try:
            self.market.check_instrument(message.instrument)
            bid = message.best_bid and instrument.price(message.best_bid, "best_bid")
            ask = message.best_ask and instrument.price(message.best_ask, "best_ask")
        except OrderBookError as error:
            peer.refused = str(error)
            return
        peer.refused, peer.best_bid, peer.best_ask = None, bid or None, ask or None
        for side, price in ((Side.BUY, bid), (Side.SELL, ask)):
            if price:
                for order in book.crossed_by(side, price, limits.REANNOUNCE_PER_HEARTBEAT):
                    self._taker.announce_later(order)

    # -- time ------------------------------------------------------------------------------------------

    def tick(self) -> list[Effect]:
        """Do what is due by now: free leases that have run out, ask again, send heartbeats."""
        now = self.market.clock.monotonic()
        effects = self._maker.expire(now)
        for step in self.market.agenda.due(now):
            effects += step()
        return self._end_step(effects)

    def next_due(self) -> float | None:
        """When :meth:`tick` is next wanted, on the monotonic clock."""
        times = (self.market.book.next_expiry(), self.market.agenda.next_due())
        return min((time for time in times if time is not None), default=None)

    def _end_step(self, effects: list[Effect]) -> list[Effect]:
        self._taker.forget(self.market.file_closed())
        return effects

    # -- views -----------------------------------------------------------------------------------------

    @property
    def in_doubt(self) -> int:
        """Confirmations that a maker did not answer in time and is asked again."""
        return sum(1 for confirmation in self._taker.confirmations.values() if confirmation.silences)

    def is_in_doubt(self, match_id: str) -> bool:
        """Whether a maker has been asked about ``match_id`` and has not answered."""
        return match_id in self._taker.confirmations

    @property
    def makers_in_doubt(self) -> list[tuple[str, str | None]]:
        """Name and key of the maker of each confirmation that is not answered."""
        return [(confirmation.maker, confirmation.key) for confirmation in self._taker.confirmations.values()]

    @property
    def under_way(self) -> int:
        """Orders on their way through the network, and confirmations that are not answered."""
        return len(self._taker.negotiations) + len(self._taker.confirmations)

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
        for negotiation in self._taker.negotiations.values():
            unexplained[negotiation.order.id] -= negotiation.held
        for confirmation in self._taker.confirmations.values():
            unexplained[confirmation.order.id] -= confirmation.quantity
        wrong = {id: quantity for id, quantity in unexplained.items() if quantity}
        assert not wrong, f"reserved lots without a reason (or with two): {wrong}"

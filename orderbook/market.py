"""One market at one peer: its book, ledger and roster, and what maker and taker both do with them. No IO."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from sortedcontainers import SortedKeyList

from .effects import Clock, Effect, Traded
from .engine import Book, Cancellation, MarketState, Match, Outbound, Reason, Requeue, Reservation, Trigger
from .engine import Event as BookEvent
from .errors import ProtocolError
from .event_forms import trade_event
from .events import Amended, Cancelled, Event, Requeued, Triggered
from .ledger import Ledger
from .messages import TradeRecord
from .model import Instrument, Order, check_name
from .roster import Roster
from .selection import POLICIES, Policy
from .starts import Starts
from .terms import Routing
from .trade import Trade

OPEN: Final = MarketState.OPEN

Step = Callable[[], list[Effect]]


class Agenda:
    """Steps that are to happen later, in order of time."""

    def __init__(self, clock: Clock, random: Random):
        self._clock = clock
        self._random = random
        self._entries: SortedKeyList = SortedKeyList(key=lambda entry: entry[:2])
        self._count = 0  # keeps entries of the same time in order

    def later(self, pause_s: float, step: Step) -> None:
        self._count += 1
        self._entries.add((self._clock.monotonic() + pause_s, self._count, step))

    def later_about(self, pause_s: float, step: Step) -> None:
        """As :meth:`later`, jittered by a quarter, so that peers do not act in step."""
        self.later(pause_s * self._random.uniform(0.75, 1.25), step)

    def due(self, now: float) -> list[Step]:
        """Take the steps whose time has come."""
        steps: list[Step] = []
        while self._entries and self._entries[0][0] <= now:
            steps.append(self._entries.pop(0)[2])
        return steps

    def next_due(self) -> float | None:
        """When the next step is due, on the monotonic clock."""
        return float(self._entries[0][0]) if self._entries else None


class Market:
    """The state of one market at one peer.

    Args:
        peer: Our own name.
        instrument: What is traded.
        clock: Where time comes from.
        new_id: Gives ids that are unique in the network and over restarts.
        random: For jitter and the ``random`` policy.
        policy: Chooses among offers of equal price.
        websocket: Whether other peers are told that we take requests over a WebSocket too.
        session: The newest version of sessions that they are told we open there; 0: none.
        routing: Whether orders trade with our own book first, or wherever the price is best.

    Attributes:
        journaled: Whether a journal keeps what happens with orders, else nothing is written about that.
        starts: Of our journal; None where none keeps what we execute.
        counts: How often something has happened, by what it is and by how it ended, as ``metrics`` names
            them.
        outbound: Orders that are to begin their way through the network when the step ends, each with the
            lots that the book has set aside for it.
    """

    def __init__(
        self,
        peer: str,
        instrument: Instrument,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        random: Random,
        policy: Policy = POLICIES["full-first"],
        websocket: bool = False,
        session: int = 0,
        routing: Routing = Routing.LOCAL_FIRST,
    ):
        self.websocket = websocket
        self.session = session
        self.peer = check_name(peer, "peer")
        self.instrument = instrument
        self.clock = clock
        self.new_id = new_id
        self.random = random
        self.policy = policy
        self.journaled = True
        self.starts: Starts | None = None
        self.counts: dict[str, dict[str, int]] = {}
        self._closed: list[Order] = []
        self.book = Book(on_closed=self._closed.append, routing=routing)
        self.outbound: list[tuple[Order, int]] = []
        self.ledger = Ledger(peer)
        self.roster = Roster(peer)
        self.agenda = Agenda(clock, random)
        self._events: list[Event] = []

    @property
    def trades(self) -> bool:
        """Whether the market is open: else nothing new is begun."""
        return self.book.state is OPEN

    def rematch(self, orders: list[Order]) -> list[Effect]:
        """Match what resting ``orders`` were given back against the other side of our own book."""
        effects: list[Effect] = []
        for order in orders:
            if order.open:
                self.book.rematch(order)
                effects += self.happened(self.book.events)
        return effects

    def happened(self, events: list[BookEvent]) -> list[Effect]:
        """Record what a command did in the book: local matches as trades, what it cancelled, what came alive,
        went to the back or was sent out. Executions are their caller's to record."""
        if not events:
            return []
        matches = [event for event in events if isinstance(event, Match)]
        effects = self.executed(matches) if matches else []
        if len(matches) == len(events):
            return effects
        for event in events:
            if isinstance(event, Cancellation):
                self._cancelled(event)
            elif isinstance(event, Outbound):
                self.outbound.append((event.order, event.quantity))
            elif isinstance(event, Trigger):
                self.note(Triggered(event.order.id))
                self.outbound.append((event.order, 0))
            elif isinstance(event, Requeue):
                self.note(Requeued(event.order.id))
        return effects

    def _cancelled(self, event: Cancellation) -> None:
        order, quantity, reason = event
        if reason is Reason.RELEASED:
            return  # it was cancelled before
        order.reason = reason.value
        self.note(Cancelled(order.id, reason.value, None if order.cancel_requested else quantity))

    def expire_orders(self) -> list[Effect]:
        """Take back the orders whose time has come, before anything else happens to them."""
        due = self.book.next_expiry_ms
        if due is None or due > (now := self.clock.time_ms()):
            return []
        return self.tell_time(now)

    def tell_time(self, time_ms: int) -> list[Effect]:
        """It is this time now, in milliseconds since the epoch: take back the orders whose time has come."""
        self.book.expire_orders(time_ms)
        return self.happened(self.book.events)

    def free(self, reservation: Reservation) -> list[Effect]:
        """End a reservation of which nothing is executed."""
        self.book.release(reservation)
        effects = self.happened(self.book.events)
        return effects + self.rematch([fill.order for fill in reservation.fills])

    def give_back(self, order: Order, quantity: int) -> list[Effect]:
        """Give ``quantity`` lots back to ``order``, which was on its way, and match it with what has come."""
        self.book.release_held(order, quantity)
        effects = self.happened(self.book.events)
        return effects + self.rematch([order])

    def executed(self, matches: list[Match]) -> list[Effect]:
        """Record local matches as trades."""
        time_ms = self.clock.time_ms()
        trades = [
            self.trade(self.new_id(), maker, quantity, taker.id, taker_peer=self.peer, time_ms=time_ms)
            for maker, taker, _, quantity in matches
        ]
        return self.traded(trades)

    def trade(
        self, match_id: str, maker: Order, quantity: int, taker_id: str, *, taker_peer: str, time_ms: int
    ) -> Trade:
        """The record of a trade of our resting order ``maker``; all trades of one match have one time."""
        return Trade(
            match_id=match_id,
            market=self.instrument.market,
            price=maker.price,
            quantity=quantity,
            maker_order_id=maker.id,
            taker_order_id=taker_id,
            maker_peer=self.peer,
            taker_peer=taker_peer,
            time_ms=time_ms,
            side=maker.side.opposite,
        )

    def traded(self, trades: list[Trade], taker_key: str | None = None) -> list[Effect]:
        """These ``trades`` of one match, or of several local ones, were executed: see
        :meth:`Ledger.add_trades`."""
        self.ledger.add_trades(trades, taker_key)
        if self.journaled:
            for trade in trades:
                self.note(trade_event(trade))
        return [Traded(trades)]

    def count(self, what: str, how: str) -> None:
        """This has happened once more."""
        counts = self.counts.get(what)
        if counts is None:
            counts = self.counts[what] = {}
        counts[how] = counts.get(how, 0) + 1

    def note(self, event: Event) -> None:
        """This has happened and must not be forgotten."""
        self._events.append(event)

    def note_change(self, order: Order, price: int, quantity: int) -> None:
        """The order has another price or quantity than it had, by itself or as its owner wished."""
        moved = order.price != price and not order.terms.market
        if moved or order.quantity != quantity:
            self.ledger.amended(order, price, quantity)
            self.note(Amended(order.id, order.price, order.quantity))

    def take_events(self) -> list[Event]:
        """What has been noted since this was last called, to be journaled before its effects are seen."""
        events = self._events
        if events:
            self._events = []
        return events

    def file_closed(self) -> list[Order]:
        """Tell the ledger which orders have closed; returns them."""
        if not self._closed:
            return []
        closed, now = self._closed[:], self.clock.monotonic()
        self._closed.clear()
        for order in closed:
            self.ledger.closed(order, now)
        return closed

    def check_instrument(self, fingerprint: str | None) -> None:
        """Raises ProtocolError when a peer trades something else under the same name."""
        ours = self.instrument
        if fingerprint is not None and fingerprint != ours.fingerprint:
            raise ProtocolError(
                f"instrument must be {ours.fingerprint} ({ours.market}, tick {ours.tick}, lot {ours.lot}): "
                "the peers disagree on what they trade"
            )

    def record(self, trade: Trade) -> TradeRecord:
        """``trade`` with decimal strings, as it travels."""
        return TradeRecord(
            match_id=trade.match_id,
            market=trade.market,
            price=self.instrument.price_text(trade.price),
            quantity=self.instrument.quantity_text(trade.quantity),
            maker_order_id=trade.maker_order_id,
            taker_order_id=trade.taker_order_id,
            maker_peer=trade.maker_peer,
            taker_peer=trade.taker_peer,
            time=trade.time_ms,
            side=None if trade.side is None else trade.side.text,
        )

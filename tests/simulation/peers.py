"""A peer in a simulated world: the real book, negotiation, outbox and recovery, and a worker's part of it.

What a worker does with sockets and timers is done here on virtual time. Every step is followed by ``checks``,
and what a client was told is kept, to be compared at the end.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import msgpack

from orderbook import limits
from orderbook.effects import Confirm, Discover, DropTrades, Effect, Question, Settled
from orderbook.entry import Amendment, NewOrder, NewPair
from orderbook.envelopes import encode
from orderbook.errors import OrderBookError, OrderRefusedError, UnderWayError
from orderbook.event_forms import trade_of
from orderbook.events import Event, Executed, Signed
from orderbook.market import Market
from orderbook.model import Instrument, Order
from orderbook.negotiation import Negotiator
from orderbook.outbox import Outbox
from orderbook.recovery import Recovered
from orderbook.selection import POLICIES
from orderbook.signing.channel import Channel
from orderbook.signing.gate import Gate
from orderbook.signing.handshake import VERSION, Sessions
from orderbook.signing.proofs import Proof
from orderbook.signing.session import Session
from orderbook.starts import Starts
from orderbook.terms import Routing, TimeInForce
from orderbook.trade import Trade
from tests.simulation.checks import check_offer, check_sender, check_step, check_told_peer
from tests.simulation.flows import Quotes
from tests.simulation.lines import SimLines
from tests.simulation.world import SimDisk, SkewedClock

if TYPE_CHECKING:
    from tests.simulation.markets import Exchange

INSTRUMENT = Instrument("SIM", tick="1", lot="1")


@dataclass(frozen=True)
class Told:
    """What a client was told of its order: from then on at least this must be true."""

    order_id: str
    filled: int
    cancelled: bool
    price: int
    quantity: int


class SimPeer:
    """One peer: a disk and clocks that stay, and a process that comes and goes."""

    def __init__(
        self,
        exchange: Exchange,
        name: str,
        drift: float,
        wall_off_s: float,
        policy: str,
        routing: Routing,
        label: str | None = None,
    ):
        """``label`` tells it from another one of that name."""
        self.exchange = exchange
        self.name = name
        self.label = label or name
        self.clock = SkewedClock(exchange.world, drift, wall_off_s)
        self.disk: SimDisk[Event] = SimDisk(exchange.world, self._when_awake)
        self.policy = policy
        self.routing = routing
        self.signer = exchange.keys.signer(name)
        self.negotiator: Negotiator | None = None
        self.channel: Channel | None = None
        self.place = ""
        self.told: dict[str, Told] = {}
        self.states = [(0, "open")]
        """Which the market here may come back in: the one that was told last, and those set since then."""
        self.on_confirm: Callable[[], None] = lambda: None
        self.on_reserve: Callable[[], None] = lambda: None
        self.offered: dict[str, str] = {}
        """To whom it has offered what is under a lock, by lock id."""
        self.owner_heard: dict[str, float] = {}
        """When it was last asked something by who has a name from the beginning, on its monotonic clock."""
        self._ids = itertools.count()
        self._life = 0
        self.still_until = 0.0
        self._missed: list[Callable[[], None]] = []
        self._outbox: Outbox | None = None
        self._lines: SimLines | None = None
        self._discovering = False
        self._matches_seen: set[str] = set()

    # -- the process -----------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self.negotiator is not None

    @property
    def stands_still(self) -> bool:
        return self.exchange.world.now < self.still_until

    @property
    def is_behind(self) -> bool:
        """Whether it stands still, or has yet to do what it has missed meanwhile."""
        return self.exchange.world.now < self.still_until + 0.01

    def start(self) -> None:
        """Start the process: recover from the disk, listen at a new place, be announced."""
        self._life += 1
        self.still_until = 0.0
        self._missed.clear()
        self.owner_heard.clear()
        world = self.exchange.world
        life = self._life
        self.place = f"{self.label}:{life}"
        market = Market(
            self.name,
            INSTRUMENT,
            clock=self.clock,
            new_id=lambda: f"{self.label}-{life}-{next(self._ids)}",
            random=Random(world.random.random()),
            policy=POLICIES[self.policy],
            routing=self.routing,
            session=VERSION if self.exchange.sessions else 0,
        )
        market.starts = self._begin_start()
        market.ledger.archive_in(self, in_memory=self.exchange.trades_in_memory)
        self.negotiator = Negotiator(market)
        gate = Gate(
            self.name,
            INSTRUMENT.market,
            self.signer,
            clock=self.clock,
            new_nonce=lambda: f"{self.label}-{life}-{next(self._ids)}",
            allowed=self.exchange.allowed,
            unsigned=not self.exchange.signs,
            signs=self.exchange.signs,
            verify=self.exchange.keys.verify,
        )
        self.channel = Channel(self.negotiator, gate)
        sessions = Sessions(gate, lambda: world.random.randbytes(32))
        self._lines = SimLines(world, self.exchange.network, self.place, sessions, self._receive)
        self._outbox = Outbox(market, self.disk, self._carry_out)
        world.log(f"{self.name} starts at {self.place} with {len(self.disk.durable)} events")
        self.exchange.network.serve[self.place] = self._receive
        self.exchange.announce(self.place)
        recovered = self._recovered()
        self._step(lambda n: n.resume(recovered))
        state = market.book.state.value
        assert state in dict(self.states).values(), f"{self.name} comes back {state}"
        self._look_up()
        self._wake()

    def _begin_start(self) -> Starts:
        disk, own = self.disk, self.place
        if disk.starts:
            disk.starts[next(reversed(disk.starts))] = len(disk.durable)
        earlier = dict(disk.starts)
        disk.starts[own] = 0
        return Starts(own, earlier, lambda: len(disk.durable))

    def _recovered(self) -> Recovered:
        """What the disk adds up to, by way of a snapshot of some of it."""
        events = self.disk.durable
        cut = self.exchange.world.random.randint(0, len(events))
        while 0 < cut < len(events) and same_match(events[cut - 1], events[cut]):
            cut += 1  # a snapshot stands for whole steps
        snapshot = msgpack.packb(Recovered(self.name, INSTRUMENT.market).apply(events[:cut]).to_plain())
        recovered = Recovered(self.name, INSTRUMENT.market)
        recovered.load(msgpack.unpackb(snapshot))
        return recovered.apply(events[cut:])

    def leave(self) -> None:
        """A clean end: goodbye, and everything is on the disk."""
        self._step(lambda n: n.leave())
        self.exchange.sights["goodbye"] += 1
        self.exchange.world.after(0.5, self._unless_ended(self.crash))

    def crash(self) -> None:
        """``kill -9``: what is not on the disk is gone."""
        sights = self.exchange.sights
        assert self.negotiator is not None
        sights["crash"] += 1
        sights["crash with a confirmation unanswered"] += bool(self.negotiator.makers_in_doubt)
        sights["crash with reservations for others"] += bool(self.negotiator.market.book.reservations)
        sights["crash with something not yet durable"] += self.disk.unwritten
        self.exchange.world.log(f"{self.name} crashes")
        self.exchange.network.serve.pop(self.place)
        assert self._lines is not None
        self._lines.close()
        self._lines = None
        self.negotiator = self.channel = self._outbox = None
        self._discovering = False
        self._life += 1
        self.disk.crash()

    def stand_still(self, seconds: float) -> None:
        """The process does nothing for a while, and then all that it has missed, one after the other."""
        world = self.exchange.world
        world.log(f"{self.name} stands still for {seconds:.1f} s")
        self.still_until = world.now + seconds

        def wake() -> None:
            assert self.negotiator is not None
            expired = self.negotiator.market.book.expired(self.clock.monotonic())
            self.exchange.sights["awake after a lease had run out"] += bool(expired)
            missed, self._missed = self._missed, []
            for action in missed:
                action()

        world.after(seconds, self._alive_then(wake))

    def _when_awake(self, action: Callable[[], None]) -> None:
        """``action``, now or when the process goes on."""
        if self.stands_still:
            self._missed.append(self._alive_then(action))
        else:
            action()

    def _alive_then(self, action: Callable[[], None]) -> Callable[[], None]:
        """``action``, once the process is awake, unless it has ended by then."""
        return self._unless_ended(lambda: self._when_awake(action))

    def _unless_ended(self, action: Callable[[], None]) -> Callable[[], None]:
        life = self._life

        def act() -> None:
            if life == self._life and self.negotiator is not None:
                action()

        return act

    def _wake(self) -> None:
        assert self.negotiator is not None
        due = self.negotiator.next_due()
        assert due is not None, "the heartbeat is always due"

        def tick() -> None:
            assert self.negotiator is not None
            run_out = self.negotiator.market.book.expired(self.clock.monotonic())
            self.exchange.sights["lease ran out"] += len(run_out)
            for reservation in run_out:
                self.exchange.sights["lease of a fill-or-kill order ran out"] += (
                    self.exchange.is_fill_or_kill(reservation.counterparty, reservation.purpose)
                )
            self._step(lambda n: n.tick())
            self._wake()

        self.exchange.world.after(self.clock.until(due) + 0.0005, self._alive_then(tick))

    # -- steps -----------------------------------------------------------------------------------------

    def _step(self, step: Callable[[Negotiator], list[Effect]]) -> None:
        assert self.negotiator is not None
        assert self._outbox is not None
        effects = step(self.negotiator)
        check_step(self, effects)
        self._outbox.after_step(effects)

    def _receive(self, request: str, reply: Callable[[str], None], session: Session | None = None) -> None:
        self.exchange.sights["request to who stands still"] += self.stands_still
        self._when_awake(lambda: self._serve(request, reply, session))

    def _serve(self, request: str, reply: Callable[[str], None], session: Session | None) -> None:
        negotiator, channel, outbox = self.negotiator, self.channel, self._outbox
        assert negotiator is not None
        assert channel is not None
        assert outbox is not None
        message = json.loads(request)
        locks_before = set(negotiator.market.book.reservations)
        try:
            answer = channel.receive(request.encode(), session)
        except OrderBookError as error:
            where = "" if session is None else " in a session"
            self.exchange.sights[f"request refused{where}: {field_of(error)}"] += 1
            reply(json.dumps({"error": str(error)}))
            return
        check_step(self, answer.effects)
        check_sender(self, message, session)
        content = encode(answer.content).decode()
        told = json.loads(content)
        check_told_peer(self, message, told)
        self._note_sights(message, told)
        new = negotiator.market.book.reservations.keys() - locks_before
        if message["type"] == "AnnounceOpenOrder" and told and told.get("lock_id") in new:
            check_offer(self, message["payload"]["order"], told)
            self.offered[told["lock_id"]] = message["from"]
        outbox.after_step(answer.effects)
        if answer.promise:
            outbox.promise(lambda: reply(content))
        else:
            reply(content)
        if new:
            self.on_reserve()

    def _note_sights(self, message: Any, answer: Any) -> None:
        sights, kind = self.exchange.sights, message["type"]
        if message["from"] == self.name:
            return  # what it has said itself, through a liar
        if kind == "AnnounceOpenOrder":
            sights["announcement"] += 1
            sights["offer"] += isinstance(answer, dict) and "lock_id" in answer
            sights["contended"] += isinstance(answer, dict) and answer.get("contended") is True
        elif kind == "CrossPeerMatch":
            match_id = message["payload"]["match_id"]
            sights[f"confirmation {answer['status']}"] += 1
            sights["confirmation repeated"] += match_id in self._matches_seen
            if answer["status"] == "rejected":
                sights["rejected: " + answer["reason"].split(":")[0]] += 1
            self._matches_seen.add(match_id)
        elif kind == "ReleaseLock":
            sights["release of a lock that is gone"] += not answer["released"]

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Question):
            if isinstance(effect, Confirm):
                self.on_confirm()
            self._ask(effect)
        elif isinstance(effect, Discover):
            if not self._discovering:
                self._discovering = True
                self.exchange.world.after(0.1, self._alive_then(self._look_up))
        elif isinstance(effect, DropTrades):
            assert self.negotiator is not None
            ledger = self.negotiator.market.ledger
            ledger.drop_trades(effect.upto)
            self.exchange.sights["trades left the memory"] += bool(ledger.dropped)
        elif isinstance(effect, Settled):
            self._tell(effect.order_id)

    def _ask(self, effect: Question) -> None:
        world, sights = self.exchange.world, self.exchange.sights
        channel, place, kind = self.channel, effect.destination, effect.payload.type
        assert channel is not None
        loud = kind != "Heartbeat"
        if loud:
            world.log(f"{self.name} -> {place} {kind} {encode(effect.payload.payload).decode()}")
        assert self._lines is not None
        session = self._lines.session(place)
        life, request = self._life, channel.seal(effect, session)

        def on_answer(text: str) -> None:
            if life != self._life:
                return
            answer = json.loads(text)
            if loud:
                world.log(f"{self.name} <- {place} {text}")
            if isinstance(answer, dict) and "error" in answer:
                self._step(lambda n: channel.refused(effect, answer["error"]))
            elif answer is None and kind == "Heartbeat":
                # Ourselves: a real worker sees its own name in the answer it gives itself.
                self._step(lambda n: n.heartbeat_answered(place, {"sequence": 0, "from": self.name}))
            else:
                try:
                    self._step(lambda n: channel.heard(effect, request, text.encode(), session))
                except OrderBookError as error:
                    reason = str(error)
                    where = "" if session is None else " in a session"
                    sights[f"answer not believed{where}: {field_of(error)}"] += 1
                    self._step(lambda n: channel.refused(effect, reason))

        def on_failure(refused: bool) -> None:
            if life != self._life:
                return
            if loud:
                world.log(f"{self.name} .. {place} {kind} {'refused' if refused else 'unanswered'}")
            sights["confirmation unanswered"] += isinstance(effect, Confirm)
            if refused:
                self._step(lambda n: n.peer_lost(place))
            self._step(lambda n: channel.failed(effect))

        def answered(text: str) -> None:
            self._when_awake(lambda: on_answer(text))

        def failed(refused: bool) -> None:
            self._when_awake(lambda: on_failure(refused))

        if isinstance(effect, Confirm):
            for listener in self.exchange.listeners:
                listener(place, json.loads(request.data))
        data = request.data.decode()
        timeout_s = limits.CONFIRM_TIMEOUT_S if isinstance(effect, Confirm) else limits.ANNOUNCE_TIMEOUT_S
        if session is not None:
            sights["confirmation in a session"] += isinstance(effect, Confirm)
            self._lines.call(place, data, timeout_s=timeout_s, answered=answered, failed=failed)
            return
        peer = self.negotiator.market.roster.at(place) if self.negotiator is not None else None
        if loud and peer is not None and peer.name is not None and peer.session:
            self._lines.wanted(place, peer.name)
        self.exchange.network.call(
            self.place, place, data, timeout_s=timeout_s, answered=answered, failed=failed
        )

    def _look_up(self) -> None:
        self._discovering = False
        places = self.exchange.looked_up()
        self._step(lambda n: n.discovered(places))
        pause = limits.DISCOVERY_S * self.exchange.world.random.uniform(0.9, 1.1)
        self.exchange.world.after(pause, self._alive_then(self._look_up))

    # -- clients ---------------------------------------------------------------------------------------

    def submit(self, new: NewOrder | NewPair | Quotes) -> str | None:
        """Returns the order's id (of several, that of the first), or None where nobody answers or it is
        refused."""
        if self.negotiator is None or self.stands_still:
            return None
        taken: list[Order] = []

        def step(negotiator: Negotiator) -> list[Effect]:
            if isinstance(new, Quotes):
                quoted, effects = negotiator.mass_quote(*new)
                taken.extend(order for order in quoted if order is not None)
                self.exchange.sights["mass quote"] += bool(taken)
            elif isinstance(new, NewPair):
                pair, effects = negotiator.submit_pair(new)
                taken.extend(pair)
            else:
                order, effects = negotiator.submit(new)
                taken.append(order)
            for order in taken:
                self.exchange.world.log(f"{self.name} takes {order} {order.terms}")
            return effects

        try:
            self._step(step)
        except (OrderRefusedError, UnderWayError) as error:
            self.exchange.sights[f"order refused: {error.code}"] += 1
            return None
        return taken[0].id if taken else None

    def amend(self, order_id: str, price: int | None, quantity: int | None) -> None:
        if self.negotiator is None or self.stands_still:
            return
        change = Amendment(*(None if number is None else str(number) for number in (price, quantity)))
        self.exchange.world.log(f"{self.name} is to change {order_id} to {change}")
        try:
            self._step(lambda n: n.amend(order_id, change)[1])
        except OrderBookError as error:
            self.exchange.sights[f"amendment refused: {error.code}"] += 1
            return
        self.exchange.sights["amended"] += 1
        assert self._outbox is not None
        self._outbox.promise(lambda: self._tell(order_id))

    def cancel(self, order_id: str) -> None:
        if self.negotiator is None or self.stands_still:
            return
        self.exchange.world.log(f"{self.name} is to cancel {order_id}")
        try:
            self._step(lambda n: n.cancel(order_id)[1])
        except OrderBookError:
            return  # closed, or lost in a crash before anybody was told of it
        assert self._outbox is not None
        self._outbox.promise(lambda: self._tell(order_id))

    def cancel_all(self) -> None:
        assert self.negotiator is not None
        for order in self.negotiator.market.ledger.orders(None, 0, 10**9)[0]:
            self._alive_then(partial(self.cancel, order.id))()

    def set_state(self, state: str) -> None:
        """An operator sets the state of the market here, and waits until it is done."""
        self._alive_then(lambda: self._set_state(state))()

    def _set_state(self, state: str) -> None:
        self.exchange.world.log(f"{self.name} is to be {state}")
        self.exchange.sights[f"market {state}"] += 1
        entry = (self.states[-1][0] + 1, state)
        self.states.append(entry)
        self._step(lambda n: n.set_state(state, "ops"))
        assert self._outbox is not None
        self._outbox.promise(lambda: self._told_state(entry))

    def _told_state(self, entry: tuple[int, str]) -> None:
        del self.states[: self.states.index(entry)]

    def _tell(self, order_id: str) -> None:
        assert self.negotiator is not None
        order = self.negotiator.market.ledger.order(order_id)
        sights = self.exchange.sights
        sights[f"told: {order.status.value}"] += 1
        force = order.terms.time_in_force
        if force is not TimeInForce.GTC and not order.live:
            sights[f"told: {force.value} {order.reason or 'filled'}"] += 1
        sights["told: in doubt"] += bool(order.reserved) and not order.cancel_requested
        trades = self.negotiator.market.ledger.trades_of_order(order_id)
        several = len({trade.maker_peer for trade in trades}) > 1
        sights["filled by several peers"] += several
        sights["fill-or-kill filled by several peers"] += (
            several and force is TimeInForce.FOK and not order.live
        )
        told = Told(order_id, order.filled, order.cancel_requested, order.price, order.quantity)
        # What is told may be newer than what was waited for: it has to be durable as well.
        assert self._outbox is not None
        self._outbox.promise(lambda: self.told.update({order_id: told}))

    # -- the disk --------------------------------------------------------------------------------------

    def trades(self) -> list[Trade]:
        """All that are on the disk."""
        events = (event for event in self.disk.durable if isinstance(event, Executed))
        return [trade_of(event, INSTRUMENT.market) for event in events]

    def trades_of_match(self, match_id: str) -> list[Trade]:
        """It is its own archive."""
        found = [trade for trade in self.trades() if trade.match_id == match_id]
        self.exchange.sights["answered from the archive"] += bool(found)
        return found

    def proofs(self, match_id: str) -> list[Signed]:
        """As :meth:`trades_of_match`."""
        signed = (event for event in self.disk.durable if isinstance(event, Signed))
        return [event for event in signed if event.match_id == match_id]

    def proofs_of(self, match_id: str) -> list[Proof]:
        """What its disk has to prove matches of that id."""
        return [Proof(event.request, event.answer) for event in self.proofs(match_id)]


def same_match(one: Event, other: Event) -> bool:
    return isinstance(one, Executed) and isinstance(other, Executed) and one.match_id == other.match_id


def field_of(error: OrderBookError) -> str:
    """The field of a message that ``error`` is about, which its text begins with."""
    return str(error).split()[0].rstrip(":")

"""A market of peers in a simulated world: the real book, negotiation, outbox and recovery of each.

What a worker does with sockets and timers is done here on virtual time. Every step of every peer is followed
by a check of its invariants, and what a client or a peer was told is kept, to be compared at the end.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgpack

from orderbook import limits
from orderbook.effects import Announce, Confirm, Discover, DropTrades, Effect, Settled, Traded
from orderbook.engine.stops import Stops
from orderbook.entry import Amendment, NewOrder
from orderbook.errors import OrderBookError, OrderRefusedError
from orderbook.events import Accepted, Amended, Event, Executed, Signed, Triggered, trade_of
from orderbook.market import Market
from orderbook.messages import encode
from orderbook.model import Instrument, Order, Side, Trade
from orderbook.negotiation import Negotiator
from orderbook.outbox import Outbox
from orderbook.recovery import Recovered
from orderbook.selection import POLICIES
from orderbook.signing.channel import Channel, Question
from orderbook.signing.gate import Gate
from orderbook.signing.proofs import Proof, agree, check
from orderbook.terms import Routing, TimeInForce
from tests.simulation.flows import FLOWS
from tests.simulation.liars import Liar
from tests.simulation.signing import KeyCeremony
from tests.simulation.world import NetworkFaults, SimDisk, SimNetwork, SkewedClock, World

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
        self, exchange: Exchange, name: str, drift: float, wall_off_s: float, policy: str, routing: Routing
    ):
        self.exchange = exchange
        self.name = name
        self.clock = SkewedClock(exchange.world, drift, wall_off_s)
        self.disk: SimDisk[Event] = SimDisk(exchange.world)
        self.policy = policy
        self.routing = routing
        self.signer = exchange.keys.signer(name)
        self.negotiator: Negotiator | None = None
        self.channel: Channel | None = None
        self.place = ""
        self.told: dict[str, Told] = {}
        self.on_confirm: Callable[[], None] = lambda: None
        self._ids = itertools.count()
        self._life = 0
        self._outbox: Outbox | None = None
        self._discovering = False
        self._matches_seen: set[str] = set()

    # -- the process -----------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self.negotiator is not None

    def start(self) -> None:
        """Start the process: recover from the disk, listen at a new place, be announced."""
        self._life += 1
        world = self.exchange.world
        life = self._life
        self.place = f"{self.name}:{life}"
        market = Market(
            self.name,
            INSTRUMENT,
            clock=self.clock,
            new_id=lambda: f"{self.name}-{life}-{next(self._ids)}",
            random=Random(world.random.random()),
            policy=POLICIES[self.policy],
            routing=self.routing,
        )
        market.ledger.archive_in(self, in_memory=self.exchange.trades_in_memory)
        self.negotiator = Negotiator(market)
        gate = Gate(
            self.name,
            INSTRUMENT.market,
            self.signer,
            clock=self.clock,
            new_nonce=lambda: f"{self.name}-{life}-{next(self._ids)}",
            allowed=self.exchange.allowed,
            unsigned=not self.exchange.signs,
            signs=self.exchange.signs,
            verify=self.exchange.keys.verify,
        )
        self.channel = Channel(self.negotiator, gate)
        self._outbox = Outbox(market, self.disk, self._carry_out)
        world.log(f"{self.name} starts at {self.place} with {len(self.disk.durable)} events")
        self.exchange.network.serve[self.place] = self._serve
        self.exchange.announce(self.place)
        recovered = self._recovered()
        self._step(lambda n: n.resume(recovered))
        self._look_up()
        self._wake()

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
        self.exchange.world.after(0.5, self._alive_then(self.crash))

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
        self.negotiator = self.channel = self._outbox = None
        self._discovering = False
        self._life += 1
        self.disk.crash()

    def _alive_then(self, action: Callable[[], None]) -> Callable[[], None]:
        """``action``, unless the process has ended by then."""
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
            self._step(lambda n: n.tick())
            self._wake()

        self.exchange.world.after(self.clock.until(due) + 0.0005, self._alive_then(tick))

    # -- steps -----------------------------------------------------------------------------------------

    def _step(self, step: Callable[[Negotiator], list[Effect]]) -> None:
        assert self.negotiator is not None
        assert self._outbox is not None
        effects = step(self.negotiator)
        self._check_step(effects)
        self._outbox.after_step(effects)

    def _check_step(self, effects: list[Effect]) -> None:
        """What must hold after every step."""
        assert self.negotiator is not None
        market = self.negotiator.market
        self.negotiator.check()
        self.check_leases()
        for stop in market.book.stops:
            assert not Stops.reached(stop, market.book.last_price), f"{stop} should have come alive"
        for effect in effects:
            if isinstance(effect, Announce):
                self._check_announced(effect)
            elif isinstance(effect, Traded):
                self._check_trades(effect)

    def _check_announced(self, effect: Announce) -> None:
        """What others learn of an order, and that our own book competes with them where it is to."""
        assert self.negotiator is not None
        market = self.negotiator.market
        order, announced = market.ledger.order(effect.order_id), effect.payload.payload.order
        lots, price = int(announced.quantity), int(announced.price)
        assert order.terms.post_only is None, f"{order} asks for what it must not take"
        assert lots <= (order.terms.display or lots), f"{order} shows {lots} lots of an iceberg"
        if self.routing is Routing.BEST_PRICE:
            ours = [r for r in market.book.reservations.values() if r.counterparty == self.name]
            reserved = sum(r.quantity for r in ours if r.purpose == order.id)
            better = [
                other
                for other in market.book.orders.values()
                if other.side is not order.side and other.level is not None and other.owner != order.owner
                if other.price != price and order.side.crosses(price, other.price)
            ]
            assert reserved == lots or not better, f"{order} passes over {better} in its own book"
            self.exchange.sights["our own book competes"] += bool(reserved)

    def _check_trades(self, effect: Traded) -> None:
        """I3 for our own orders, as they are when they trade."""
        assert self.negotiator is not None
        ledger = self.negotiator.market.ledger
        for trade in effect.trades:
            if trade.maker_peer == self.name:
                maker = ledger.order(trade.maker_order_id)
                assert maker.rests, f"{maker} is no order to make a price: {trade}"
            if trade.taker_peer == self.name:
                taker = ledger.order(trade.taker_order_id)
                assert taker.terms.post_only is None, f"{taker} has taken a price: {trade}"
                assert not taker.untriggered, f"{taker} has traded and waits: {trade}"

    def _serve(self, request: str, reply: Callable[[str], None]) -> None:
        negotiator, channel, outbox = self.negotiator, self.channel, self._outbox
        assert negotiator is not None
        assert channel is not None
        assert outbox is not None
        message = json.loads(request)
        locks_before = set(negotiator.market.book.reservations)
        try:
            answer = channel.receive(request.encode())
        except OrderBookError as error:
            self.exchange.sights[f"request refused: {field_of(error)}"] += 1
            reply(json.dumps({"error": str(error)}))
            return
        self._check_step(answer.effects)
        content = encode(answer.content).decode()
        told = json.loads(content)
        self._note_sights(message, told)
        new = negotiator.market.book.reservations.keys() - locks_before
        if message["type"] == "AnnounceOpenOrder" and told and told.get("lock_id") in new:
            check_priority(negotiator, message["payload"]["order"], told)
            self._check_offer(told)
        outbox.after_step(answer.effects)
        if answer.promise:
            outbox.promise(lambda: reply(content))
        else:
            reply(content)

    def _check_offer(self, offer: Any) -> None:
        """Nothing is offered that has run out, nor more of an iceberg than it shows."""
        assert self.negotiator is not None
        market = self.negotiator.market
        for fill in offer["fills"]:
            order = market.ledger.order(fill["order_id"])
            expires_ms, display = order.terms.expires_ms, order.terms.display
            assert expires_ms is None or expires_ms > market.book.time_ms, f"{order} has run out"
            assert display is None or int(fill["quantity"]) <= display, f"{order} shows {fill}"
            self.exchange.sights["tip of an iceberg offered"] += display is not None

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
        life, request = self._life, channel.seal(effect)

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
                    self._step(lambda n: channel.heard(effect, request, text.encode()))
                except OrderBookError as error:
                    reason = str(error)
                    sights[f"answer not believed: {field_of(error)}"] += 1
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

        self.exchange.network.call(
            self.place,
            place,
            request.data.decode(),
            timeout_s=limits.CONFIRM_TIMEOUT_S if isinstance(effect, Confirm) else limits.ANNOUNCE_TIMEOUT_S,
            answered=on_answer,
            failed=on_failure,
        )

    def _look_up(self) -> None:
        self._discovering = False
        places = self.exchange.looked_up()
        self._step(lambda n: n.discovered(places))
        pause = limits.DISCOVERY_S * self.exchange.world.random.uniform(0.9, 1.1)
        self.exchange.world.after(pause, self._alive_then(self._look_up))

    # -- clients ---------------------------------------------------------------------------------------

    def submit(self, new: NewOrder) -> str | None:
        """Returns the order's id, or None where nobody answers or it is refused."""
        if self.negotiator is None:
            return None
        taken: list[Order] = []

        def step(negotiator: Negotiator) -> list[Effect]:
            order, effects = negotiator.submit(new)
            taken.append(order)
            self.exchange.world.log(f"{self.name} takes {order} {order.terms}")
            return effects

        try:
            self._step(step)
        except OrderRefusedError as error:
            self.exchange.sights[f"order refused: {error.code}"] += 1
            return None
        return taken[0].id

    def amend(self, order_id: str, price: int | None, quantity: int | None) -> None:
        if self.negotiator is None:
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
        if self.negotiator is None:
            return
        self.exchange.world.log(f"{self.name} is to cancel {order_id}")
        try:
            self._step(lambda n: n.cancel(order_id)[1])
        except OrderBookError:
            return  # closed, or lost in a crash before anybody was told of it
        assert self._outbox is not None
        self._outbox.promise(lambda: self._tell(order_id))

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

    def proofs_of(self, match_id: str) -> list[Proof]:
        """What its disk has to prove matches of that id."""
        return [
            Proof(event.request, event.answer)
            for event in self.disk.durable
            if isinstance(event, Signed) and event.match_id == match_id
        ]

    # -- what must hold at every step ------------------------------------------------------------------

    def check_leases(self) -> None:
        """I4: a reservation is gone by the first step after its lease."""
        assert self.negotiator is not None
        for reservation in self.negotiator.market.book.reservations.values():
            late = self.clock.monotonic() - reservation.expires
            assert late < 1.0, f"{self.name} still holds {reservation.id}, {late:.3f} s after its lease"


def same_match(one: Event, other: Event) -> bool:
    return isinstance(one, Executed) and isinstance(other, Executed) and one.match_id == other.match_id


def field_of(error: OrderBookError) -> str:
    """The field of a message that ``error`` is about, which its text begins with."""
    return str(error).split()[0].rstrip(":")


def check_priority(negotiator: Negotiator, announced: Any, offer: Any) -> None:
    """I7: nothing that is left open would have come before what was offered."""
    side = Side(announced["side"])
    sign = 1 if side is Side.BUY else -1
    book = negotiator.market.book
    offered = {fill["order_id"] for fill in offer["fills"]}
    last = max(
        (sign * book.orders[id].price, book.orders[id].priority) for id in offered if id in book.orders
    )
    for order in book.orders.values():
        if order.side is not side and order.level is not None and order.id not in offered:
            first = (sign * order.price, order.priority)
            assert first > last, f"{order} comes before what was offered: {offer['fills']}"


class Exchange:
    """All peers of one market, the network between them, and what must hold at the end."""

    def __init__(
        self,
        seed: int,
        peers: int,
        *,
        liars: int = 0,
        faults: NetworkFaults | None = None,
        policy: str = "full-first",
        routings: Sequence[Routing] = (Routing.LOCAL_FIRST,),
        drift: float = 0.0,
        wall_off_s: float = 0.0,
        stale_s: float = 0.0,
        listed: bool = False,
        ed25519: bool = False,
        signs: bool = True,
        trades_in_memory: int = 50,
        calm: bool = False,
    ):
        self.world = World(seed)
        self.trades_in_memory = trades_in_memory
        self.signs = signs
        self.keys = KeyCeremony(seed, ed25519)
        names = [f"p{n}" for n in range(peers)]
        everyone = [*names, *(f"liar{n}" for n in range(liars))]
        self.allowed = {self.keys.signer(name).key: name for name in everyone} if listed else None
        """Whose key is whose, where all peers are told so; else a liar may be the first to use a name."""
        self.healed = False
        self.calm = calm
        """Nothing happens to anybody, but that their clocks are not the same."""
        self.network = SimNetwork(self.world, faults or NetworkFaults())
        self.sights = self.world.sights
        self._stale_s = stale_s
        self._announced: dict[str, float] = {}
        random = self.world.random
        self.peers = {
            name: SimPeer(
                self,
                name,
                random.uniform(-drift, drift),
                random.uniform(-wall_off_s, wall_off_s),
                policy,
                routing,
            )
            for name, routing in zip(names, itertools.cycle(routings))
        }
        for peer in self.peers.values():
            peer.start()
        self.liars = [Liar(self, f"liar{n}") for n in range(liars)]

    # -- discovery -------------------------------------------------------------------------------------

    def announce(self, place: str) -> None:
        self._announced[place] = self.world.now

    def looked_up(self) -> list[str]:
        """Where peers are said to be: with the dead of the last while, and without the newest, when stale."""
        places = self.network.serve
        listed = []
        for place, since in self._announced.items():
            young = self.world.now - since < self._stale_s
            stale = young and self.world.random.random() < 0.5
            self.sights[
                "look-up: a dead peer" if place not in places else "look-up: a live peer missing"
            ] += stale
            if (place in places) != stale:
                listed.append(place)
        return listed

    # -- clients ---------------------------------------------------------------------------------------

    def trade_at_random(
        self,
        orders: int,
        *,
        flow: str = "mixed",
        seconds: float = 4.0,
        cancels: float = 0.25,
        amends: float = 0.2,
    ) -> None:
        """Many small orders of every kind that cross, at random peers, some changed or cancelled at once, in
        flight, or later."""
        random = Random(self.world.random.random())
        names = list(self.peers)

        def place() -> None:
            peer = self.peers[random.choice(names)]
            order_id = peer.submit(FLOWS[flow](random, peer.name, peer.clock.time_ms()))
            if order_id is None:
                return
            if random.random() < amends:
                price = random.choice((None, random.randint(97, 103)))
                quantity = random.randint(1, 12) if price is None or random.random() < 0.5 else None
                pause = random.choice((0.0, 0.01, 0.05, 0.3, 1.0))
                self.world.after(pause, lambda: peer.amend(order_id, price, quantity))
            if random.random() < cancels:
                pause = random.choice((0.0, 0.01, 0.05, 1.0))
                self.world.after(pause, lambda: peer.cancel(order_id))

        for _ in range(orders):
            self.world.after(random.uniform(0.5, 0.5 + seconds), place)

    def crash_at(self, delay_s: float, peer: SimPeer, down_s: float) -> None:
        """``kill -9`` of ``peer`` after ``delay_s``, and a restart ``down_s`` later."""
        self.world.after(delay_s, lambda: self._crash(peer, down_s))

    def leave_at(self, delay_s: float, peer: SimPeer, away_s: float) -> None:
        """``peer`` says goodbye after ``delay_s``, and comes back ``away_s`` later."""

        def leave() -> None:
            if peer.alive and not self.healed:
                peer.leave()
                self.world.after(0.6 + away_s, lambda: None if peer.alive else peer.start())

        self.world.after(delay_s, leave)

    def crash_at_write(self, write: int, peer: SimPeer, down_s: float) -> None:
        """As :meth:`crash_at`, while ``peer`` waits for its ``write``-th write to become durable."""
        left = itertools.count(write, -1)

        def on_append() -> None:
            if next(left) == 0:
                peer.disk.on_append = None
                soon = self.world.random.uniform(0.0, peer.disk.sync_s[1])
                self.world.after(soon, lambda: self._crash(peer, down_s))

        peer.disk.on_append = on_append

    def crash_at_confirmation(self, confirmation: int, peer: SimPeer, down_s: float) -> None:
        """As :meth:`crash_at`, just after ``peer`` has sent its ``confirmation``-th confirmation."""
        left = itertools.count(confirmation, -1)

        def on_confirm() -> None:
            if next(left) == 0:
                self.world.after(self.world.random.uniform(0.0, 0.05), lambda: self._crash(peer, down_s))

        peer.on_confirm = on_confirm

    def _crash(self, peer: SimPeer, down_s: float) -> None:
        if peer.alive and not self.healed:
            peer.crash()
            self.world.after(down_s, lambda: None if peer.alive else peer.start())

    # -- the end ---------------------------------------------------------------------------------------

    def settle(self, seconds: float = 180.0) -> bool:
        """Heal everything and wait until the market is at rest. Returns whether it came to rest."""
        self.world.log("everything heals")
        self.healed = True
        self.network.faults = NetworkFaults()
        self.network.cut.clear()
        self.network.slow.clear()
        self._stale_s = 0.0
        for liar in self.liars:
            liar.leave()
        for peer in self.peers.values():
            if not peer.alive:
                peer.start()
        return self.world.run(seconds, until=self.at_rest)

    def negotiators(self) -> Iterator[Negotiator]:
        return (peer.negotiator for peer in self.peers.values() if peer.negotiator is not None)

    def at_rest(self) -> bool:
        """Nothing under way, in doubt or reserved, no crossed prices (I4, I5)."""
        # Who is in doubt about a liar, which is gone, stays in doubt.
        liars = {liar.key for liar in self.liars}
        busy = any(
            n.under_way != sum(key in liars for _, key in n.makers_in_doubt) or n.market.book.reservations
            for n in self.negotiators()
        )
        unwritten = any(peer.disk.unwritten for peer in self.peers.values())
        return not busy and not unwritten and not self.crossed()

    def crossed(self) -> bool:
        bids = [n.market.book.best(Side.BUY) for n in self.negotiators()]
        asks = [n.market.book.best(Side.SELL) for n in self.negotiators()]
        bid = max((price for price in bids if price is not None), default=None)
        ask = min((price for price in asks if price is not None), default=None)
        return bid is not None and ask is not None and bid >= ask

    def check(self) -> None:
        """I1 to I3 and I6, from outside: on the orders and trades of all peers together."""
        orders: dict[tuple[str, str], Order] = {}
        kept: dict[Trade, list[str]] = {}
        for name, peer in self.peers.items():
            assert peer.negotiator is not None
            ledger = peer.negotiator.market.ledger
            for order in ledger.orders(None, 0, 10**9)[0]:
                check_conservation(order)
                orders[name, order.id] = order
            for trade in peer.trades():
                kept.setdefault(trade, []).append(name)
        filled: Counter[tuple[str, str]] = Counter()
        for trade, keepers in kept.items():
            honest = {trade.maker_peer, trade.taker_peer} & self.peers.keys()
            honest -= {name for keeper in keepers for name in self.impostors(keeper, trade)}
            assert sorted(keepers) == sorted(honest), f"{trade} is kept by {keepers}, not by {honest}"
            maker = orders.get((trade.maker_peer, trade.maker_order_id))
            taker = orders.get((trade.taker_peer, trade.taker_order_id))
            if maker is not None:
                prices = self.prices_of(trade.maker_peer, maker)
                assert trade.price in prices, f"{trade} is not at the price of {maker}"
            if taker is not None and not taker.terms.market:
                prices = self.prices_of(trade.taker_peer, taker)
                inside = any(taker.side.crosses(price, trade.price) for price in prices)
                assert inside, f"{trade} is outside the limit of {taker}"
            if maker is not None and taker is not None:
                assert maker.side is taker.side.opposite, f"{trade}: {maker}, {taker}"
                assert maker.owner != taker.owner, f"{trade} is {taker.owner} with itself"
            for name in honest:
                for id in trade.orders_of(name):
                    filled[name, id] += trade.quantity
        for key, order in orders.items():
            assert order.rests or order.untriggered or not order.open, f"{order} rests, and is not to"
            self.check_terms(key[0], order)
            assert filled[key] == order.filled, f"{order} has trades of {filled[key]}"
        assert filled.keys() <= orders.keys(), "there are trades of no order"
        for name, peer in self.peers.items():
            for told in peer.told.values():
                assert (name, told.order_id) in orders, f"{told}, and it is gone"
                order = orders[name, told.order_id]
                assert order.filled >= told.filled, f"{told}, and now {order}"
                assert not told.cancelled or not order.open, f"{told}, and now {order}"
                if not order.terms.market and (order.price, order.quantity) != (told.price, told.quantity):
                    later = [Amended(order.id, order.price, order.quantity) in peer.disk.durable]
                    assert later == [True], f"{told}, and now {order}"
        self.check_disks()
        if self.signs:
            self.check_proofs()

    def prices_of(self, peer: str, order: Order) -> set[int]:
        """Every price that ``order`` has ever had."""
        events = self.peers[peer].disk.durable
        return {e.price for e in events if isinstance(e, Accepted | Amended) and e.order_id == order.id}

    def check_terms(self, name: str, order: Order) -> None:
        """What the instructions of an order at the peer ``name`` promise, once the market is at rest."""
        terms, clock = order.terms, self.peers[name].clock
        self.sights["post-only order yielded"] += order.reason == "post_only"
        if terms.time_in_force is TimeInForce.FOK and not order.live and 0 < order.filled < order.quantity:
            self.sights[f"fill-or-kill in part: {order.reason}"] += 1
            known = order.reason in ("broken", "requested", "self_trade")
            assert known, f"{order} is filled in part, and says {order.reason}"
            calm = self.calm and order.reason == "broken"
            assert not calm, f"{order} is broken, and nothing had happened to anybody"
        if terms.expires_ms is not None and order.live:
            late_ms = clock.time_ms() - terms.expires_ms
            assert late_ms < 2000 or not order.open, f"{order} is open, {late_ms} ms after its end"
        if terms.stop_price is not None and order.filled:
            events = self.peers[name].disk.durable
            assert Triggered(order.id) in events, f"{order} has traded before it came alive"

    def check_proofs(self) -> None:
        """Each peer can prove each of its cross-peer trades with what is on its disk alone."""
        for name, peer in self.peers.items():
            assert peer.negotiator is not None
            market = peer.negotiator.market
            for trade in peer.trades():
                if trade.cross_peer:
                    proofs = [check(proof, self.keys.verify) for proof in peer.proofs_of(trade.match_id)]
                    proven = any(market.record(trade) in proof.trades for proof in proofs)
                    assert proven, f"{name} can't prove {trade}"

    def impostors(self, keeper: str, trade: Trade) -> list[str]:
        """Names of peers under which ``keeper`` has traded with a liar that used them before their owners."""
        if self.allowed is not None:
            return []
        liars = {liar.key for liar in self.liars}
        proven = [agree(proof) for proof in self.peers[keeper].proofs_of(trade.match_id)]
        parties = [party for proof in proven for party in (proof.maker, proof.taker)]
        names = (trade.maker_peer, trade.taker_peer)
        return [party.name for party in parties if party.key in liars and party.name in names]

    def check_disks(self) -> None:
        """What a restart would make of each journal is what its peer holds now."""
        for peer in self.peers.values():
            assert peer.negotiator is not None
            recovered = Recovered(peer.name, INSTRUMENT.market).apply(peer.disk.durable).finish()
            ledger = peer.negotiator.market.ledger
            live = {order.id: facts(order) for order in ledger.orders(None, 0, 10**9)[0]}
            assert {id: facts(order) for id, order in recovered.orders.items()} == live
            snapshot = Recovered(peer.name, INSTRUMENT.market)
            snapshot.load(recovered.to_plain())
            assert {id: facts(order) for id, order in snapshot.finish().orders.items()} == live
            assert recovered.last_price == peer.negotiator.market.book.last_price == snapshot.last_price
            trades = peer.trades()
            assert ledger.trade_count == recovered.trade_count == len(trades)
            assert ledger.trades(ledger.dropped, 10**9) == trades[ledger.dropped :]

    @property
    def cross_peer_trades(self) -> int:
        return sum(n.market.ledger.cross_peer_trades for n in self.negotiators()) // 2


def check_conservation(order: Order) -> None:
    parts = (order.open, order.reserved, order.filled, order.cancelled)
    assert min(parts) >= 0, order
    assert sum(parts) == order.quantity, order


def facts(order: Order) -> tuple[object, ...]:
    """All that a restart must know of an order."""
    price = 0 if order.terms.market else order.price
    # One that waits for an answer holds what is open of it, and does so again after a restart.
    live = (order.open, order.reserved) if order.rests else order.open + order.reserved
    return (
        price,
        order.quantity,
        live,
        order.filled,
        order.cancelled,
        order.terms,
        order.status,
        order.reason,
        order.time_ms,
    )

"""A market of peers in a simulated world: who finds whom, what clients do, what goes wrong, how it ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from orderbook.model import Side
from orderbook.negotiation import Negotiator
from orderbook.signing.proofs import Proof
from orderbook.terms import Routing, TimeInForce
from tests.simulation.flows import FLOWS
from tests.simulation.heirs import Heir
from tests.simulation.liars import Liar
from tests.simulation.peers import SimPeer
from tests.simulation.signing import KeyCeremony
from tests.simulation.world import NetworkFaults, SimNetwork, World


class Exchange:
    """All peers of one market, and the network between them."""

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
        sessions: bool = False,
        trades_in_memory: int = 50,
        calm: bool = False,
    ):
        self.seed = seed
        self.world = World(seed)
        self.trades_in_memory = trades_in_memory
        self.signs = signs
        self.sessions = sessions
        """Whether peers open sessions with each other."""
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
        self.twins: list[SimPeer] = []
        self.listeners: list[Callable[[str, Any], None]] = []
        """Told of every confirmation, and of the place where it goes: nothing is encrypted."""
        self.claims: list[Proof] = []
        """What liars and heirs have asked makers to execute, and what these have answered."""
        self.liars = [Liar(self, f"liar{n}") for n in range(liars)]
        self.heirs: list[Heir] = []

    def add_twin(self, peer: SimPeer) -> SimPeer:
        """Another process with the name and key of ``peer``, and with a journal of its own; not started."""
        twin = SimPeer(self, peer.name, 0.0, 0.0, peer.policy, peer.routing, f"{peer.name}-twin")
        self.twins.append(twin)
        return twin

    @property
    def processes(self) -> list[SimPeer]:
        """All peers, and their twins."""
        return [*self.peers.values(), *self.twins]

    def called(self, name: str) -> list[SimPeer]:
        """All processes of that name."""
        return [peer for peer in self.processes if peer.name == name]

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
            if self.twins:
                peer = random.choice(self.called(peer.name))
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
            if peer.alive and not peer.stands_still and not self.healed:
                peer.leave()
                self.world.after(0.6 + away_s, lambda: None if peer.alive else peer.start())

        self.world.after(delay_s, leave)

    def stand_still_at(self, delay_s: float, peer: SimPeer, seconds: float) -> None:
        """``peer`` does nothing for so many seconds: its machine is busy, or moved elsewhere."""
        self.world.after(
            delay_s, lambda: peer.stand_still(seconds) if peer.alive and not self.healed else None
        )

    def stand_still_at_offer(self, offer: int, peer: SimPeer, seconds: float) -> None:
        """As :meth:`stand_still_at`, just after ``peer`` has made its ``offer``-th offer."""
        left = itertools.count(offer, -1)

        def on_reserve() -> None:
            if next(left) == 0 and not self.healed:
                peer.stand_still(seconds)

        peer.on_reserve = on_reserve

    def crash_at_offer(self, offer: int, peer: SimPeer, down_s: float) -> None:
        """As :meth:`crash_at`, soon after ``peer`` has made an offer, executed by then or not."""
        left = itertools.count(offer, -1)

        def on_reserve() -> None:
            if next(left) == 0:
                self.world.after(self.world.random.uniform(0.0, 0.05), lambda: self._crash(peer, down_s))

        peer.on_reserve = on_reserve

    def close_at(self, delay_s: float, peer: SimPeer, state: str, closed_s: float) -> None:
        """An operator takes the market of ``peer`` to ``state``, and opens it ``closed_s`` later."""

        def close() -> None:
            if not self.healed:
                peer.set_state(state)
                self.world.after(closed_s, lambda: peer.set_state("open"))

        self.world.after(delay_s, close)

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

    def is_fill_or_kill(self, name: str, order_id: str) -> bool:
        """Whether that order of that peer is one; what can't be asked is none."""
        peer = self.peers.get(name)
        ledger = None if peer is None or peer.negotiator is None else peer.negotiator.market.ledger
        if ledger is None or not ledger.knows(order_id):
            return False
        return ledger.order(order_id).terms.time_in_force is TimeInForce.FOK

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
        for heir in self.heirs:
            heir.leave()
        for peer in self.processes:
            if not peer.alive:
                peer.start()
            peer.set_state("open")
        for twin in self.twins:
            twin.cancel_all()  # one name's orders can't meet each other
        return self.world.run(seconds, until=self.at_rest)

    def negotiators(self) -> Iterator[Negotiator]:
        return (peer.negotiator for peer in self.processes if peer.negotiator is not None)

    def at_rest(self) -> bool:
        """Nothing under way, in doubt or reserved, no crossed prices (I4, I5)."""
        # Who is in doubt about a liar, which is gone, stays in doubt.
        liars = {liar.key for liar in self.liars}
        busy = any(
            n.under_way != sum(key in liars for _, key in n.makers_in_doubt) or n.market.book.reservations
            for n in self.negotiators()
        )
        unwritten = any(peer.disk.unwritten or peer.is_behind for peer in self.processes)
        return not busy and not unwritten and not self.crossed()

    def crossed(self) -> bool:
        bids = [n.market.book.best(Side.BUY) for n in self.negotiators()]
        asks = [n.market.book.best(Side.SELL) for n in self.negotiators()]
        bid = max((price for price in bids if price is not None), default=None)
        ask = min((price for price in asks if price is not None), default=None)
        return bid is not None and ask is not None and bid >= ask

    @property
    def cross_peer_trades(self) -> int:
        return sum(n.market.ledger.cross_peer_trades for n in self.negotiators()) // 2

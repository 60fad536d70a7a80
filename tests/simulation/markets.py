"""Peers of one market in one process, on virtual time and an in-memory network; one seed decides everything.

The same negotiation code as in a real worker: only the clock, the ids, the random source and the way messages
travel are ours. Messages are delayed at random, so they overtake each other; a call can be lost on its way
there or on its way back, or arrive twice.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from orderbook.effects import Announce, Beat, Confirm, Effect, Release
from orderbook.errors import OrderBookError
from orderbook.market import Market
from orderbook.model import Instrument, Order, Side
from orderbook.negotiation import Negotiator, NewOrder
from orderbook.selection import POLICIES

INSTRUMENT = Instrument("SIM", tick="1", lot="1")
CALL_TIMEOUT_S = 1.0


class VirtualClock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time_ms(self) -> int:
        return int(self.now * 1000)


@dataclass(frozen=True)
class Faults:
    """Probabilities per message, and the delay of one in seconds."""

    lost: float = 0.0
    repeated: float = 0.0
    delay_s: tuple[float, float] = (0.001, 0.05)


class Network:
    """Negotiators ``p0``, ``p1``, … and the messages between them."""

    def __init__(self, seed: int, peers: int, faults: Faults | None = None, policy: str = "full-first"):
        self.random = Random(seed)
        self.faults = faults or Faults()
        self.clock = VirtualClock()
        self.peers: dict[str, Negotiator] = {}
        self.calls = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        names = [f"p{n}" for n in range(peers)]
        for name in names:
            ids = itertools.count()
            market = Market(
                name,
                INSTRUMENT,
                clock=self.clock,
                new_id=lambda name=name, ids=ids: f"{name}-{next(ids)}",  # type: ignore[misc]
                random=Random(self.random.random()),
                policy=POLICIES[policy],
            )
            self.peers[name] = Negotiator(market)
            market.roster.discovered(names)  # ourselves too, as look-ups do
            self._wake(name)

    # -- time ---------------------------------------------------------------------------------------------

    def at(self, delay_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.clock.now + delay_s, next(self._count), event))

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> bool:
        """Let ``seconds`` of virtual time pass, or less when ``until`` holds. Returns whether it does."""
        end = self.clock.now + seconds
        while self._events and self._events[0][0] <= end:
            if until():
                return True
            time, _, event = heapq.heappop(self._events)
            self.clock.now = max(self.clock.now, time)
            event()
        self.clock.now = end
        return until()

    def _wake(self, name: str) -> None:
        due = self.peers[name].next_due()
        assert due is not None, "the heartbeat is always due"

        def tick() -> None:
            self.carry_out(name, self.peers[name].tick())
            self._wake(name)

        self.at(max(0.0, due - self.clock.now) + 0.001, tick)

    # -- messages -----------------------------------------------------------------------------------------

    def carry_out(self, name: str, effects: list[Effect]) -> None:
        peer = self.peers[name]
        peer.check()
        for effect in effects:
            if isinstance(effect, Announce):
                where = (effect.order_id, effect.round, effect.destination)
                self._call(
                    name,
                    effect.destination,
                    effect.payload,
                    lambda answer, where=where: peer.offer_answered(*where, answer),  # type: ignore[misc]
                    lambda where=where: peer.offer_failed(*where),  # type: ignore[misc]
                )
            elif isinstance(effect, Confirm):
                id = effect.match_id
                self._call(
                    name,
                    effect.destination,
                    effect.payload,
                    lambda answer, id=id: peer.match_answered(id, answer),  # type: ignore[misc]
                    lambda id=id: peer.match_failed(id),  # type: ignore[misc]
                )
            elif isinstance(effect, Release):
                self._call(name, effect.destination, effect.payload, lambda answer: [], list)
            elif isinstance(effect, Beat):
                to = effect.destination
                self._call(
                    name,
                    to,
                    effect.payload,
                    lambda answer, to=to: peer.heartbeat_answered(to, answer),  # type: ignore[misc]
                    list,
                )

    def _call(
        self,
        caller: str,
        destination: str,
        payload: Any,
        answered: Callable[[Any], list[Effect]],
        failed: Callable[[], list[Effect]],
    ) -> None:
        """Carry a request there and its answer back; after a time without one the call has failed."""
        self.calls += 1
        over = False
        frame = json.dumps(payload)  # nothing is shared but bytes

        def arrive() -> None:
            try:
                answer, effects = self.peers[destination].handle(json.loads(frame))
            except OrderBookError:
                return  # the caller sees an error, here the same as none
            # An own broadcast is answered by null: the name tells it apart in a heartbeat.
            if destination == caller and payload["type"] == "Heartbeat":
                answer = {"sequence": 0, "from": caller}
            self.carry_out(destination, effects)
            reply = json.dumps(answer)
            if not self._lost():
                self.at(self._delay(), lambda: end(lambda: answered(json.loads(reply))))

        def end(tell: Callable[[], list[Effect]]) -> None:
            nonlocal over
            if not over:
                over = True
                self.carry_out(caller, tell())

        for _ in range(1 + (self.random.random() < self.faults.repeated)):
            if not self._lost():
                self.at(self._delay(), arrive)
        self.at(CALL_TIMEOUT_S, lambda: end(failed))

    def _lost(self) -> bool:
        return self.random.random() < self.faults.lost

    def _delay(self) -> float:
        return self.random.uniform(*self.faults.delay_s)

    # -- clients ------------------------------------------------------------------------------------------

    def submit(self, name: str, side: str, price: int, quantity: int, owner: str | None = None) -> Order:
        order, effects = self.peers[name].submit(
            NewOrder(side, str(price), str(quantity), owner or f"owner{next(self._count)}")
        )
        self.carry_out(name, effects)
        return order

    def cancel(self, name: str, order_id: str) -> None:
        try:
            _, effects = self.peers[name].cancel(order_id)
        except OrderBookError:
            return  # it has closed meanwhile
        self.carry_out(name, effects)

    # -- what must hold -------------------------------------------------------------------------------------

    def quiet(self) -> bool:
        """No order under way, no reservation, no crossed prices anywhere."""
        return (
            all(not p.under_way and not p.market.book.reservations for p in self.peers.values())
            and not self.crossed()
        )

    def crossed(self) -> bool:
        bids = [p.market.book.best(Side.BUY) for p in self.peers.values()]
        asks = [p.market.book.best(Side.SELL) for p in self.peers.values()]
        bid = max((b for b in bids if b is not None), default=None)
        ask = min((a for a in asks if a is not None), default=None)
        return bid is not None and ask is not None and bid >= ask

    def check(self) -> None:
        """I1 to I3 from outside: on the orders and trades of all peers together."""
        orders: dict[str, Order] = {}
        records: dict[tuple[str, str, str], list[tuple[str, tuple[object, ...]]]] = {}
        filled: dict[str, int] = {}
        for name, peer in self.peers.items():
            peer.check()
            for order in peer.market.ledger.orders(None, 0, 10**9)[0]:
                parts = (order.open, order.reserved, order.filled, order.cancelled)
                assert min(parts) >= 0, order
                assert sum(parts) == order.quantity, order
                orders[order.id] = order
            for trade in peer.market.ledger.trades(0, 10**9)[0]:
                key = (trade.match_id, trade.maker_order_id, trade.taker_order_id)
                records.setdefault(key, []).append((name, (trade.price, trade.quantity, trade.time_ms)))
        for (match_id, maker_id, taker_id), kept in records.items():
            maker, taker = orders[maker_id], orders[taker_id]
            assert len({record for _, record in kept}) == 1, f"the sides of {match_id} disagree: {kept}"
            price, quantity, _ = kept[0][1]
            assert price == maker.price, f"{match_id} is not at the maker's price"
            assert taker.side is maker.side.opposite
            assert taker.side.crosses(taker.price, maker.price), f"{match_id} is outside the taker's limit"
            assert taker.owner != maker.owner, f"{match_id} is with itself"
            if maker_id.split("-")[0] != taker_id.split("-")[0]:
                sides = sorted(name for name, _ in kept)
                expected = sorted((maker_id.split("-")[0], taker_id.split("-")[0]))
                assert sides == expected, f"{match_id} is kept by {sides} only, not {expected}"
            else:
                assert len(kept) == 1, f"local trade {match_id} is kept twice: {kept}"
            for id in (maker_id, taker_id):
                filled[id] = filled.get(id, 0) + int(str(quantity))
        for id, order in orders.items():
            assert filled.get(id, 0) == order.filled, f"{order} has trades of {filled.get(id, 0)}"

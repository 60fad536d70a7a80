"""Many DHT nodes in one process on virtual time: a seed gives the same run every time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from random import Random
from typing import Any

from grenache_py.dht.krpc import Address
from grenache_py.dht.node import DhtNode
from grenache_py.dht.settings import DhtSettings


class Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Network:
    """Delivers datagrams late, or not at all, between nodes at made-up addresses."""

    def __init__(self, seed: int = 1, *, loss: float = 0.0) -> None:
        self.now = 1000.0
        self.loss = loss
        self.random = Random(seed)
        self.nodes: dict[Address, DhtNode] = {}
        self.datagrams = 0
        self.largest = 0
        #: datagrams between these two sets of addresses are lost
        self.partition: tuple[set[Address], set[Address]] = (set(), set())
        #: datagrams to these nodes are lost when they have this in them
        self.lost: dict[Address, bytes] = {}
        self.events: list[tuple[Address, str, Any]] = []
        self._due: list[tuple[float, int, Timer]] = []
        self._order = count()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._due, (self.now + delay_s, next(self._order), timer))
        return timer

    def run(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._due)
            if timer.callback is not None:
                timer.callback()
        self.now = end

    def until(self, check: Callable[[], Any], within_s: float = 60.0) -> float:
        """Let time pass until ``check``; returns how long that took."""
        began = self.now
        while not check():
            assert self.now - began < within_s, "did not happen in time"
            self.run(0.005)
        return self.now - began

    def address(self, number: int) -> Address:
        return f"10.0.{number >> 8}.{number & 255}", 20001

    def add(
        self, number: int, bootstrap: Sequence[int] = (), *, node_id: bytes | None = None, **settings: Any
    ) -> DhtNode:
        """Start a node at the address of that number; whoever was there before is gone."""
        address = self.address(number)
        self.remove(number)
        random = Random(self.random.random())
        node = DhtNode(
            send=lambda datagram, to: self._send(datagram, address, to),
            clock=lambda: self.now,
            call_later=self.call_later,
            random=random,
            random_bytes=random.randbytes,
            node_id=node_id,
            settings=DhtSettings(**settings),
            emit=lambda event, argument: self.events.append((address, event, argument)),
        )
        self.nodes[address] = node
        node.start([self.address(other) for other in bootstrap])
        return node

    def remove(self, number: int) -> None:
        """The node dies without a word."""
        node = self.nodes.pop(self.address(number), None)
        if node is not None:
            node.stop()

    def grow(self, size: int, **settings: Any) -> list[DhtNode]:
        """So many nodes, each joined through the first, after some seconds."""
        nodes = []
        for number in range(1, size + 1):
            nodes.append(self.add(number, [1] if number > 1 else [], **settings))
            self.run(0.02)
        self.run(3.0)
        return nodes

    def check(self) -> None:
        """Assert the invariants of every node."""
        for node in self.nodes.values():
            node.routing.check()
            node.peers.check()
            node._transactions.check()

    def _send(self, datagram: bytes, sender: Address, to: Address) -> None:
        self.datagrams += 1
        self.largest = max(self.largest, len(datagram))
        one, other = self.partition
        if (sender in one and to in other) or (sender in other and to in one):
            return
        if self.random.random() < self.loss or (to in self.lost and self.lost[to] in datagram):
            return

        def deliver() -> None:
            if to in self.nodes:
                self.nodes[to].receive(datagram, sender)

        self.call_later(self.random.uniform(0.001, 0.02), deliver)

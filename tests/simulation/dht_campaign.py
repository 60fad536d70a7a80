"""Networks of many DHT nodes on virtual time: what is announced is found, at what cost, and how that grows.

    python -m tests.simulation.dht_campaign --sizes 50,100,200,500,1000 --services 500 --seed 1

In each network, services are announced at random nodes and then looked up at others: without faults, with
5 % of all datagrams lost, and right after 10 % and 30 % of the nodes died without a word. It prints

- found: the share of look-ups that found the service,
- hops: from the asker to the first node that knew the service, on average and at most,
- queries: asked for one look-up, on average (as many replies come back),
- seconds: virtual time of a look-up, median and the slowest of a hundred; one way takes 1 to 20 ms.

It ends with status 1 when a goal is missed: 99.9 % found without faults and 99 % with them, and queries that
grow no faster than the logarithm of the size.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from random import Random
from statistics import mean, median
from typing import Any
from unittest import mock

from grenache_py.dht.krpc import Address
from grenache_py.dht.lookup import Candidate, PeerWalk
from grenache_py.dht.routing import Contact
from tests.simulation.dht_network import Network

FOUND_MIN = 0.999
FOUND_WITH_FAULTS_MIN = 0.99
# Look-ups begin so far apart: many are under way at once, as in life.
_PAUSE_S = 0.01


@dataclass
class Measured:
    """The outcomes of the look-ups of one scenario."""

    size: int
    scenario: str
    found: list[bool] = field(default_factory=list)
    hops: list[int] = field(default_factory=list)
    queries: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def share_found(self) -> float:
        return mean(self.found)

    def row(self) -> str:
        slow = sorted(self.seconds)[int(0.99 * len(self.seconds))]
        hops = f"{mean(self.hops):5.2f} {max(self.hops):3}" if self.hops else "    -   -"
        return (
            f"{self.size:6} {self.scenario:10} {100 * self.share_found:7.2f} % {hops} "
            f"{mean(self.queries):8.1f} {median(self.seconds):8.3f} {slow:7.3f}"
        )


HEAD = (
    f"{'nodes':>6} {'faults':10} {'found':>9} {'hops':>5} {'max':>3} {'queries':>8} {'seconds':>8} {'p99':>7}"
)


class MeasuredWalk(PeerWalk):
    """Keeps how far from the asker each candidate is."""

    __slots__ = ("asked", "depths", "found_at", "parent")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        ask = self._ask
        self.asked = 0
        self.parent = 0
        self.found_at: int | None = None
        self.depths: dict[Address, int] = {}

        def counting(walk: Any, candidate: Candidate) -> None:
            self.asked += 1
            ask(walk, candidate)

        self._ask = counting

    def seed(self, contacts: list[Contact]) -> None:
        self.depths = dict.fromkeys([contact.address for contact in contacts], 1)
        super().seed(contacts)

    def add(self, node_id: bytes | None, address: Address) -> None:
        self.depths.setdefault(address, self.parent + 1)
        super().add(node_id, address)

    def answered(self, candidate: Candidate, node_id: bytes, reply: Any) -> None:
        self.parent = self.depths[candidate.address]
        if self.found_at is None and reply.get(b"values"):
            self.found_at = self.parent
        super().answered(candidate, node_id, reply)


def measured_walks() -> AbstractContextManager[object]:
    """Nodes make MeasuredWalks meanwhile."""
    return mock.patch("grenache_py.dht.walks.PeerWalk", MeasuredWalk)


class Campaign:
    """One network, grown once, and the scenarios in it."""

    def __init__(self, size: int, services: int, seed: int) -> None:
        self.size = size
        self.services = services
        self.random = Random(seed)
        self.network = Network(seed)
        self._round = 0
        for number in range(1, size + 1):
            self.network.add(number, [self.random.randint(1, number - 1)] if number > 1 else [])
            self.network.run(0.05)
        self.network.run(30.0)

    def scenario(self, name: str, *, loss: float = 0.0, dead: float = 0.0) -> Measured:
        """Announce, let the faults happen, and look everything up once."""
        network, random = self.network, self.random
        measured = Measured(self.size, name)
        self._round += 1
        network.loss = loss
        alive = sorted(network.nodes)
        names = [b"service:%d:%d" % (self._round, number) for number in range(self.services)]
        announced: list[Any] = []
        for each in names:
            network.nodes[random.choice(alive)].announce(each, 6001, announced.append)
            network.run(_PAUSE_S)
        network.until(lambda: len(announced) == len(names))
        numbers = random.sample(range(1, self.size + 1), round(dead * self.size))
        gone = [(number, network.nodes[network.address(number)].node_id) for number in numbers]
        for number, _ in gone:
            network.remove(number)
        alive = sorted(network.nodes)
        with measured_walks():
            for each in names:
                self._look_up(network.nodes[random.choice(alive)], each, measured)
                network.run(_PAUSE_S)
            network.until(lambda: len(measured.found) == len(names))
        network.loss = 0.0
        for number, node_id in gone:
            network.add(number, [int(alive[0][0].split(".")[3])], node_id=node_id)
        network.run(30.0 if gone else 1.0)
        return measured

    def _look_up(self, node: Any, name: bytes, measured: Measured) -> None:
        began = self.network.now

        def done(peers: list[bytes]) -> None:
            measured.found.append(bool(peers))
            measured.seconds.append(self.network.now - began)

        node.lookup(name, done)
        walk = next((walk for walk in node._walks._under_way if walk.target == name), None)
        if walk is None:
            return  # it knew nobody to ask

        def walked(walk: MeasuredWalk) -> None:
            measured.queries.append(walk.asked)
            if walk.found_at is not None:
                measured.hops.append(walk.found_at)

        node._walks._under_way[walk].append(walked)

    def run(self) -> list[Measured]:
        return [
            self.scenario("none"),
            self.scenario("5 % loss", loss=0.05),
            self.scenario("10 % dead", dead=0.1),
            self.scenario("30 % dead", dead=0.3),
        ]


def missed(results: list[Measured]) -> list[str]:
    """The goals that were not reached, in words."""
    told = []
    for result in results:
        least = FOUND_MIN if result.scenario == "none" else FOUND_WITH_FAULTS_MIN
        if result.share_found < least:
            told.append(f"{result.size} nodes, {result.scenario}: {100 * result.share_found:.2f} % found")
    smallest, largest = results[0], results[-4]
    growth = mean(largest.queries) / mean(smallest.queries)
    allowed = math.log(largest.size) / math.log(smallest.size)
    if growth > allowed:
        told.append(
            f"queries grow by {growth:.2f} from {smallest.size} to {largest.size} nodes, not {allowed:.2f}"
        )
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description="Look-ups in DHTs of many nodes, on virtual time.")
    parser.add_argument("--sizes", default="50,100,200,500,1000", help="nodes, separated by commas")
    parser.add_argument("--services", type=int, default=500, help="announces and look-ups per scenario")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    results: list[Measured] = []
    print(HEAD)
    for size in map(int, options.sizes.split(",")):
        began = time.perf_counter()
        for result in Campaign(size, options.services, options.seed).run():
            print(result.row(), flush=True)
            results.append(result)
        print(f"{size:6} took {time.perf_counter() - began:.0f} s", file=sys.stderr)
    for text in (problems := missed(results)):
        print(f"missed: {text}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

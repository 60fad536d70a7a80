"""Whole markets on virtual time, many seeds: nothing is lost or doubled, and a quiet network is uncrossed."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from orderbook.selection import POLICIES
from tests.simulation.markets import Faults, Network

FAULTS = {
    "none": Faults(),
    "slow": Faults(delay_s=(0.001, 0.7)),
    "loss": Faults(lost=0.1),
    "repeats": Faults(repeated=0.3, delay_s=(0.001, 0.3)),
    "all": Faults(lost=0.05, repeated=0.1, delay_s=(0.001, 0.8)),
}


def trade_at_random(network: Network, orders: int) -> None:
    """Many small crossing orders at random peers within a few seconds, some cancelled at once or later."""
    random = Random(network.random.random())
    names = list(network.peers)

    def place() -> None:
        name = random.choice(names)
        order = network.submit(
            name,
            random.choice(("buy", "sell")),
            random.randint(95, 105),
            random.randint(1, 20),
            owner=f"o{random.randrange(8)}-{name}",
        )
        if random.random() < 0.3:
            network.at(random.choice((0.0, 0.01, 2.0)), lambda: network.cancel(name, order.id))

    for _ in range(orders):
        network.at(random.uniform(2.0, 6.0), place)


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost_or_doubled_and_quiet_networks_are_uncrossed(seed: int, faults: str) -> None:
    policy = list(POLICIES)[seed % len(POLICIES)]
    network = Network(seed, peers=2 + seed % 4, faults=FAULTS[faults], policy=policy)
    trade_at_random(network, 120)
    network.run(8.0)
    network.faults = replace(network.faults, lost=0.0, repeated=0.0)
    assert network.run(120.0, until=network.quiet), "the healed network did not come to rest uncrossed"
    network.check()
    trades = sum(p.market.ledger.cross_peer_trades for p in network.peers.values())
    assert trades > 0, "the seed tests nothing: no cross-peer trade"

"""Situations that other systems of this shape got wrong, each set up on purpose in the simulated network.

``docs/protocol.md`` names the cases. What ends such a run is ``check_market``, from outside.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import partial

import pytest

from orderbook import limits
from orderbook.entry import NewOrder
from orderbook.maker import Standing
from orderbook.model import Order
from orderbook.negotiation import Negotiator
from orderbook.terms import Routing
from tests.simulation.checks import check_market
from tests.simulation.markets import Exchange
from tests.simulation.peers import SimPeer

SEEDS = range(20)


def place(peer: SimPeer, side: str, price: int, quantity: int) -> str:
    order_id = peer.submit(NewOrder(side, str(price), str(quantity), f"{side}-{peer.name}"))
    assert order_id is not None
    return order_id


def order_at(peer: SimPeer, order_id: str) -> Order:
    assert peer.negotiator is not None
    return peer.negotiator.market.ledger.order(order_id)


def cut_off(exchange: Exchange, some: Iterable[str]) -> None:
    """Nothing travels between ``some`` peers and the others."""
    inside = set(some)
    for pair in itertools.permutations(exchange.peers, 2):
        if (pair[0] in inside) != (pair[1] in inside):
            exchange.network.cut.add(pair)


@pytest.mark.parametrize("seed", SEEDS)
def test_crossing_orders_placed_in_one_instant_meet(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """xud 391 and 713: both sides thought that they were the maker, and nothing traded."""
    monkeypatch.setattr(Negotiator, "_compare", lambda *_: [])  # they don't need a heartbeat for it
    exchange = Exchange(seed, 2)
    exchange.world.run(2.0)
    buyer, seller = exchange.peers.values()
    bought, sold = place(buyer, "buy", 100, 5), place(seller, "sell", 100, 5)
    assert exchange.world.run(10.0, until=exchange.at_rest)
    check_market(exchange)
    assert order_at(buyer, bought).filled == order_at(seller, sold).filled == 5
    assert exchange.cross_peer_trades == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_books_that_were_crossed_before_two_peers_met_do_not_stay_so(seed: int) -> None:
    """opendex.network 27; a late joiner needs no copy of anybody's book either."""
    exchange = Exchange(seed, 3)
    cut_off(exchange, ["p2"])
    exchange.world.run(0.5)
    early, _, late = exchange.peers.values()
    bought, sold = place(early, "buy", 101, 5), place(late, "sell", 100, 7)
    assert not exchange.world.run(3.0, until=lambda: bool(exchange.cross_peer_trades))
    exchange.network.cut.clear()
    assert exchange.world.run(30.0, until=exchange.at_rest)
    check_market(exchange)
    assert (order_at(early, bought).filled, order_at(late, sold).filled) == (5, 5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_split_network_heals(seed: int) -> None:
    """Komodo 1081: books went apart when the network split."""
    exchange = Exchange(seed, 4)
    exchange.world.run(2.0)
    cut_off(exchange, ["p0", "p1"])
    exchange.trade_at_random(30, seconds=8.0)
    exchange.world.run(9.0)
    assert exchange.settle()
    check_market(exchange)
    assert exchange.world.run(
        10.0, until=lambda: all(len(n.market.roster.trading()) == 3 for n in exchange.negotiators())
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_clocks_that_are_off_and_drift_fail_no_trade(seed: int) -> None:
    """Komodo 1115: clock skew failed trades. Leases count on the maker's clock alone."""
    off_s = limits.SIGNED_WINDOW_S / 2 - 2.0
    exchange = Exchange(seed, 3, drift=0.05, wall_off_s=off_s, calm=True)
    exchange.world.run(2.0)
    buyer, seller, _ = exchange.peers.values()
    sold, bought = place(seller, "sell", 100, 5), place(buyer, "buy", 100, 5)
    assert exchange.world.run(10.0, until=exchange.at_rest)
    check_market(exchange)
    assert order_at(buyer, bought).filled == order_at(seller, sold).filled == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_clocks_that_are_set_back_an_hour_and_right_again_lose_nothing(seed: int) -> None:
    """Where all sign, who has a wrong time of day is not traded with; all else goes on."""
    exchange = Exchange(seed, 3, signs=seed % 4 > 0, sessions=seed % 4 > 1)
    exchange.trade_at_random(40, flow=("mixed", "fill-or-kill", "quotes")[seed % 3])
    for late, peer in enumerate(exchange.peers.values()):
        wrong_s = (-3_600.0, 3_600.0)[seed % 2]
        exchange.world.after(1.0 + late, partial(peer.clock.set_ahead, wrong_s))
        exchange.world.after(6.0 - late, partial(peer.clock.set_ahead, -wrong_s))
    exchange.world.run(7.0)
    assert exchange.settle()
    check_market(exchange)


@pytest.mark.parametrize("seed", SEEDS)
def test_orders_of_a_dead_peer_are_gone_with_it_and_back_with_it(seed: int) -> None:
    """Nobody keeps another's orders, so none can be a ghost; the owner brings them back."""
    exchange = Exchange(seed, 2)
    exchange.world.run(2.0)
    buyer, seller = exchange.peers.values()
    sold = place(seller, "sell", 100, 5)
    exchange.world.run(0.5)
    seller.crash()
    bought = place(buyer, "buy", 100, 3)
    exchange.world.run(3.0)
    assert order_at(buyer, bought).filled == 0
    seller.start()
    assert exchange.world.run(30.0, until=lambda: order_at(buyer, bought).filled == 3)
    assert exchange.world.run(10.0, until=exchange.at_rest)
    check_market(exchange)
    assert order_at(seller, sold).filled == 3


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("taken_back", [False, True])
def test_a_maker_that_dies_in_the_middle_breaks_a_fill_or_kill_order_only_if_nobody_has_the_rest(
    seed: int, taken_back: bool
) -> None:
    """One maker has executed, the other one crashes before it is asked, and its lock is gone."""
    exchange = Exchange(seed, 3, routings=[Routing.LOCAL_FIRST, Routing.BEST_PRICE])
    exchange.world.run(2.0)
    taker, *makers = exchange.peers.values()
    resting = [(maker, place(maker, "sell", 100, 3)) for maker in makers]
    exchange.world.run(1.0)
    confirmed = itertools.count(1)

    def other_maker_dies() -> None:
        if next(confirmed) == 2:
            ((maker, order_id),) = [(m, id) for m, id in resting if not order_at(m, id).filled]
            maker.crash()
            maker.start()
            if taken_back:
                maker.cancel(order_id)

    taker.on_confirm = other_maker_dies
    order_id = taker.submit(NewOrder("buy", "100", "6", "bob", time_in_force="fok"))
    assert order_id is not None
    assert exchange.world.run(20.0, until=lambda: not order_at(taker, order_id).live)
    assert exchange.world.run(20.0, until=exchange.at_rest)
    exchange.calm = False
    check_market(exchange)
    order = order_at(taker, order_id)
    if taken_back:
        assert (order.filled, order.cancelled, order.reason) == (3, 3, "broken")
    else:
        assert (order.filled, order.reason) == (6, None)
    assert taker.told[order_id].filled in (3, order.filled), "what its client was told was true then"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fill_or_kill_order_takes_the_shortest_lease_first_so_that_it_does_not_run_out(seed: int) -> None:
    """One maker gives a short lease, and takes its order back meanwhile; the other one answers slowly."""
    exchange = Exchange(seed, 3)
    exchange.world.run(2.0)
    taker, brief, slow = exchange.peers.values()
    sold, _ = place(brief, "sell", 100, 3), place(slow, "sell", 101, 3)
    exchange.world.run(1.0)
    standing = Standing()
    standing.wasted, standing.last_wasted = limits.LEASES_WASTED - 1, brief.clock.monotonic()
    assert brief.negotiator is not None
    brief.negotiator._maker._standings[taker.name] = standing

    def confirmed() -> None:
        exchange.network.slow[slow.name] = limits.LEASE_LEAST_S
        exchange.world.after(0.2, lambda: brief.cancel(sold))

    taker.on_confirm = confirmed
    order_id = taker.submit(NewOrder("buy", "101", "6", "bob", time_in_force="fok"))
    assert order_id is not None
    assert exchange.world.run(20.0, until=lambda: not order_at(taker, order_id).live)
    assert (order_at(taker, order_id).filled, order_at(taker, order_id).reason) == (6, None)
    assert exchange.settle()
    check_market(exchange)

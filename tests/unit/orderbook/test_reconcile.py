"""Reconciliation: a sound network passes, and every kind of lie about it is found."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest

from orderbook import limits
from orderbook.api.views import order_record as record_of
from orderbook.audit.reconcile import RULES, Report, Snapshot, check
from orderbook.entry import NewOrder
from orderbook.errors import OrderClosedError
from orderbook.flow.synthetic import synthesize
from orderbook.market import Market
from orderbook.messages import TradeRecord
from orderbook.model import Instrument, Side
from orderbook.negotiation import Negotiator
from orderbook.records import MarketHealth, OrderRecord
from tests.unit.orderbook.fake_api import QUIET, order_record, trade_record

NOW_MS = 1_700_000_000_000


@dataclass
class Peer:
    """What one peer will say; plain dicts, so that a test changes one field."""

    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    trades: list[dict[str, Any]] = field(default_factory=list)
    health: dict[str, Any] = field(default_factory=lambda: dict(QUIET))
    markets: list[str] = field(default_factory=lambda: ["BTC-USD"])
    status: str = "ok"


Network = dict[str, Peer]


def network() -> Network:
    """Three peers: local trade m1 at alice, cross-peer match m2 between bob (maker of two) and alice, and
    resting orders everywhere."""
    alice, bob, carol = Peer(), Peer(), Peer()
    alice.orders = {
        "a1": order_record("a1", side="sell", price="10.00", owner="ann", **amounts("2", filled="2")),
        "a2": order_record("a2", side="buy", price="10.05", owner="ben", **amounts("1.5", filled="1.5")),
        "a3": order_record(
            "a3", side="buy", price="10.10", owner="cat", **amounts("4", filled="3.5", open="0.5")
        ),
        "a4": order_record("a4", side="buy", price="9.00", owner="ann", **amounts("1", cancelled="1")),
    }
    alice.orders["a1"]["partner"], alice.orders["a4"]["partner"] = "a4", "a1"
    bob.orders = {
        "b1": order_record("b1", side="sell", price="10.02", owner="dan", **amounts("1", filled="1")),
        "b2": order_record("b2", side="sell", price="10.10", owner="cat", **amounts("2", filled="2")),
        "b3": order_record("b3", side="sell", price="10.20", owner="dan", **amounts("1", open="1")),
    }
    carol.orders = {
        "c1": order_record("c1", side="buy", price="10.09", owner="eve", **amounts("0.1", open="0.1")),
    }
    m1 = trade_record("m1", price="10.00", quantity="1.5", maker_order_id="a1", taker_order_id="a2")
    m1b = trade_record("m1b", price="10.00", quantity="0.5", maker_order_id="a1", taker_order_id="a3")
    across = {"taker_order_id": "a3", "maker_peer": "bob", "taker_peer": "alice"}
    m2 = trade_record("m2", price="10.02", quantity="1", maker_order_id="b1", **across)
    m2b = trade_record("m2", price="10.10", quantity="2", maker_order_id="b2", **across)
    alice.trades = [m1, m1b, dict(m2), dict(m2b)]
    bob.trades = [dict(m2), dict(m2b)]
    alice.health |= {"best_bid": "10.10"}
    bob.health |= {"best_ask": "10.20"}
    carol.health |= {"best_bid": "10.09"}
    return {"alice": alice, "bob": bob, "carol": carol}


def amounts(quantity: str, **parts: str) -> dict[str, str]:
    """The quantities and status of an order."""
    all_parts = {"open": "0", "reserved": "0", "filled": "0", "cancelled": "0", **parts}
    if "open" in parts:
        status = "partially_filled" if "filled" in parts else "open"
    else:
        status = "cancelled" if "cancelled" in parts else "filled"
    return {"quantity": quantity, "status": status, **all_parts}


def snapshots(peers: Network) -> list[Snapshot]:
    return [
        Snapshot(
            peer=name,
            status=peer.status,
            markets={market: msgspec.convert(peer.health, MarketHealth) for market in peer.markets},
            orders=[msgspec.convert(order, OrderRecord) for order in peer.orders.values()],
            trades=[msgspec.convert(trade, TradeRecord) for trade in peer.trades],
            time_ms=NOW_MS,
        )
        for name, peer in peers.items()
    ]


def reconciled(peers: Network) -> Report:
    return check(snapshots(peers))


def test_a_sound_network_passes_and_everything_is_counted() -> None:
    report = reconciled(network())
    assert report.findings == []
    assert report.ok
    assert (report.peers, report.orders, report.open_orders) == (3, 8, 3)
    assert (report.local_trades, report.cross_peer_trades, report.unchecked) == (2, 2, 0)
    assert report.checked == {
        "reachable": 3,
        "healthy": 3,
        "well_formed": 8 + 6,
        "conservation": 8,
        "status": 8,
        "fills": 8,
        "pairs": 2,
        "local_trades": 2,
        "both_sides": 2,
        "limits": 4,
        "maker_price": 4,
        "no_self_trade": 4,
        "uncrossed": 1,
        "best_prices": 3,
        "at_rest": 8 + 3,
    }


def test_an_empty_network_passes() -> None:
    assert reconciled({"alice": Peer(), "bob": Peer()}).ok
    assert check([]).ok


Lie = Callable[[Network], object]
"""What changes what peers say."""


def change_order(peer: str, id: str, **fields: str) -> Lie:
    return lambda peers: peers[peer].orders[id].update(fields)


def change_trade(peer: str, place: int, **fields: Any) -> Lie:
    return lambda peers: peers[peer].trades[place].update(fields)


def change_both(match: int, **fields: Any) -> Lie:
    """Both sides tell the same lie about the cross-peer trade number ``match``."""

    def lie(peers: Network) -> None:
        peers["alice"].trades[2 + match].update(fields)
        peers["bob"].trades[match].update(fields)

    return lie


def change_health(peer: str, **fields: Any) -> Lie:
    return lambda peers: peers[peer].health.update(fields)


def drop_trade(peer: str, place: int) -> Lie:
    return lambda peers: peers[peer].trades.pop(place)


def keep_twice(peer: str, place: int) -> Lie:
    return lambda peers: peers[peer].trades.append(dict(peers[peer].trades[place]))


def give_away(peer: str, place: int, to: str) -> Lie:
    return lambda peers: peers[to].trades.append(dict(peers[peer].trades[place]))


def drop_order(peer: str, id: str) -> Lie:
    return lambda peers: peers[peer].orders.pop(id)


def drop_peer(peer: str) -> Lie:
    return lambda peers: peers.pop(peer)


def list_elsewhere(peers: Network) -> None:
    peers["carol"].orders["a1"] = dict(peers["alice"].orders["a1"])


def trade_with_oneself(peers: Network) -> None:
    peers["alice"].orders["a2"]["owner"] = "ann"


def fill_the_disk(peers: Network) -> None:
    peers["carol"].status = "the journal cannot be written"


def lie_about_a_maker(peers: Network) -> None:
    """bob made a better price for a friend, and says that alice agreed."""
    peers["bob"].trades[0]["price"] = "10.01"


LIES: Sequence[tuple[str, Lie, str, str]] = [
    # rule, what is wrong, where it is found, what the finding says
    ("conservation", change_order("alice", "a1", quantity="2.00000001"), "alice", "is not open 0"),
    ("conservation", change_order("bob", "b3", open="0.99999999"), "bob", "is not open 0.99999999"),
    ("conservation", change_order("alice", "a4", cancelled="2", open="-1"), "alice", "is not open -1"),
    ("pairs", change_order("alice", "a1", partner="a2"), "alice", "has traded, and so has a2"),
    ("status", change_order("alice", "a1", status="cancelled"), "alice", "is 'cancelled' with open 0"),
    ("status", change_order("alice", "a4", status="filled"), "alice", "is 'filled'"),
    ("status", change_order("alice", "a3", status="open"), "alice", "is 'open' with open 0.5"),
    ("status", change_order("carol", "c1", status="pending_cancel"), "carol", "is 'pending_cancel'"),
    ("status", change_order("alice", "a3", status="untriggered"), "alice", "is 'untriggered' with open 0.5"),
    ("fills", change_order("alice", "a3", filled="3", open="1"), "alice", "says 3 is filled"),
    ("fills", drop_trade("alice", 0), "alice", "says 2 is filled, its trades add up to 0.5"),
    ("fills", keep_twice("alice", 0), "alice", "its trades add up to 3.5"),
    ("fills", drop_order("bob", "b1"), "bob", "names order b1, which is not listed"),
    ("local_trades", keep_twice("alice", 0), "alice", "is kept 2 times"),
    ("local_trades", give_away("alice", 0, "carol"), "carol", "is kept here, but is between alice"),
    (
        "local_trades",
        lambda peers: peers["carol"].trades.append(peers["alice"].trades.pop(0)),
        "alice",
        "missing",
    ),
    ("both_sides", drop_trade("alice", 2), "alice", "is missing; bob keeps it"),
    ("both_sides", drop_trade("bob", 1), "bob", "is missing; alice keeps it"),
    ("both_sides", keep_twice("bob", 0), "bob", "is kept 2 times"),
    ("both_sides", give_away("bob", 0, "carol"), "carol", "is kept here, but is between bob and alice"),
    ("both_sides", lie_about_a_maker, "bob", "price is 10.01, not 10.02; the other value is that of alice"),
    ("both_sides", change_trade("bob", 0, quantity="2"), "bob", "quantity is 2, not 1"),
    ("both_sides", change_trade("bob", 0, time=5), "bob", "time is 5, not 1700000000000"),
    ("both_sides", change_trade("bob", 0, market="ETH-USD"), "bob", "market is ETH-USD, not BTC-USD"),
    ("both_sides", change_trade("bob", 0, taker_peer="carol"), "bob", "taker_peer is carol, not alice"),
    ("both_sides", change_trade("bob", 0, taker_order_id="a4"), "bob", "is missing; alice keeps it"),
    ("both_sides", change_trade("bob", 0, match_id="m9"), "bob", "is missing; alice keeps it"),
    ("limits", change_both(1, price="10.11"), "bob", "10.11 is outside the limit 10.10 of buy order a3"),
    ("limits", change_both(0, price="10.01"), "bob", "10.01 is outside the limit 10.02 of sell order b1"),
    ("limits", change_order("bob", "b1", side="buy"), "bob", "both orders buy"),
    ("maker_price", change_both(0, price="10.03"), "bob", "10.03 is not the maker's price 10.02"),
    ("maker_price", change_trade("alice", 0, price="10.01"), "alice", "is not the maker's price 10.00"),
    ("no_self_trade", trade_with_oneself, "alice", "both orders belong to ann"),
    ("uncrossed", change_order("carol", "c1", price="10.20"), "carol", "bid 10.20 crosses ask 10.20 of bob"),
    ("uncrossed", change_order("bob", "b3", price="10.10"), "alice", "bid 10.10 crosses ask 10.10 of bob"),
    ("best_prices", change_health("carol", best_bid="10.08"), "carol", "best bid is 10.08"),
    ("best_prices", change_health("carol", best_ask="11.00"), "carol", "its best open order has none"),
    ("best_prices", change_health("bob", best_ask=None), "bob", "best ask is none"),
    ("best_prices", change_health("bob", best_ask="cheap"), "bob", "best ask is cheap"),
    ("at_rest", change_health("bob", reservations=1), "bob", "1 reservations"),
    ("at_rest", change_health("bob", under_way=2), "bob", "2 under way"),
    ("at_rest", change_health("bob", in_doubt=3), "bob", "3 in doubt"),
    ("at_rest", change_order("carol", "c1", open="0.05", reserved="0.05"), "carol", "0.05 of it is reserved"),
    ("healthy", fill_the_disk, "carol", "says: the journal cannot be written"),
    ("reachable", drop_peer("bob"), "bob", "ask it too"),
    ("well_formed", list_elsewhere, "carol", "is listed by alice already"),
    ("well_formed", change_order("carol", "c1", price="1e1"), "carol", "'1e1' is no decimal amount"),
    ("well_formed", change_order("carol", "c1", quantity="NaN"), "carol", "'NaN' is no decimal amount"),
    ("well_formed", change_order("carol", "c1", price="9" * 60), "carol", "is no decimal amount"),
    ("well_formed", change_order("carol", "c1", side="both"), "carol", "both 0.1 at 10.09 is no limit order"),
    ("well_formed", change_order("carol", "c1", price="0.00"), "carol", "is no limit order"),
    ("well_formed", change_trade("alice", 0, quantity="0"), "alice", "0 at 10.00 is nothing"),
    ("well_formed", change_trade("alice", 0, price="-1"), "alice", "1.5 at -1 is nothing"),
    ("well_formed", change_trade("alice", 0, quantity="some"), "alice", "'some' is no decimal amount"),
    (
        "well_formed",
        change_trade("alice", 0, market="ETH-USD"),
        "alice",
        "is in ETH-USD, its order a1 in BTC-USD",
    ),
    (
        "well_formed",
        change_order("carol", "c1", market="ETH-USD"),
        "carol",
        "is not one of the peer's markets",
    ),
]


@pytest.mark.parametrize(("rule", "lie", "peer", "says"), LIES)
def test_every_kind_of_lie_is_found(rule: str, lie: Lie, peer: str, says: str) -> None:
    peers = network()
    lie(peers)
    report = reconciled(peers)
    assert not report.ok
    matching = [f for f in report.findings if f.rule == rule and f.peer == peer and says in f.text]
    assert matching, f"not found; found were: {[str(f) for f in report.findings]}"
    assert report.broken()[rule] >= 1


def test_every_rule_has_a_lie_that_breaks_it() -> None:
    assert {rule for rule, *_ in LIES} == RULES.keys()


def test_a_peer_that_is_asked_twice_is_found_and_counted_once() -> None:
    once = snapshots(network())
    report = check([*once, once[0]])
    assert [(f.rule, f.text) for f in report.findings] == [
        ("well_formed", "was asked twice, or two peers have the same name")
    ]
    assert report.orders == 8


def test_markets_of_different_peers_do_not_cross_each_other() -> None:
    peers = network()
    peers["dave"] = Peer(markets=["ETH-USD"], health={**QUIET, "best_ask": "1.00"})
    peers["dave"].orders = {
        "d1": order_record(
            "d1", market="ETH-USD", side="sell", price="1.00", owner="x", **amounts("1", open="1")
        )
    }
    report = reconciled(peers)
    assert report.findings == []
    assert report.checked["uncrossed"] == 2


def test_stop_orders_that_wait_are_not_in_the_market() -> None:
    peers = network()
    stop = order_record("c2", side="sell", price="5.00", owner="eve", **amounts("1", open="1"))
    peers["carol"].orders["c2"] = {**stop, "status": "untriggered"}
    assert reconciled(peers).findings == []


def test_orders_of_old_trades_may_have_been_swept() -> None:
    peers = network()
    old_ms = NOW_MS - int(limits.CLOSED_ORDER_AGE_S * 1000) - 1
    change_both(0, time=old_ms)(peers)
    drop_order("bob", "b1")(peers)
    report = reconciled(peers)
    assert report.findings == []
    assert report.unchecked == 1


def test_orders_may_have_been_swept_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = network()
    drop_order("bob", "b1")(peers)
    monkeypatch.setattr(limits, "SNAPSHOT_CLOSED_ORDERS", 2)
    report = reconciled(peers)
    assert report.findings == []
    assert report.unchecked == 1


def test_sums_of_amounts_are_exact_however_far_apart_they_are() -> None:
    large, small = "9" * 20, "0." + "0" * 19 + "1"
    total = f"{Decimal(large) + 0}{small[1:]}"
    peers = {"alice": Peer()}
    peers["alice"].orders = {
        "o": order_record("o", **{**amounts(total, open=large, cancelled=small), "status": "open"})
    }
    peers["alice"].health |= {"best_bid": "10.00"}
    assert reconciled(peers).findings == []
    peers["alice"].orders["o"]["quantity"] = large
    assert [f.rule for f in reconciled(peers).findings] == ["conservation"]


def test_findings_read_well() -> None:
    peers = network()
    lie_about_a_maker(peers)
    [finding] = [f for f in reconciled(peers).findings if f.rule == "both_sides"]
    assert str(finding) == (
        "both_sides: trade m2 at bob: price is 10.01, not 10.02; the other value is that of alice"
    )
    assert reconciled(peers).as_dict()["findings"][0]["subject"] == "trade m2"


class Clock:
    def monotonic(self) -> float:
        return 1.0

    def time_ms(self) -> int:
        return NOW_MS


def local_market(rows: int, seed: int) -> Snapshot:
    """One peer alone that was given made-up flow, as its client API shows it."""
    ids = itertools.count()
    market = Market(
        "alice", Instrument("BTC-USD"), clock=Clock(), new_id=lambda: f"id-{next(ids)}", random=Random(seed)
    )
    negotiator = Negotiator(market)
    placed: dict[str, str] = {}
    for row in synthesize(rows, seed):
        if row.action == "new":
            new = NewOrder(row.side, f"{row.price:f}", f"{row.quantity:f}", row.id)
            placed[row.id] = negotiator.submit(new)[0].id
        else:
            with contextlib.suppress(OrderClosedError):
                negotiator.cancel(placed[row.id])
    best = {"best_bid": market.book.best(Side.BUY), "best_ask": market.book.best(Side.SELL)}
    peer = Peer(
        orders={
            id: msgspec.to_builtins(record_of(market, market.ledger.order(id), 0)) for id in placed.values()
        },
        trades=[msgspec.to_builtins(market.record(trade)) for trade in market.ledger.trades(0, 10**6)],
        health={**QUIET, **{name: market.instrument.price_text(price or 0) for name, price in best.items()}},
    )
    return snapshots({"alice": peer})[0]


@pytest.mark.parametrize("seed", range(3))
def test_what_a_real_peer_does_passes_and_one_changed_digit_does_not(seed: int) -> None:
    snapshot = local_market(3000, seed)
    report = check([snapshot])
    assert report.findings == []
    assert report.local_trades > 300
    for place in (0, len(snapshot.trades) // 2, len(snapshot.trades) - 1):
        trades = list(snapshot.trades)
        digits = trades[place].quantity
        changed = digits[:-1] + str((int(digits[-1]) + 1) % 10)
        trades[place] = msgspec.structs.replace(trades[place], quantity=changed)
        assert check([replace(snapshot, trades=trades)]).broken()["fills"] == 2

"""What a peer tells its clients of a trade: which of its orders it was for."""

from __future__ import annotations

from orderbook import limits
from orderbook.api.views import trade_report
from orderbook.model import Side
from orderbook.records import OwnFill
from orderbook.trade import Trade
from tests.unit.orderbook.negotiators import Clock, Peer


def trade(maker: tuple[str, str], taker: tuple[str, str], side: Side | None = Side.BUY) -> Trade:
    """``maker`` and ``taker``: peer and order id."""
    return Trade("m1", "SIM", 100, 5, maker[1], taker[1], maker[0], taker[0], 1000, side)


def test_a_trade_with_another_peer_is_for_one_order() -> None:
    peer = Peer("alice", Clock())
    order, _ = peer.place("sell", 100, 5)
    resting = trade_report(peer.market, trade(("alice", order.id), ("bob", "b1")))
    assert resting.fills == [OwnFill(order.id, "maker", "sell", order.owner, None)]
    arrived = trade_report(peer.market, trade(("bob", "b1"), ("alice", order.id), Side.SELL))
    assert arrived.fills == [OwnFill(order.id, "taker", "sell", order.owner, None)]


def test_what_another_peer_calls_its_order_is_none_of_ours() -> None:
    peer = Peer("alice", Clock())
    (ours, _), (theirs, _) = peer.place("sell", 100, 5), peer.place("sell", 101, 5)
    report = trade_report(peer.market, trade(("alice", ours.id), ("bob", theirs.id)))
    assert [fill.order_id for fill in report.fills] == [ours.id]


def test_of_an_order_that_is_forgotten_side_and_role_are_known() -> None:
    clock = Clock()
    peer = Peer("alice", clock)
    order, _ = peer.place("sell", 100, 5)
    peer.cancel(order.id)
    clock.now += limits.CLOSED_ORDER_AGE_S
    assert peer.market.ledger.sweep(clock.now) == 1
    report = trade_report(peer.market, trade(("alice", order.id), ("bob", "b1")))
    assert report.fills == [OwnFill(order.id, "maker", "sell", None, None)]


def test_a_trade_whose_side_was_not_kept_has_none() -> None:
    report = trade_report(Peer("alice", Clock()).market, trade(("alice", "a1"), ("bob", "b1"), None))
    assert [fill.side for fill in report.fills] == [None]

"""What clients ask of a market: orders of every kind, taken back, repeated, refused."""

from __future__ import annotations

import pytest

from orderbook import limits
from orderbook.effects import Announce, Settled, Traded
from orderbook.entry import NewOrder
from orderbook.errors import (
    BusyError,
    DuplicateOrderError,
    InvalidFieldError,
    UnknownOrderError,
)
from orderbook.model import OrderStatus
from tests.unit.orderbook.negotiators import Clock, Peer, confirmed, kinds, only


def test_nobody_trades_with_themselves(maker: Peer) -> None:
    resting, _ = maker.place("sell", 100, 5)
    maker.place("sell", 100, 5, owner="bob")
    order, _ = maker.place("buy", 100, 8)
    assert order.status is OrderStatus.CANCELLED
    assert (order.filled, resting.open) == (0, 5)


def ioc(side: str, price: str | None, quantity: str, owner: str = "ann") -> NewOrder:
    kind = "market" if price is None else "limit"
    return NewOrder(side, price, quantity, owner, type=kind, time_in_force="ioc")


def test_what_is_left_of_an_ioc_order_is_cancelled_once_it_has_met_everyone(taker: Peer, maker: Peer) -> None:
    maker.place("sell", 100, 3)
    order, effects = taker.submit(ioc("buy", "100", "5"))
    announce = only(effects, Announce)
    assert order.reserved == 5, "it is announced before anything of it goes"
    confirm = confirmed(taker, announce, maker.answer(announce))
    taker.match_answered(confirm.match_id, maker.answer(confirm))
    taker.check()
    assert (order.filled, order.cancelled) == (3, 2)
    assert order.status is OrderStatus.CANCELLED


def test_an_ioc_order_with_nobody_to_ask_goes_at_once(maker: Peer) -> None:
    order, effects = maker.submit(ioc("buy", "100", "5"))
    assert kinds(effects) == [Settled]
    assert (order.cancelled, maker.market.book.orders) == (5, {})


def test_what_is_in_doubt_of_an_ioc_order_may_fill_and_never_rests(taker: Peer, maker: Peer) -> None:
    maker.place("sell", 100, 3)
    order, effects = taker.submit(ioc("buy", "100", "5"))
    announce = only(effects, Announce)
    confirm = confirmed(taker, announce, maker.answer(announce))
    taker.match_failed(confirm.match_id)
    assert (order.status, order.cancelled, order.reserved) == (OrderStatus.PENDING_CANCEL, 2, 3)
    taker.match_answered(confirm.match_id, {"status": "rejected"})
    taker.check()
    assert order.cancelled == 5


def test_a_market_order_takes_any_price_best_first_and_never_rests(maker: Peer) -> None:
    maker.place("sell", 100, 3, owner="bob")
    maker.place("sell", 500, 3, owner="bob")
    order, effects = maker.submit(ioc("buy", None, "10"))
    assert [trade.price for trade in only(effects, Traded).trades] == [100, 500]
    assert (order.filled, order.cancelled) == (6, 4)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "stop"}, "type"),
        ({"time_in_force": "day"}, "time_in_force"),
        ({"type": "market"}, "price"),
        ({"type": "market", "price": None, "time_in_force": "gtc"}, "time_in_force"),
        ({"price": None}, "price"),
    ],
)
def test_instructions_that_do_not_go_together_are_refused(
    maker: Peer, change: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        maker.submit(NewOrder("buy", "100", "5", "ann")._replace(**change))
    assert caught.value.field == field
    assert maker.market.ledger.order_count == 0


def test_an_unknown_order_cannot_be_cancelled(maker: Peer) -> None:
    with pytest.raises(UnknownOrderError):
        maker.cancel("nothing")


def test_a_full_book_says_so(maker: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OPEN_ORDERS", 1)
    maker.place("sell", 100, 5)
    with pytest.raises(BusyError):
        maker.place("sell", 100, 5)
    assert maker.market.ledger.order_count == 1


def test_client_order_ids_make_submitting_repeatable(maker: Peer) -> None:
    new = NewOrder("buy", "100", "5", "ann", "mine")
    order, _ = maker.submit(new)
    known, effects = maker.submit(new)
    assert known is order
    assert only(effects, Settled).order_id == order.id
    with pytest.raises(DuplicateOrderError):
        maker.submit(new._replace(price="101"))
    other, _ = maker.submit(new._replace(owner="bob"))
    assert other is not order


def test_closed_orders_are_swept_after_a_while(maker: Peer, clock: Clock) -> None:
    closed, _ = maker.place("buy", 100, 5)
    resting, _ = maker.place("buy", 100, 5)
    maker.cancel(closed.id)
    clock.now += limits.CLOSED_ORDER_AGE_S
    maker.tick()
    with pytest.raises(UnknownOrderError):
        maker.market.ledger.order(closed.id)
    assert maker.market.ledger.order(resting.id) is resting


def test_an_order_that_does_not_rest_is_refused_where_no_peer_can_be_asked(
    taker: Peer, maker: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "NEGOTIATIONS", 1)
    maker.place("sell", 101, 5)
    first, _ = taker.place("buy", 101, 2)
    with pytest.raises(BusyError, match="on their way"):
        taker.place("buy", 101, 2, time_in_force="ioc")
    waiting, effects = taker.place("buy", 101, 2)
    assert (kinds(effects), waiting.open) == ([Settled], 2), "it waits for its turn"
    taker.cancel(first.id)

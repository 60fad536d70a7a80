"""Pairs of orders of which one cancels the other, over the network: never do both trade."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orderbook import limits
from orderbook.effects import Announce, Effect
from orderbook.entry import NewOrder, NewPair
from orderbook.errors import DuplicateOrderError, InvalidFieldError, OrderRefusedError
from orderbook.events import Executed
from orderbook.model import Order, OrderStatus
from orderbook.recovery import Recovered
from tests.unit.orderbook.negotiators import Clock, Peer, confirmed, offered, only, settled


def pair(
    price: int = 110, stop_price: int = 90, names: tuple[str | None, str | None] = (None, None)
) -> NewPair:
    """To sell 5 at ``price``, or at any price when it falls to ``stop_price``."""
    resting = NewOrder("sell", str(price), "5", "sue", names[0])
    stop = NewOrder("sell", None, "5", "sue", names[1], type="market", stop_price=str(stop_price))
    return NewPair(resting, stop)


def place(peer: Peer, new: NewPair) -> tuple[Order, Order, list[Effect]]:
    (resting, stop), effects = peer.submit_pair(new)
    peer.check()
    return resting, stop, effects


def fall(peer: Peer, price: int = 90) -> None:
    """The last price of ``peer`` is ``price`` now."""
    peer.market.book.note_trade(price)
    peer.market.happened(peer.market.book.events)
    peer.check()


def test_what_a_remote_taker_fills_cancels_the_other_in_the_same_step(taker: Peer, maker: Peer) -> None:
    resting, stop, _ = place(maker, pair())
    _, announce, offer = offered(taker, maker, "buy", 110, 2)
    assert stop.status is OrderStatus.UNTRIGGERED
    assert maker.answer(confirmed(taker, announce, offer))["status"] == "committed"
    assert (stop.status, stop.reason) == (OrderStatus.CANCELLED, "partner")
    assert (resting.filled, resting.open) == (2, 3)


def test_a_stop_price_that_comes_while_the_partner_is_reserved_waits_and_a_release_brings_it_alive(
    taker: Peer, maker: Peer, clock: Clock
) -> None:
    resting, stop, _ = place(maker, pair())
    offered(taker, maker, "buy", 110, 2)
    fall(maker)
    assert (resting.status, resting.cancelled) == (OrderStatus.PENDING_CANCEL, 3)
    assert stop.status is OrderStatus.UNTRIGGERED, "what is reserved decides"
    maker.place("buy", 85, 9, owner="dan")
    clock.now += limits.LEASE_S
    maker.tick()
    maker.check()
    assert (resting.status, resting.filled) == (OrderStatus.CANCELLED, 0)
    assert (stop.status, stop.filled) == (OrderStatus.FILLED, 5)


def test_what_was_reserved_when_the_stop_price_came_may_fill_and_the_stop_order_is_cancelled(
    taker: Peer, maker: Peer
) -> None:
    resting, stop, _ = place(maker, pair())
    _, announce, offer = offered(taker, maker, "buy", 110, 2)
    fall(maker)
    assert maker.answer(confirmed(taker, announce, offer))["status"] == "committed"
    assert (resting.filled, resting.cancelled) == (2, 3)
    assert (stop.status, stop.reason) == (OrderStatus.CANCELLED, "partner")


@pytest.mark.parametrize("answer", ["committed", "rejected"])
def test_a_doubt_about_one_decides_about_the_other(taker: Peer, maker: Peer, answer: str) -> None:
    maker.place("buy", 110, 2, owner="mo")
    resting, stop, effects = place(taker, pair())
    announce = only(effects, Announce)
    confirm = confirmed(taker, announce, maker.answer(announce))
    taker.match_failed(confirm.match_id)
    fall(taker)
    assert (resting.reserved, resting.open) == (2, 0)
    assert stop.status is OrderStatus.UNTRIGGERED
    said = maker.answer(confirm) if answer == "committed" else {"status": "rejected"}
    effects = taker.match_answered(confirm.match_id, said)
    taker.check()
    if answer == "committed":
        assert (resting.filled, stop.reason) == (2, "partner")
    else:
        assert (resting.filled, resting.cancelled) == (0, 5)
        assert only(effects, Announce).order_id == stop.id, "it goes its way, as a market order"


def test_taking_back_one_takes_back_both(maker: Peer) -> None:
    resting, stop, effects = place(maker, pair())
    assert resting.id in settled(effects)
    maker.cancel(stop.id)
    assert resting.status is stop.status is OrderStatus.CANCELLED
    assert (stop.reason, resting.reason) == ("requested", "partner")


def test_the_same_names_again_are_the_same_pair(maker: Peer) -> None:
    names = ("mine", "mine.stop")
    resting, stop, _ = place(maker, pair(names=names))
    again = place(maker, pair(names=names))
    assert again[:2] == (resting, stop)
    assert resting.id in settled(again[2])
    assert len(maker.market.book.orders) == 2
    others: list[Any] = [
        pair(price=111, names=names),
        pair(stop_price=91, names=names),
        pair(names=("mine", "other")),
        pair(names=("other", "mine.stop")),
        pair(names=("mine", None)),
        pair(names=("mine.stop", "mine")),
    ]
    for other in others:
        with pytest.raises(DuplicateOrderError):
            maker.submit_pair(other)
    with pytest.raises(DuplicateOrderError):
        maker.submit(NewOrder("sell", "110", "5", "sue", "mine"))
    assert len(maker.market.book.orders) == 2


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (pair()._replace(resting=NewOrder("sell", "x", "5", "sue")), "resting.price"),
        (pair()._replace(stop=NewOrder("sell", "9", "0", "sue", stop_price="9")), "stop.quantity"),
        (
            NewPair(*(leg._replace(client_order_id="one") for leg in pair())),
            "stop.client_order_id",
        ),
    ],
)
def test_a_wrong_field_is_named_with_its_order(maker: Peer, new: NewPair, field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        maker.submit_pair(new)
    assert caught.value.field == field
    assert not maker.market.book.orders


@pytest.mark.parametrize(
    "new",
    [
        pair()._replace(stop=pair().resting),
        pair()._replace(resting=NewOrder("sell", "110", "5", "sue", time_in_force="ioc")),
        pair()._replace(stop=NewOrder("sell", "89", "5", "bob", stop_price="90")),
        pair()._replace(stop=NewOrder("buy", "89", "5", "sue", stop_price="90")),
    ],
)
def test_what_is_no_pair_is_refused_whole(maker: Peer, new: NewPair) -> None:
    with pytest.raises(OrderRefusedError) as caught:
        maker.submit_pair(new)
    assert caught.value.code == "not_a_pair"
    assert not maker.market.book.orders
    assert not maker.market.take_events()


# -- restarts ------------------------------------------------------------------------------------------


def by_snapshot(recovered: Recovered) -> Recovered:
    snapshot = Recovered("maker", "SIM")
    snapshot.load(recovered.to_plain())
    return snapshot


@pytest.fixture(params=[lambda recovered: recovered, by_snapshot], ids=["events", "snapshot"])
def restart(request: pytest.FixtureRequest, clock: Clock) -> Callable[[Peer], Peer]:
    def restarted(peer: Peer) -> Peer:
        recovered = request.param(Recovered("maker", "SIM").apply(peer.market.take_events()))
        again = Peer("maker", clock)
        again.resume(recovered)
        again.check()
        return again

    return restarted


def test_a_pair_is_one_after_a_restart(maker: Peer, restart: Callable[[Peer], Peer]) -> None:
    resting, stop, _ = place(maker, pair(names=("mine", None)))
    again = restart(maker)
    assert place(again, pair(names=("mine", None)))[0].id == resting.id
    again.place("buy", 110, 1, owner="ben")
    assert again.market.ledger.order(stop.id).reason == "partner"


def test_a_stop_order_that_waited_for_its_partner_comes_alive_at_a_restart(
    taker: Peer, maker: Peer, restart: Callable[[Peer], Peer]
) -> None:
    """The reservation has ended with the process, and with it the partner."""
    resting, stop, _ = place(maker, pair())
    offered(taker, maker, "buy", 110, 2)
    fall(maker)
    maker.place("buy", 85, 9, owner="dan")
    again = restart(maker)
    known = again.market.ledger.order
    assert known(resting.id).status is OrderStatus.CANCELLED
    assert (known(stop.id).status, known(stop.id).filled) == (OrderStatus.FILLED, 5)
    fills = [event for event in again.market.take_events() if isinstance(event, Executed)]
    assert [(fill.price, fill.taker_order_id) for fill in fills] == [(85, stop.id)]


def test_stop_orders_that_trade_at_a_restart_find_every_pair_together(
    taker: Peer, maker: Peer, restart: Callable[[Peer], Peer]
) -> None:
    """Two of them, which had waited for their partners, trade with each other, and reach a third one."""
    for side, price, limit, stop_price, owner in (
        ("sell", "110", "84", "90", "sue"),
        ("buy", "50", "120", "95", "ben"),
    ):
        stop_limit = NewOrder(side, limit, "5", owner, stop_price=stop_price)
        place(maker, NewPair(NewOrder(side, price, "5", owner), stop_limit))
    for side, limit_price in (("buy", 110), ("sell", 50)):
        offered(taker, maker, side, limit_price, 2)
    resting, stop, _ = place(maker, pair(112, 85))
    fall(maker, 95)
    fall(maker, 90)
    again = restart(maker)
    fills = [event for event in again.market.take_events() if isinstance(event, Executed)]
    assert [(fill.price, fill.quantity) for fill in fills] == [(84, 5)]
    known = again.market.ledger.order
    assert known(resting.id).reason == "partner", "the stop price has come"
    assert known(stop.id).reason == "remainder", "a market order that met nobody"


def test_an_order_that_has_run_out_while_its_peer_was_away_takes_its_partner_along(
    maker: Peer, clock: Clock, restart: Callable[[Peer], Peer]
) -> None:
    ends_ms = clock.time_ms() + 500
    resting = NewOrder("sell", "110", "5", "sue", time_in_force="gtd", expires_ms=ends_ms)
    first, stop, _ = place(maker, pair()._replace(resting=resting))
    maker.place("buy", 85, 9, owner="dan")
    clock.now += 1.0
    known = restart(maker).market.ledger.order
    assert (known(first.id).status, known(first.id).reason) == (OrderStatus.CANCELLED, "expired")
    assert (known(stop.id).reason, known(stop.id).filled) == ("partner", 0), "its stop price has not come"

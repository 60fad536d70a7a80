"""A market that an operator has restricted or halted at one peer begins nothing, and keeps its promises."""

from __future__ import annotations

import pytest

from orderbook.effects import Announce, Confirm, Settled, Tell
from orderbook.entry import Amendment
from orderbook.errors import InvalidFieldError, OrderRefusedError
from orderbook.events import Switched
from orderbook.model import OrderStatus
from orderbook.recovery import Recovered
from tests.unit.orderbook.negotiators import Clock, Peer, confirmed, kinds, offered, only

CLOSED = pytest.mark.parametrize("state", ["halted", "cancel_only"])


@CLOSED
def test_what_is_closed_offers_nothing_and_publishes_nothing(taker: Peer, maker: Peer, state: str) -> None:
    maker.place("sell", 100, 5)
    maker.set_state(state, "ops")
    _, _, offer = offered(taker, maker, "buy", 100, 5)
    assert offer is None
    beat = maker.told(maker.envelope("Heartbeat", "taker", sequence=1))
    assert beat["best_ask"] is None
    maker.set_state("open", "ops")
    beat = maker.told(maker.envelope("Heartbeat", "taker", sequence=2))
    assert beat["best_ask"] == "100"


@CLOSED
def test_what_was_reserved_before_may_be_confirmed(taker: Peer, maker: Peer, state: str) -> None:
    resting, _ = maker.place("sell", 100, 5)
    _, announce, offer = offered(taker, maker, "buy", 100, 2)
    maker.set_state(state, "ops")
    assert maker.answer(confirmed(taker, announce, offer))["status"] == "committed"
    assert resting.filled == 2


@CLOSED
def test_an_order_on_its_way_takes_nothing_more_and_ends_when_the_market_opens(
    taker: Peer, maker: Peer, state: str
) -> None:
    maker.place("sell", 100, 5)
    order, effects = taker.place("buy", 100, 5, time_in_force="ioc")
    announce = only(effects, Announce)
    taker.set_state(state, "ops")
    effects = taker.offer_answered(announce.order_id, announce.round, "maker", maker.answer(announce))
    taker.check()
    assert kinds(effects) == [Tell, Settled], "what was offered is released"
    assert (order.filled, order.open) == (0, 5)
    taker.set_state("open", "ops")
    taker.check()
    assert (order.status, order.reason) == (OrderStatus.CANCELLED, "remainder")


def test_a_doubt_is_settled_in_any_state(taker: Peer, maker: Peer) -> None:
    maker.place("sell", 100, 5)
    order, announce, offer = offered(taker, maker, "buy", 100, 5)
    confirm = confirmed(taker, announce, offer)
    taker.match_failed(confirm.match_id)
    taker.set_state("halted", "ops")
    taker.match_answered(confirm.match_id, maker.answer(confirm))
    taker.check()
    assert order.status is OrderStatus.FILLED


def test_prices_that_cross_are_left_alone_until_the_market_opens(taker: Peer, clock: Clock) -> None:
    order, effects = taker.place("buy", 100, 5)
    taker.offer_answered(order.id, only(effects, Announce).round, "maker", None)
    taker.set_state("halted", "ops")
    for sequence, state in enumerate(("halted", "open"), 1):
        taker.set_state(state, "ops")
        taker.heartbeat_answered("maker", {"sequence": sequence, "from": "maker", "best_ask": "99"})
        clock.now += 1.0
        announced = [effect for effect in taker.tick() if isinstance(effect, Announce | Confirm)]
        assert bool(announced) is (state == "open")


def test_what_was_to_be_tried_again_waits_until_the_market_opens(taker: Peer, clock: Clock) -> None:
    order, effects = taker.place("buy", 100, 5)
    taker.offer_answered(
        order.id, only(effects, Announce).round, "maker", {"contended": True, "from": "maker"}
    )
    taker.set_state("halted", "ops")
    clock.now += 2.0
    taker.market.roster.heard("maker", "maker", clock.now)
    assert not [effect for effect in taker.tick() if isinstance(effect, Announce)]
    assert order.open == 5


def test_a_post_only_order_yields_to_nobody_while_the_market_is_closed(taker: Peer, clock: Clock) -> None:
    order, _ = taker.place("buy", 100, 5, post_only="reject")
    for sequence, state in enumerate(("cancel_only", "open"), 1):
        taker.set_state(state, "ops")
        beat = {"sequence": sequence, "from": "maker", "best_ask": "99", "ask_since": clock.time_ms() - 1}
        taker.heartbeat_answered("maker", beat)
        assert order.live is (state == "cancel_only")


def test_what_each_state_refuses(maker: Peer) -> None:
    order, _ = maker.place("sell", 100, 5)
    maker.set_state("cancel_only", "ops")
    with pytest.raises(OrderRefusedError) as caught:
        maker.place("sell", 100, 5)
    assert caught.value.code == "cancel_only"
    maker.amend(order.id, Amendment(quantity="3"))
    maker.set_state("halted", "ops")
    for change in (
        lambda: maker.place("sell", 100, 5),
        lambda: maker.amend(order.id, Amendment(quantity="2")),
        lambda: maker.cancel(order.id),
    ):
        with pytest.raises(OrderRefusedError) as caught:
            change()
        assert caught.value.code == "halted"
    assert (order.open, order.cancel_requested) == (3, False)
    maker.set_state("cancel_only", "ops")
    maker.cancel(order.id)
    assert order.status is OrderStatus.CANCELLED


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_state_outlives_a_restart(maker: Peer, clock: Clock, snapshot: bool) -> None:
    order, _ = maker.place("sell", 100, 5)
    maker.set_state("halted", "ops")
    maker.set_state("halted", "somebody")
    events = maker.market.take_events()
    assert events[1:] == [Switched("halted", "ops", clock.time_ms())], "what it is already is no event"
    recovered = Recovered("maker", "SIM").apply(events)
    if snapshot:
        plain, recovered = recovered.to_plain(), Recovered("maker", "SIM")
        recovered.load(plain)
    again = Peer("maker", clock)
    again.resume(recovered)
    again.check()
    with pytest.raises(OrderRefusedError):
        again.place("buy", 100, 5)
    again.set_state("open", "ops")
    again.place("buy", 100, 5, owner="bob")
    assert again.market.ledger.order(order.id).status is OrderStatus.FILLED


@pytest.mark.parametrize(
    ("state", "by", "field"), [("shut", "ops", "state"), (None, "ops", "state"), ("open", "", "by")]
)
def test_a_wrong_state_is_refused(maker: Peer, state: str | None, by: str, field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        maker.set_state(state, by)
    assert caught.value.field == field

"""Doubts that an operator settles."""

from __future__ import annotations

import pytest

from orderbook.effects import Announce, Confirm, Traded
from orderbook.errors import InvalidFieldError, UnknownDoubtError
from orderbook.events import Executed, Refused, Resolved
from orderbook.model import Order, OrderStatus
from orderbook.recovery import Recovered
from tests.unit.orderbook.negotiators import Clock, Peer, confirmed, offered, only


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def taker(clock: Clock) -> Peer:
    return Peer("taker", clock, "maker")


def doubted(taker: Peer, clock: Clock) -> tuple[Order, str]:
    """An order of 4 of which 3 are in doubt, and the match."""
    maker = Peer("maker", clock)
    maker.place("sell", 100, 3)
    order, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    taker.match_failed(confirm.match_id)
    taker.market.take_events()
    return order, confirm.match_id


def test_a_doubt_settled_as_committed_is_a_trade(taker: Peer, clock: Clock) -> None:
    order, match_id = doubted(taker, clock)
    assert [id for id, _ in taker.doubts()] == [match_id]
    assert taker.lots_in_doubt() == {order.id: 3}
    same, effects = taker.resolve(match_id, "committed", "ann")
    taker.check()
    assert same is order
    assert (order.filled, order.open) == (3, 1)
    (trade,) = only(effects, Traded).trades
    assert (trade.match_id, trade.maker_peer, trade.price) == (match_id, "maker", 100)
    assert taker.doubts() == []
    resolved, executed = taker.market.take_events()
    assert resolved == Resolved(match_id, "committed", "ann", clock.time_ms())
    assert isinstance(executed, Executed)


def test_a_doubt_settled_as_refused_gives_the_quantity_back(taker: Peer, clock: Clock) -> None:
    order, match_id = doubted(taker, clock)
    taker.resolve(match_id, "refused", "ann")
    taker.check()
    assert (order.status, order.open) == (OrderStatus.OPEN, 4)
    assert [type(event) for event in taker.market.take_events()] == [Resolved, Refused]
    clock.now += 1.0
    assert [e.order_id for e in taker.tick() if isinstance(e, Announce)] == [order.id], "it looks elsewhere"


@pytest.mark.parametrize("outcome", ["committed", "refused"])
@pytest.mark.parametrize("status", ["committed", "rejected"])
def test_a_maker_that_answers_after_a_doubt_was_settled_changes_nothing(
    taker: Peer, clock: Clock, outcome: str, status: str
) -> None:
    """Also where it says something else: who has settled it has to put that right with the other side."""
    order, match_id = doubted(taker, clock)
    taker.resolve(match_id, outcome, "ann")
    taker.market.take_events()
    before = (order.filled, order.open, order.reserved)
    assert taker.match_answered(match_id, {"status": status, "from": "maker"}) == []
    assert taker.match_failed(match_id) == []
    taker.check()
    assert (order.filled, order.open, order.reserved) == before
    assert taker.market.take_events() == []
    clock.now += 60.0
    assert not [effect for effect in taker.tick() if isinstance(effect, Confirm)], "and is not asked again"


@pytest.mark.parametrize("status", ["committed", "rejected"])
def test_a_match_of_another_peer_that_has_the_id_of_a_doubt_is_no_answer_to_it(
    taker: Peer, clock: Clock, status: str
) -> None:
    """A maker knows the id of what it is asked, and may name its own match like that, before it answers."""
    maker = Peer("maker", clock)
    maker.place("sell", 100, 4)
    order, announce, offer = offered(taker, maker, "buy", 100, 4)
    match_id = confirmed(taker, announce, offer).match_id
    taker.match_failed(match_id)
    sold, _ = taker.place("sell", 200, 3)
    taker.offer_answered(sold.id, 1, "maker", None)
    theirs = {"id": "x", "market": "SIM", "side": "buy", "price": "200", "quantity": "3"}
    offer = taker.told(taker.envelope("AnnounceOpenOrder", "maker", order=theirs, round=1))
    match = {"match_id": match_id, "lock_id": offer["lock_id"], "fills": offer["fills"]}
    assert taker.told(taker.envelope("CrossPeerMatch", "maker", **match))["status"] == "committed"
    events = taker.market.take_events()
    recovered = Recovered("taker", "SIM").apply(events).finish()
    assert list(recovered.confirmations) == [match_id], "after a restart the maker is asked again"
    assert recovered.orders[order.id].reserved == order.reserved == 4
    taker.match_answered(match_id, {"status": status, "from": "maker"})
    recovered = Recovered("taker", "SIM").apply(events + taker.market.take_events()).finish()
    assert not recovered.confirmations
    assert (recovered.orders[order.id].filled, recovered.orders[sold.id].filled) == (order.filled, 3)


def test_only_what_is_in_doubt_can_be_settled(taker: Peer, clock: Clock) -> None:
    order, match_id = doubted(taker, clock)
    with pytest.raises(UnknownDoubtError):
        taker.resolve("another", "refused", "ann")
    for outcome, by, field in (("perhaps", "ann", "outcome"), ("refused", None, "by"), ("refused", "", "by")):
        with pytest.raises(InvalidFieldError) as caught:
            taker.resolve(match_id, outcome, by)
        assert caught.value.field == field
    assert taker.market.take_events() == []
    taker.resolve(match_id, "refused", "ann")
    with pytest.raises(UnknownDoubtError):
        taker.resolve(match_id, "committed", "ann")
    assert order.filled == 0


def test_what_is_under_way_is_no_doubt_yet(taker: Peer, clock: Clock) -> None:
    maker = Peer("maker", clock)
    maker.place("sell", 100, 3)
    _, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    with pytest.raises(UnknownDoubtError):
        taker.resolve(confirm.match_id, "refused", "ann")

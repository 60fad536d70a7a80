"""The protocol, message by message: two peers, a clock set by hand, and every answer under our control."""

from __future__ import annotations

from typing import Any

import pytest

from orderbook import limits
from orderbook.effects import Announce, Beat, Confirm, Settled, Tell, Traded
from orderbook.envelopes import plain
from orderbook.errors import (
    OrderBookError,
    OrderClosedError,
)
from orderbook.messages import ReleaseLock
from orderbook.model import OrderStatus
from orderbook.selection import POLICIES
from tests.unit.orderbook.negotiators import Clock, Peer, confirmed, kinds, offered, only, settled

# -- the happy path ------------------------------------------------------------------------------------


def test_announce_reserve_confirm_fill(taker: Peer, maker: Peer) -> None:
    resting, effects = maker.place("sell", 100, 10)
    assert kinds(effects) == [Settled]
    order, announce, offer = offered(taker, maker, "buy", 105, 4)
    said = plain(announce.payload)
    assert said["type"] == "AnnounceOpenOrder"
    assert said["from"] == "taker"
    assert said["payload"]["order"] == {
        "id": order.id,
        "market": "SIM",
        "side": "buy",
        "price": "105",
        "quantity": "4",
    }
    assert order.reserved == 4, "self-reserved while it is under way"
    assert (resting.open, resting.reserved) == (6, 4)
    assert offer["fills"] == [{"order_id": resting.id, "price": "100", "quantity": "4"}]
    assert (offer["quantity"], offer["fully_matched"], offer["lease"]) == ("4", True, 1000 * limits.LEASE_S)

    confirm = confirmed(taker, announce, offer)
    answer = maker.answer(confirm)
    assert answer["status"] == "committed"
    effects = taker.match_answered(confirm.match_id, answer)
    assert kinds(effects) == [Traded, Settled]
    assert order.status is OrderStatus.FILLED
    assert (resting.open, resting.reserved, resting.filled) == (6, 0, 4)
    (trade,) = taker.market.ledger.trades_of_order(order.id)
    assert maker.market.ledger.trades_of_order(resting.id) == [trade]
    assert answer["trades"] == [
        {
            "match_id": confirm.match_id,
            "market": "SIM",
            "price": "100",
            "quantity": "4",
            "maker_order_id": resting.id,
            "taker_order_id": order.id,
            "maker_peer": "maker",
            "taker_peer": "taker",
            "time": 100_000,
            "side": "buy",
        }
    ]


def test_local_orders_match_first_and_only_the_rest_is_announced(taker: Peer) -> None:
    taker.market.roster.lost("maker")
    taker.place("sell", 101, 3, owner="bob")
    taker.place("sell", 100, 2, owner="bob")
    taker.market.roster.discovered(["maker"], 100.0)
    taker.market.roster.heard("maker", "maker", 100.0)
    order, effects = taker.place("buy", 101, 10)
    assert (order.filled, order.reserved) == (5, 5)
    assert plain(only(effects, Announce).payload)["payload"]["order"]["quantity"] == "5"
    assert [trade.price for trade in only(effects, Traded).trades] == [100, 101]


def test_nobody_to_ask_means_it_rests_at_once(maker: Peer) -> None:
    order, effects = maker.place("buy", 100, 1)
    assert kinds(effects) == [Settled]
    assert (order.open, order.reserved) == (1, 0)


def test_several_peers_fill_one_order_and_who_is_not_chosen_is_released(clock: Clock) -> None:
    makers = {name: Peer(name, clock) for name in ("m1", "m2", "m3")}
    taker = Peer("taker", clock, *makers)
    orders = {n: makers[n].place("sell", price, 5)[0] for n, price in (("m1", 101), ("m2", 100), ("m3", 102))}
    order, effects = taker.place("buy", 105, 8)
    announces = [effect for effect in effects if isinstance(effect, Announce)]
    for announce in announces:
        offer = makers[announce.destination].answer(announce)
        effects = taker.offer_answered(announce.order_id, announce.round, announce.destination, offer)
    assert sorted(kinds(effects), key=str) == [Confirm, Confirm, Tell]
    assert makers["m3"].answer(only(effects, Tell)) == {"released": True}
    for confirm in [effect for effect in effects if isinstance(effect, Confirm)]:
        taker.match_answered(confirm.match_id, makers[confirm.destination].answer(confirm))
    assert order.status is OrderStatus.FILLED
    assert (orders["m2"].filled, orders["m1"].filled, orders["m3"].open) == (5, 3, 5)
    assert orders["m1"].open == 2, "confirming less than was reserved frees the rest"


# -- the maker -----------------------------------------------------------------------------------------


def test_nothing_to_offer_is_null_and_reserved_only_is_contended(
    taker: Peer, maker: Peer, clock: Clock
) -> None:
    _, _, offer = offered(taker, maker, "buy", 100, 1)
    assert offer is None
    maker.place("sell", 100, 5)
    _, _, first = offered(Peer("first", clock, "maker"), maker, "buy", 100, 5)
    assert first["quantity"] == "5"
    _, _, second = offered(Peer("second", clock, "maker"), maker, "buy", 100, 5)
    assert second == {"contended": True, "from": "maker"}
    _, _, outside = offered(Peer("third", clock, "maker"), maker, "buy", 99, 5)
    assert outside is None


def test_a_repeated_announcement_is_one_reservation(taker: Peer, maker: Peer) -> None:
    resting, _ = maker.place("sell", 100, 10)
    _, announce, offer = offered(taker, maker, "buy", 100, 4)
    assert maker.answer(announce) == offer
    assert resting.reserved == 4


def test_a_repeated_confirmation_has_the_same_answer_and_one_fill(taker: Peer, maker: Peer) -> None:
    resting, _ = maker.place("sell", 100, 10)
    _, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    answer = maker.answer(confirm)
    assert maker.answer(confirm) == answer
    assert resting.filled == 4
    assert maker.market.ledger.trade_count == 1


def test_a_lease_that_has_run_out_frees_the_order_and_refuses_for_good(
    taker: Peer, maker: Peer, clock: Clock
) -> None:
    resting, _ = maker.place("sell", 100, 10)
    order, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    clock.now += limits.LEASE_S
    assert maker.answer(confirm)["status"] == "rejected", "refused even before the sweep"
    assert (resting.open, resting.reserved) == (10, 0)
    assert maker.answer(confirm)["status"] == "rejected"
    effects = taker.match_answered(confirm.match_id, maker.answer(confirm))
    again = only(effects, Announce)
    assert again.round == 2, "what was refused is looked for again"
    assert order.reserved == 4


def test_the_sweep_frees_what_nobody_confirmed(taker: Peer, maker: Peer, clock: Clock) -> None:
    resting, _ = maker.place("sell", 100, 10)
    offered(taker, maker, "buy", 100, 4)
    due = maker.next_due()
    assert due is not None
    clock.now += limits.LEASE_S
    maker.tick()
    assert (resting.open, resting.reserved) == (10, 0)
    assert not maker.market.book.reservations


def test_only_the_counterparty_can_use_a_lock(taker: Peer, maker: Peer) -> None:
    resting, _ = maker.place("sell", 100, 10)
    _, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    stolen = {**plain(confirm.payload), "from": "thief"}
    assert maker.told(stolen)["status"] == "rejected"
    release = maker.envelope("ReleaseLock", "thief", lock_id=offer["lock_id"])
    assert maker.told(release) == {"released": False}
    assert resting.reserved == 4
    assert maker.answer(confirm)["status"] == "committed"
    assert maker.told(stolen)["status"] == "rejected", "match ids are their taker's"
    assert maker.answer(confirm)["status"] == "committed"


@pytest.mark.parametrize(
    "change",
    [
        {"quantity": "5"},
        {"price": "99"},
        {"order_id": "another"},
        {"quantity": "0"},
        {"price": "x"},
    ],
)
def test_confirming_what_was_not_offered_is_refused_and_ends_the_lock(
    taker: Peer, maker: Peer, change: dict[str, str]
) -> None:
    resting, _ = maker.place("sell", 100, 10)
    _, _, offer = offered(taker, maker, "buy", 100, 4)
    fills = [{**offer["fills"][0], **change}]
    wrong = maker.envelope("CrossPeerMatch", "taker", match_id="m", lock_id=offer["lock_id"], fills=fills)
    assert maker.told(wrong)["status"] == "rejected"
    right = maker.envelope(
        "CrossPeerMatch", "taker", match_id="m", lock_id=offer["lock_id"], fills=offer["fills"]
    )
    assert maker.told(right)["status"] == "rejected", "a refusal never changes"
    assert (resting.open, resting.filled) == (10, 0)
    maker.check()


def test_one_counterparty_cannot_lock_everything(
    maker: Peer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RESERVATIONS_PER_COUNTERPARTY", 2)
    maker.place("sell", 100, 10)
    greedy = Peer("greedy", clock, "maker")
    answers = [offered(greedy, maker, "buy", 100, 1)[2] for _ in range(3)]
    assert "lock_id" in answers[1]
    assert answers[2] == {"contended": True, "from": "maker"}
    assert "lock_id" in offered(Peer("modest", clock, "maker"), maker, "buy", 100, 1)[2]


def test_own_broadcasts_are_ignored_and_nonsense_is_refused(maker: Peer) -> None:
    order = {"id": "1", "market": "SIM", "side": "buy", "price": "1", "quantity": "1"}
    resting, _ = maker.place("sell", 1, 1)
    assert maker.told(maker.envelope("AnnounceOpenOrder", "maker", order=order)) is None
    assert resting.open == 1, "a peer does not reserve its own orders for itself"
    nonsense = [
        None,
        5,
        "x",
        [],
        {},
        {"type": "AnnounceOpenOrder", "from": "x"},
        maker.envelope("Nothing", "x"),
        maker.envelope("AnnounceOpenOrder", "x"),
        maker.envelope("AnnounceOpenOrder", "a b", order=order),
        maker.envelope("AnnounceOpenOrder", "x", order={**order, "market": "OTHER"}),
        maker.envelope("AnnounceOpenOrder", "x", order={**order, "price": 1}),
        maker.envelope("AnnounceOpenOrder", "x", order={**order, "price": "-1"}),
        maker.envelope("AnnounceOpenOrder", "x", order={**order, "side": "hold"}),
        maker.envelope("AnnounceOpenOrder", "x", order={**order, "id": "x" * 100}),
        maker.envelope("AnnounceOpenOrder", "x", order=order, instrument="other"),
        maker.envelope("CrossPeerMatch", "x", match_id="m", lock_id="l", fills=[]),
        maker.envelope("CrossPeerMatch", "x", match_id="m", lock_id="l", fills=[order] * 300),
        maker.envelope("ReleaseLock", "x", lock_id=["l"]),
        maker.envelope("Heartbeat", "x", sequence=-1),
    ]
    for payload in nonsense:
        with pytest.raises(OrderBookError):
            maker.handle(payload)
    maker.check()


# -- the taker -----------------------------------------------------------------------------------------


def test_an_unanswered_confirmation_is_in_doubt_until_the_maker_has_answered(
    taker: Peer, maker: Peer, clock: Clock
) -> None:
    resting, _ = maker.place("sell", 100, 10)
    order, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    answer = maker.answer(confirm)  # committed, but the answer is lost
    effects = taker.match_failed(confirm.match_id)
    assert order.id in settled(effects)
    assert (order.open, order.reserved, taker.in_doubt) == (0, 4, 1)
    clock.now += 1.0
    repeated = only(taker.tick(), Confirm)
    assert repeated.payload == confirm.payload
    taker.match_failed(confirm.match_id)
    clock.now += 60.0
    repeated = only(taker.tick(), Confirm)
    assert maker.answer(repeated) == answer
    taker.match_answered(confirm.match_id, answer)
    assert order.status is OrderStatus.FILLED
    assert resting.filled == 4
    assert taker.in_doubt == taker.under_way == 0


def test_an_in_doubt_quantity_that_was_refused_opens_again(taker: Peer, maker: Peer) -> None:
    maker.place("sell", 100, 10)
    order, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    taker.match_failed(confirm.match_id)
    taker.match_answered(confirm.match_id, {"status": "rejected", "reason": "restarted"})
    taker.check()
    assert (order.open, order.reserved) == (4, 0)
    assert taker.match_answered(confirm.match_id, {"status": "committed"}) == [], "answered once and for all"
    assert order.open == 4


@pytest.mark.parametrize("answer", [None, 5, {}, {"status": "maybe"}, {"status": "committed", "trades": 5}])
def test_an_answer_that_is_none_leaves_the_doubt(taker: Peer, maker: Peer, answer: object) -> None:
    maker.place("sell", 100, 10)
    order, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    taker.match_answered(confirm.match_id, answer)
    taker.check()
    assert (order.reserved, taker.in_doubt) == (4, 1)


@pytest.mark.parametrize("status", ["committed", "rejected"])
def test_only_the_maker_itself_ends_the_doubt(taker: Peer, maker: Peer, status: str) -> None:
    """Another peer may have come to its address: it knows nothing of the match, whatever it says."""
    maker.place("sell", 100, 10)
    order, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    taker.match_answered(confirm.match_id, {"status": status, "from": "another"})
    taker.check()
    assert (order.reserved, taker.in_doubt) == (4, 1)
    taker.match_answered(confirm.match_id, maker.answer(confirm))
    assert order.status is OrderStatus.FILLED


@pytest.mark.parametrize(
    "change",
    [
        {"fills": [{"order_id": "x", "price": "106", "quantity": "4"}]},
        {"fills": [{"order_id": "x", "price": "100", "quantity": "5"}]},
        {"fills": [{"order_id": "x", "price": "100", "quantity": "2"}] * 2},
        {"fills": []},
        {"fills": None},
        {"lease": "soon"},
        {"from": 5},
    ],
)
def test_an_offer_that_lies_is_released_and_costs_nothing(
    taker: Peer, maker: Peer, change: dict[str, Any]
) -> None:
    maker.place("sell", 100, 10)
    order, announce, offer = offered(taker, maker, "buy", 105, 4)
    effects = taker.offer_answered(order.id, announce.round, "maker", {**offer, **change})
    taker.check()
    assert kinds(effects) == [Tell, Settled]
    assert maker.answer(only(effects, Tell)) == {"released": True}
    assert (order.open, order.filled) == (4, 0)


def test_an_offer_that_comes_too_late_or_twice_is_released(taker: Peer, maker: Peer) -> None:
    resting, _ = maker.place("sell", 100, 10)
    order, announce, offer = offered(taker, maker, "buy", 105, 4)
    taker.offer_failed(order.id, announce.round, "maker")
    effects = taker.offer_answered(order.id, announce.round, "maker", offer)
    maker.answer(only(effects, Tell))
    assert (resting.open, order.open) == (10, 4)


@pytest.mark.parametrize("length", [64, 65, 128])
def test_a_lock_is_released_however_long_its_id(taker: Peer, length: int) -> None:
    order, effects = taker.place("buy", 105, 4)
    announce = only(effects, Announce)
    taker.offer_failed(order.id, announce.round, "maker")
    late = {"lock_id": "l" * length}
    effects = taker.offer_answered(order.id, announce.round, "maker", late)
    assert plain(only(effects, Tell).payload)["payload"] == late


def test_a_cancelled_order_under_way_confirms_nothing_more(taker: Peer, maker: Peer) -> None:
    resting, _ = maker.place("sell", 100, 10)
    order, announce, offer = offered(taker, maker, "buy", 105, 4)
    taker.cancel(order.id)
    assert order.status is OrderStatus.PENDING_CANCEL
    effects = taker.offer_answered(order.id, announce.round, "maker", offer)
    maker.answer(only(effects, Tell))
    assert order.status is OrderStatus.CANCELLED
    assert resting.open == 10


def test_a_cancel_loses_against_a_confirmation_and_wins_against_the_rest(taker: Peer, maker: Peer) -> None:
    resting, _ = maker.place("sell", 100, 10)
    _, announce, offer = offered(taker, maker, "buy", 105, 4)
    maker.cancel(resting.id)
    assert (resting.cancelled, resting.reserved) == (6, 4)
    assert resting.status is OrderStatus.PENDING_CANCEL
    confirm = confirmed(taker, announce, offer)
    assert maker.answer(confirm)["status"] == "committed"
    assert (resting.filled, resting.cancelled) == (4, 6)
    with pytest.raises(OrderClosedError):
        maker.cancel(resting.id)


def test_a_released_reservation_of_a_cancelled_order_is_cancelled(taker: Peer, maker: Peer) -> None:
    resting, _ = maker.place("sell", 100, 10)
    _, _, offer = offered(taker, maker, "buy", 105, 4)
    maker.cancel(resting.id)
    maker.handle(maker.envelope("ReleaseLock", "taker", lock_id=offer["lock_id"]))
    maker.check()
    assert resting.status is OrderStatus.CANCELLED
    assert resting.cancelled == 10


def test_contended_orders_are_announced_again_after_a_pause(taker: Peer, clock: Clock) -> None:
    order, effects = taker.place("buy", 100, 4)
    announce = only(effects, Announce)
    effects = taker.offer_answered(order.id, 1, announce.destination, {"contended": True})
    assert kinds(effects) == [Settled]
    clock.now += 2 * limits.CONTENDED_RETRY_S[0]
    again = only([e for e in taker.tick() if not isinstance(e, Beat)], Announce)
    assert again.order_id == order.id
    assert order.reserved == 4


def test_a_peer_that_could_not_be_asked_is_not_a_peer_without_orders(taker: Peer, clock: Clock) -> None:
    order, effects = taker.place("buy", 100, 4)
    announce = only(effects, Announce)
    taker.offer_failed(order.id, announce.round, announce.destination)
    clock.now += 2 * limits.CONTENDED_RETRY_S[0]
    assert only([e for e in taker.tick() if not isinstance(e, Beat)], Announce).order_id == order.id


def test_what_arrived_meanwhile_meets_what_is_released(taker: Peer) -> None:
    order, effects = taker.place("buy", 100, 4)
    first = only(effects, Announce)
    other, effects = taker.place("sell", 100, 4, owner="bob")
    second = only(effects, Announce)
    assert other.reserved == 4, "the buy order is held and can't be taken"
    taker.offer_answered(order.id, first.round, "maker", None)
    assert (order.open, other.reserved) == (4, 4)
    effects = taker.offer_answered(other.id, second.round, "maker", None)
    taker.check()
    assert order.status is other.status is OrderStatus.FILLED
    (trade,) = only(effects, Traded).trades
    assert (trade.maker_order_id, trade.price) == (order.id, 100)


def test_who_lets_leases_run_out_gets_shorter_ones_and_then_none_for_a_while(
    maker: Peer, clock: Clock
) -> None:
    maker.place("sell", 100, 10)
    waster = Peer("waster", clock, "maker")
    leases = []
    for _ in range(limits.LEASES_WASTED):
        _, _, offer = offered(waster, maker, "buy", 100, 1)
        leases.append(offer["lease"])
        clock.now += offer["lease"] / 1000
        maker.tick()
    assert leases[0] == 1000 * limits.LEASE_S
    assert leases == sorted(leases, reverse=True)
    assert leases[-1] == 1000 * limits.LEASE_LEAST_S
    assert offered(waster, maker, "buy", 100, 1)[2] == {"contended": True, "from": "maker"}
    honest = Peer("honest", clock, "maker")
    assert offered(honest, maker, "buy", 100, 1)[2]["lease"] == 1000 * limits.LEASE_S
    clock.now += limits.COOL_OFF_S
    assert offered(waster, maker, "buy", 100, 1)[2]["lease"] == 1000 * limits.LEASE_S


def test_strangers_are_remembered_within_a_bound(
    maker: Peer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COUNTERPARTIES", 3)
    maker.place("sell", 100, 10)
    for n in range(3):
        offered(Peer(f"stranger{n}", clock, "maker"), maker, "buy", 100, 1)
    assert offered(Peer("late", clock, "maker"), maker, "buy", 100, 1)[2] == {
        "contended": True,
        "from": "maker",
    }
    clock.now += limits.LEASE_S + limits.COOL_OFF_S
    maker.tick()
    clock.now += limits.COOL_OFF_S
    assert "lock_id" in offered(Peer("late", clock, "maker"), maker, "buy", 100, 1)[2]


def test_goodbye_frees_what_was_reserved_and_leaves_the_roster(
    taker: Peer, maker: Peer, clock: Clock
) -> None:
    resting, _ = maker.place("sell", 100, 10)
    maker.discovered(["taker"])
    maker.heartbeat_answered("taker", {"sequence": 1, "from": "taker"})
    offered(taker, maker, "buy", 100, 4)
    (goodbye,) = taker.leave()
    assert isinstance(goodbye, Tell)
    assert maker.answer(goodbye) is None
    assert (resting.open, maker.market.roster.all()) == (10, [])


def test_who_vanishes_loses_its_reservations(
    taker: Peer, maker: Peer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LEASE_S", 60.0)
    resting, _ = maker.place("sell", 100, 10)
    maker.discovered(["taker"])
    maker.heartbeat_answered("taker", {"sequence": 1, "from": "taker"})
    offered(taker, maker, "buy", 100, 4)
    assert resting.reserved == 4
    clock.now += limits.HEARTBEATS_MISSED * limits.HEARTBEAT_S + 0.1
    maker.tick()
    assert (resting.open, maker.market.roster.all()) == (10, [])


def test_the_fastest_offer_is_taken_without_waiting_for_those_who_have_nothing_better(clock: Clock) -> None:
    makers = {name: Peer(name, clock) for name in ("m1", "m2", "m3")}
    taker = Peer("taker", clock, *makers)
    taker.market.policy = POLICIES["fastest"]
    makers["m1"].place("sell", 101, 5)
    makers["m2"].place("sell", 102, 5)
    makers["m3"].place("sell", 100, 5)
    for name, peer in makers.items():
        beat = only([e for e in peer.discovered(["x"]) if isinstance(e, Beat)], Beat)
        taker.heartbeat_answered(name, plain(beat.payload)["payload"])
    order, effects = taker.place("buy", 105, 5)
    asked = {effect.destination: effect for effect in effects if isinstance(effect, Announce)}
    first = taker.offer_answered(order.id, 1, "m1", makers["m1"].answer(asked["m1"]))
    assert first == [], "the third has published a better price"
    second = taker.offer_answered(order.id, 1, "m3", makers["m3"].answer(asked["m3"]))
    assert kinds(second) == [Confirm, Tell], "the second has not"
    assert [only(second, Confirm).destination, only(second, Tell).destination] == ["m3", "m1"]
    late = taker.offer_answered(order.id, 1, "m2", makers["m2"].answer(asked["m2"]))
    assert makers["m2"].answer(only(late, Tell)) == {"released": True}


def test_who_leaves_many_confirmations_unanswered_has_no_further_offers_taken(
    taker: Peer, maker: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOUBTS_PER_MAKER", 2)
    maker.place("sell", 100, 10)
    asked = []
    for _ in range(2):
        _, announce, offer = offered(taker, maker, "buy", 100, 1)
        asked.append(confirmed(taker, announce, offer))
        taker.match_failed(asked[-1].match_id)
        taker.match_failed(asked[-1].match_id)
    _, announce, offer = offered(taker, maker, "buy", 100, 1)
    effects = taker.offer_answered(announce.order_id, announce.round, announce.destination, offer)
    assert [type(effect.payload.payload) for effect in effects if isinstance(effect, Tell)] == [ReleaseLock]
    assert not any(isinstance(effect, Confirm) for effect in effects)
    for confirm in asked:
        taker.match_answered(confirm.match_id, maker.answer(confirm))
    _, announce, offer = offered(taker, maker, "buy", 100, 1)
    assert confirmed(taker, announce, offer).maker == "maker"

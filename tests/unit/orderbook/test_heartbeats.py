"""Heartbeats and discovery: who is there, what crosses, who has moved or gone."""

from __future__ import annotations

from orderbook import limits
from orderbook.effects import Announce, Beat, Confirm, Discover, Duplicate, Effect
from orderbook.envelopes import plain
from tests.unit.orderbook.negotiators import INSTRUMENT, Clock, Peer, confirmed, kinds, offered, only


def test_a_heartbeat_that_crosses_makes_the_crossing_orders_announce(taker: Peer, clock: Clock) -> None:
    order, _ = taker.place("buy", 100, 4)
    taker.offer_answered(order.id, 1, "maker", None)
    low, _ = taker.place("buy", 98, 4)
    taker.offer_answered(low.id, 1, "maker", None)
    beat = {"sequence": 1, "best_bid": None, "best_ask": "99", "instrument": INSTRUMENT.fingerprint}
    taker.heartbeat_answered("maker", {**beat, "from": "maker"})
    clock.now += 1.0
    announced = [effect.order_id for effect in taker.tick() if isinstance(effect, Announce)]
    assert announced == [order.id]


def test_an_overtaken_heartbeat_changes_nothing(taker: Peer, clock: Clock) -> None:
    order, _ = taker.place("buy", 100, 4)
    taker.offer_answered(order.id, 1, "maker", None)
    beat = {"sequence": 7, "from": "maker"}
    taker.heartbeat_answered("maker", beat)
    taker.heartbeat_answered("maker", {**beat, "sequence": 6, "best_ask": "99"})
    clock.now += 0.5
    assert not [effect for effect in taker.tick() if isinstance(effect, Announce)]


def test_a_peer_that_comes_back_in_its_place_is_heard_again(taker: Peer, clock: Clock) -> None:
    """It has lost its count with its process, within a moment in which nobody has missed it."""
    taker.heartbeat_answered("maker", {"sequence": 1000, "from": "maker"})
    order, _ = taker.place("buy", 100, 4)
    taker.offer_answered(order.id, 1, "maker", None)
    announced = []
    for sequence in range(1, limits.HEARTBEATS_MISSED + 2):
        clock.now += limits.HEARTBEAT_S
        taker.heartbeat_answered("maker", {"sequence": sequence, "from": "maker", "best_ask": "99"})
        announced += [effect for effect in taker.tick() if isinstance(effect, Announce)]
    assert announced


def test_who_never_answers_leaves_the_roster(taker: Peer, clock: Clock) -> None:
    taker.discovered(["mute:1"])
    clock.now += (limits.HEARTBEATS_MISSED + 2) * limits.HEARTBEAT_S
    taker.tick()
    assert taker.market.roster.at("mute:1") is None
    assert only(taker.discovered(["mute:1"]), Beat).destination == "mute:1"


def test_silent_peers_leave_the_roster_and_strangers_are_looked_up(taker: Peer, clock: Clock) -> None:
    assert [peer.name for peer in taker.market.roster.trading()] == ["maker"]
    clock.now += (limits.HEARTBEATS_MISSED + 2) * limits.HEARTBEAT_S
    taker.tick()
    assert taker.market.roster.all() == []
    answer = taker.handle(taker.envelope("Heartbeat", "stranger", sequence=1))
    assert kinds(answer.effects) == [Discover]
    assert plain(answer.content)["sequence"] > 0
    assert only(taker.discovered(["stranger:1"]), Beat).destination == "stranger:1"


def test_we_are_found_by_our_own_look_ups_and_ignore_ourselves(taker: Peer) -> None:
    (beat,) = taker.discovered(["me:1"])
    assert isinstance(beat, Beat)
    answer = taker.handle(plain(beat.payload))
    taker.heartbeat_answered("me:1", plain(answer.content))
    assert taker.discovered(["me:1"]) == []
    assert [peer.name for peer in taker.market.roster.all()] == ["maker"]


def test_of_places_where_our_own_name_answers_only_the_newest_are_remembered(taker: Peer) -> None:
    """Strangers may answer with it, from as many as they like."""
    places = [f"stranger:{n}" for n in range(limits.OWN_DESTINATIONS + 1)]
    for place in places:
        taker.discovered([place])
        taker.heartbeat_answered(place, {"sequence": 1, "from": "taker"})
    assert only(taker.discovered(places), Beat).destination == places[0]


def test_a_peer_that_has_moved_is_asked_at_its_new_place(taker: Peer, maker: Peer, clock: Clock) -> None:
    maker.place("sell", 100, 10)
    _, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    taker.match_failed(confirm.match_id)
    taker.peer_lost("maker")
    taker.discovered(["elsewhere"])
    taker.heartbeat_answered("elsewhere", {"sequence": 1, "from": "maker"})
    clock.now += 1.0
    assert only(taker.tick(), Confirm).destination == "elsewhere"


# -- two processes with one name and key -----------------------------------------------------------------


def heard_in_turn(taker: Peer, places: dict[str, list[int]], clock: Clock, pause_s: float) -> list[Duplicate]:
    """What comes of it when look-ups find the peer ``maker`` at one place after the other, where it answers
    with these sequences."""
    effects: list[Effect] = []
    taker.market.roster.lost("maker")
    for sequences in zip(*places.values(), strict=True):
        for place, sequence in zip(places, sequences, strict=True):
            taker.discovered([place])
            effects += taker.heartbeat_answered(place, {"sequence": sequence, "from": "maker"})
            clock.now += pause_s
    return [effect for effect in effects if isinstance(effect, Duplicate)]


def test_two_processes_with_one_name_are_noticed(taker: Peer, clock: Clock) -> None:
    found = heard_in_turn(taker, {"here:1": [7, 9, 11], "there:1": [500, 503, 506]}, clock, 2.0)
    assert [(each.name, each.destination, each.other) for each in found] == [
        ("maker", "here:1", "there:1"),
        ("maker", "here:1", "there:1"),
    ]
    assert taker.market.counts["duplicate"] == {"of_another": 2}


def test_one_process_with_two_addresses_is_one(taker: Peer, clock: Clock) -> None:
    assert not heard_in_turn(taker, {"here:1": [1, 3, 5, 7], "there:1": [2, 4, 6, 8]}, clock, 2.0)


def test_a_peer_that_moves_and_much_later_moves_back_is_one(taker: Peer, clock: Clock) -> None:
    assert not heard_in_turn(taker, {"here:1": [100, 1], "there:1": [1, 1]}, clock, limits.DUPLICATE_S)


def test_another_process_with_our_own_name_is_noticed(taker: Peer) -> None:
    (beat,) = taker.discovered(["twin:1"])
    assert isinstance(beat, Beat)
    found = only(taker.heartbeat_answered("twin:1", {"sequence": 1, "from": "taker"}), Duplicate)
    assert (found.name, found.destination) == ("taker", "twin:1")
    (beat,) = taker.discovered(["me:1"])
    assert isinstance(beat, Beat)
    answer = plain(taker.handle(plain(beat.payload)).content)
    assert taker.heartbeat_answered("me:1", answer) == []
    assert taker.market.counts["duplicate"] == {"of_us": 1}

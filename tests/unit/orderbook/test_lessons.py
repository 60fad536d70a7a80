"""What went wrong in other systems of this shape; ``docs/protocol.md`` names the cases."""

from __future__ import annotations

import itertools

import pytest

from orderbook import limits
from orderbook.effects import Announce, Confirm, Discover, Settled, Tell
from orderbook.entry import NewOrder
from orderbook.envelopes import request
from orderbook.errors import ProtocolError
from orderbook.messages import Goodbye, Heartbeat
from orderbook.model import OrderStatus
from tests.unit.orderbook import signing_peers
from tests.unit.orderbook.negotiators import Clock, Peer, confirmed, offered, only

REJECTED = {"status": "rejected", "reason": "lock_gone: run out"}


def test_a_failed_match_does_not_bring_back_an_order_that_was_cancelled_meanwhile(
    taker: Peer, maker: Peer
) -> None:
    """xud 1838: the order was added to the book again."""
    maker.place("sell", 100, 10)
    order, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    taker.cancel(order.id)
    effects = taker.match_answered(confirm.match_id, REJECTED)
    taker.check()
    assert (order.open, order.cancelled, order.status) == (0, 4, OrderStatus.CANCELLED)
    assert not [effect for effect in effects if isinstance(effect, Announce)]
    assert only(effects, Settled).order_id == order.id


def test_a_failed_match_leaves_nothing_of_an_owner_that_has_gone(taker: Peer, maker: Peer) -> None:
    """xud 1622: the order of a peer that had left was matched again. Here orders are at their owners only."""
    maker.place("sell", 100, 10)
    order, announce, offer = offered(taker, maker, "buy", 100, 4)
    confirm = confirmed(taker, announce, offer)
    taker.peer_lost("maker")
    taker.match_failed(confirm.match_id)
    taker.match_answered(confirm.match_id, REJECTED)
    taker.check()
    assert (order.open, order.status) == (4, OrderStatus.OPEN)
    assert list(taker.market.book.orders) == [order.id]
    assert not taker.market.roster.trading()


def test_an_order_that_keeps_failing_is_tried_ever_more_rarely_and_then_left_to_the_heartbeat(
    taker: Peer, maker: Peer, clock: Clock
) -> None:
    """xud 1595: the same failing order was matched ten times in a row."""
    maker.place("sell", 100, 10)
    _, effects = taker.place("buy", 100, 4)
    confirmations: list[float] = []
    until = clock.now + 60
    while effects or clock.now < until:
        if not effects:
            clock.now += 0.01
            taker.market.roster.heard("maker", "maker", clock.now)
            effects = [effect for effect in taker.tick() if isinstance(effect, Announce)]
            continue
        effect = effects.pop(0)
        if isinstance(effect, Announce):
            answer = maker.answer(effect)
            effects += taker.offer_answered(effect.order_id, effect.round, effect.destination, answer)
        elif isinstance(effect, Confirm):
            confirmations.append(clock.now)
            maker.handle(maker.envelope("Goodbye", "taker"))  # the lock is gone before it is used
            effects += taker.match_answered(effect.match_id, maker.answer(effect))
    assert confirmations[1] == confirmations[0] < confirmations[2], (
        "the others are asked at once, but only once"
    )
    pauses = [later - earlier for earlier, later in itertools.pairwise(confirmations[: limits.ROUNDS])]
    assert sum(pauses[4:]) > 2 * sum(pauses[:4]) > 0, "and ever more rarely"
    assert len(confirmations) <= limits.ROUNDS * (1 + limits.CONTENDED_RETRIES)
    assert confirmations[-1] < until - 30, "it gives up"


def test_two_matches_can_not_spend_one_balance(maker: Peer) -> None:
    """Komodo 432: two matches in flight took the same balance."""
    resting, _ = maker.place("sell", 100, 5)

    def announce(sender: str) -> dict[str, object]:
        order = {"id": "x", "market": "SIM", "side": "buy", "price": "100", "quantity": "4"}
        return dict(maker.told(maker.envelope("AnnounceOpenOrder", sender, order=order)))

    offers = {name: announce(name) for name in ("bob", "carol")}
    assert [offer["quantity"] for offer in offers.values()] == ["4", "1"]
    for name, offer in offers.items():
        match = maker.envelope(
            "CrossPeerMatch", name, match_id="m", **{k: offer[k] for k in ("lock_id", "fills")}
        )
        assert maker.told(match)["status"] == "committed"
        maker.check()
    assert (resting.filled, resting.open, resting.reserved) == (5, 0, 0)


def test_no_time_of_another_peer_makes_an_order_last(maker: Peer, clock: Clock) -> None:
    """Komodo 1668: peers' timestamps allowed orders for ever."""
    resting, _ = maker.place("sell", 100, 5)
    order = {"id": "x", "market": "SIM", "side": "buy", "price": "100", "quantity": "4"}
    for_ever = {"time": 2**62, "created_at": 2**62, "expires_ms": 2**62, "lease": 2**62}
    maker.handle(maker.envelope("AnnounceOpenOrder", "bob", order={**order, **for_ever}, **for_ever))
    assert resting.reserved == 4
    clock.now += limits.LEASE_S
    maker.tick()
    assert (resting.open, resting.reserved) == (5, 0)
    assert list(maker.market.book.orders) == [resting.id], "nothing of the other's order is kept"


def test_a_replayed_heartbeat_raises_no_ghost() -> None:
    """Komodo 2580: replayed keep-alives brought back orders of peers that had gone."""
    clock = signing_peers.Clock()
    alice = signing_peers.SigningPeer("alice", clock, "bob")
    bob = signing_peers.SigningPeer("bob", clock, "alice")
    beat = bob.channel.gate.seal(request("bob", Heartbeat(sequence=1, best_bid="200")))
    alice.answer(beat.message)
    assert alice.market.roster.trading()
    alice.answer(bob.channel.gate.seal(request("bob", Goodbye())).message)
    assert not alice.market.roster.trading()
    with pytest.raises(ProtocolError, match="nonce"):
        alice.answer(beat.message)
    assert not alice.market.roster.trading()
    assert not alice.market.book.orders


def test_a_heartbeat_never_says_more_than_that_somebody_is_there(taker: Peer) -> None:
    """Whoever replays or makes up best prices makes us ask, no more: orders are at their owners."""
    order, _ = taker.place("sell", 100, 5)
    taker.heartbeat_answered("maker", {"sequence": 5, "best_bid": "1000", "from": "maker"})
    answer = taker.handle(taker.envelope("Heartbeat", "ghost", sequence=9, best_bid="1000"))
    assert [type(effect) for effect in answer.effects] == [Discover]
    assert list(taker.market.book.orders) == [order.id]


def test_what_a_refused_match_leaves_is_offered_to_the_others(clock: Clock) -> None:
    """bitfinex-challenge: the remainder was never offered to the other repliers."""
    makers = {name: Peer(name, clock) for name in ("m1", "m2")}
    taker = Peer("taker", clock, *makers)
    for peer in makers.values():
        peer.place("sell", 100, 4)
    order, effects = taker.place("buy", 100, 4)
    announced = [effect for effect in effects if isinstance(effect, Announce)]
    effects = []
    for announce in announced:
        offer = makers[announce.destination].answer(announce)
        effects += taker.offer_answered(announce.order_id, announce.round, announce.destination, offer)
    confirm, release = only(effects, Confirm), only(effects, Tell)
    makers[release.destination].answer(release)
    makers[confirm.destination].handle(makers[confirm.destination].envelope("Goodbye", "taker"))
    makers[confirm.destination].market.book.cancel(next(iter(makers[confirm.destination].market.book.orders)))
    effects = taker.match_answered(confirm.match_id, makers[confirm.destination].answer(confirm))
    again = {effect.destination: effect for effect in effects if isinstance(effect, Announce)}
    assert again.keys() == makers.keys()
    for destination, announce in again.items():
        answer = makers[destination].answer(announce)
        effects = taker.offer_answered(announce.order_id, announce.round, destination, answer)
    confirm = only(effects, Confirm)
    assert confirm.destination == release.destination
    taker.match_answered(confirm.match_id, makers[confirm.destination].answer(confirm))
    assert order.status is OrderStatus.FILLED


def test_an_answer_that_was_lost_is_not_a_second_order(maker: Peer) -> None:
    """curiousv32: a retry applied an order twice."""
    new = NewOrder("sell", "100", "5", "ann", "mine")
    first, _ = maker.submit(new)
    again, _ = maker.submit(new)
    assert again is first
    assert len(maker.market.book.orders) == 1

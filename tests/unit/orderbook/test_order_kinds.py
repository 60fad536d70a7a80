"""Orders of every kind over the network, message by message."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from orderbook import limits
from orderbook.effects import Announce, Beat, Confirm, Effect, Settled, Tell, Traded
from orderbook.entry import Amendment, NewOrder, NewPair
from orderbook.envelopes import plain
from orderbook.errors import DuplicateOrderError, InvalidFieldError, OrderRefusedError, UnderWayError
from orderbook.model import Order, OrderStatus
from orderbook.recovery import Recovered
from orderbook.terms import Routing
from tests.unit.orderbook.negotiators import Clock, Peer, confirmed, kinds, offered, only, settled


class Network:
    """A taker and its makers, each of which sells ``lots`` at 100 plus its place."""

    def __init__(self, clock: Clock, lots: int, makers: int = 2, routing: Routing = Routing.LOCAL_FIRST):
        names = [f"m{n}" for n in range(makers)]
        self.makers = {name: Peer(name, clock) for name in names}
        self.taker = Peer("taker", clock, *names, routing=routing)
        self.resting = {
            name: peer.place("sell", 100 + n, lots)[0] for n, (name, peer) in enumerate(self.makers.items())
        }

    def offers(self, effects: list[Effect]) -> list[Effect]:
        """All makers answer the announcements in ``effects``."""
        for announce in [effect for effect in effects if isinstance(effect, Announce)]:
            offer = self.makers[announce.destination].answer(announce)
            effects = self.taker.offer_answered(
                announce.order_id, announce.round, announce.destination, offer
            )
            self.taker.check()
        return effects

    def commits(self, effects: list[Effect]) -> list[Effect]:
        """The maker of the one confirmation in ``effects`` executes it."""
        confirm = only(effects, Confirm)
        return self.answered(confirm, self.makers[confirm.destination].answer(confirm))

    def refuses(self, effects: list[Effect]) -> list[Effect]:
        confirm = only(effects, Confirm)
        self.makers[confirm.destination].forget_locks()
        return self.answered(confirm, self.makers[confirm.destination].answer(confirm))

    def answered(self, confirm: Confirm, answer: object) -> list[Effect]:
        effects = self.taker.match_answered(confirm.match_id, answer)
        self.taker.check()
        return effects

    def told(self, effects: list[Effect]) -> None:
        for tell in [effect for effect in effects if isinstance(effect, Tell)]:
            self.makers[tell.destination].answer(tell)


# -- fill or kill --------------------------------------------------------------------------------------


def test_fill_or_kill_takes_all_of_it_from_several_peers_one_after_the_other(clock: Clock) -> None:
    net = Network(clock, lots=3)
    order, effects = net.taker.place("buy", 105, 5, time_in_force="fok")
    effects = net.offers(effects)
    assert kinds(effects) == [Confirm]
    effects = net.commits(effects)
    assert order.filled in (2, 3)
    effects = net.commits(effects)
    assert order.id in settled(effects)
    assert order.status is OrderStatus.FILLED


def test_fill_or_kill_that_nobody_covers_releases_everyone_and_nothing_trades(clock: Clock) -> None:
    net = Network(clock, lots=3)
    order, effects = net.taker.place("buy", 105, 7, time_in_force="fok")
    effects = net.offers(effects)
    assert sorted(kinds(effects), key=str) == [Settled, Tell, Tell]
    net.told(effects)
    assert (order.status, order.filled, order.reason) == (OrderStatus.CANCELLED, 0, "unfillable")
    assert all(resting.open == 3 for resting in net.resting.values())


def test_fill_or_kill_counts_what_our_own_book_has_and_takes_it_last(clock: Clock) -> None:
    net = Network(clock, lots=3, makers=1)
    own, effects = net.taker.place("sell", 99, 2, owner="bob")
    net.offers(effects)
    order, effects = net.taker.place("buy", 105, 5, time_in_force="fok")
    assert (own.reserved, order.filled) == (2, 0), "nothing of it trades before all of it can"
    effects = net.commits(net.offers(effects))
    assert order.status is own.status is OrderStatus.FILLED
    assert sorted(trade.price for trade in net.taker.market.ledger.trades(0, 9)) == [99, 100]


def test_fill_or_kill_that_the_first_maker_refuses_asks_everyone_again(clock: Clock) -> None:
    net = Network(clock, lots=5)
    order, effects = net.taker.place("buy", 105, 7, time_in_force="fok")
    effects = net.refuses(net.offers(effects))
    net.told(effects)
    assert [effect.round for effect in effects if isinstance(effect, Announce)] == [2, 2]
    assert order.filled == 0
    effects = net.commits(net.commits(net.offers(effects)))
    assert order.status is OrderStatus.FILLED


def test_fill_or_kill_is_broken_where_a_later_maker_refuses_and_nobody_has_the_rest(clock: Clock) -> None:
    net = Network(clock, lots=3)
    order, effects = net.taker.place("buy", 105, 6, time_in_force="fok")
    effects = net.commits(net.offers(effects))
    last = only(effects, Confirm).destination
    net.makers[last].cancel(net.resting[last].id)
    effects = net.refuses(effects)
    effects = net.offers(effects)
    assert order.id in settled(effects)
    assert (order.filled, order.cancelled, order.reason) == (3, 3, "broken")


def test_the_rest_of_a_broken_fill_or_kill_order_is_looked_for_elsewhere(clock: Clock) -> None:
    net = Network(clock, lots=3)
    order, effects = net.taker.place("buy", 105, 6, time_in_force="fok")
    effects = net.commits(net.offers(effects))
    effects = net.refuses(effects)  # its lock is gone, its order is not
    net.commits(net.offers(effects))
    assert order.status is OrderStatus.FILLED


@pytest.mark.parametrize("answer", ["committed", "rejected"])
def test_fill_or_kill_waits_for_an_answer_in_doubt(clock: Clock, answer: str) -> None:
    net = Network(clock, lots=3)
    order, effects = net.taker.place("buy", 105, 6, time_in_force="fok")
    confirm = only(net.offers(effects), Confirm)
    effects = net.taker.match_failed(confirm.match_id)
    net.told(effects)
    assert order.id in settled(effects)
    assert (order.status, order.reserved) == (OrderStatus.OPEN, 6)
    assert net.taker.lots_in_doubt() == {order.id: 3}
    assert net.taker.under_way == 1
    if answer == "committed":
        effects = net.answered(confirm, net.makers[confirm.destination].answer(confirm))
        net.commits(net.offers(effects))
        assert order.status is OrderStatus.FILLED
    else:
        net.answered(confirm, {"status": "rejected"})
        assert (order.status, order.filled, order.reason) == (OrderStatus.CANCELLED, 0, "unfillable")


@pytest.mark.parametrize("before", [False, True])
def test_a_cancelled_fill_or_kill_order_waits_only_for_what_is_in_doubt(clock: Clock, before: bool) -> None:
    net = Network(clock, lots=3)
    order, effects = net.taker.place("buy", 105, 6, time_in_force="fok")
    confirm = only(net.offers(effects), Confirm)
    if before:
        net.taker.cancel(order.id)
    net.taker.match_failed(confirm.match_id)
    if not before:
        net.taker.cancel(order.id)
    net.taker.check()
    assert (order.reserved, order.cancelled, order.status) == (3, 3, OrderStatus.PENDING_CANCEL)


def test_an_offer_about_to_run_out_is_not_counted(clock: Clock) -> None:
    net = Network(clock, lots=5, makers=1)
    order, effects = net.taker.place("buy", 105, 5, time_in_force="fok")
    announce = only(effects, Announce)
    offer = net.makers["m0"].answer(announce)
    clock.now += limits.LEASE_S - limits.LEASE_LEFT_S + 0.01
    net.taker.offer_answered(order.id, announce.round, "m0", offer)
    assert (order.filled, order.reason) == (0, "unfillable")


# -- immediate or cancel, market -----------------------------------------------------------------------


def test_an_order_takes_one_tip_of_a_foreign_iceberg_after_the_other(taker: Peer, maker: Peer) -> None:
    iceberg, _ = maker.place("sell", 100, 5, display="2")
    order, effects = taker.place("buy", 100, 5, time_in_force="ioc")
    lots = []
    while announces := [effect for effect in effects if isinstance(effect, Announce)]:
        (announce,) = announces
        offer = maker.answer(announce)
        lots.append(offer["quantity"])
        confirm = confirmed(taker, announce, offer)
        effects = taker.match_answered(confirm.match_id, maker.answer(confirm))
    assert lots == ["2", "2", "1"]
    assert order.status is iceberg.status is OrderStatus.FILLED


def test_a_market_order_on_its_way_is_not_the_maker_of_what_comes_meanwhile(taker: Peer) -> None:
    order, effects = taker.place("buy", None, 4, type="market")
    announce = only(effects, Announce)
    late, effects = taker.place("sell", 100, 4, owner="bob")
    second = only(effects, Announce)
    taker.offer_answered(late.id, second.round, "maker", None)
    effects = taker.offer_answered(order.id, announce.round, "maker", None)
    (trade,) = only(effects, Traded).trades
    assert (trade.price, trade.maker_order_id) == (100, late.id)


# -- good till date ------------------------------------------------------------------------------------


def test_an_order_ends_when_its_time_has_come(maker: Peer, clock: Clock) -> None:
    order, _ = maker.place("sell", 100, 5, time_in_force="gtd", expires_ms=clock.time_ms() + 500)
    assert maker.next_due() == pytest.approx(clock.now + 0.5)
    clock.now += 0.6
    maker.tick()
    maker.check()
    assert (order.status, order.reason) == (OrderStatus.CANCELLED, "expired")


def test_an_order_whose_time_has_come_is_not_offered_before_it_is_swept(
    taker: Peer, maker: Peer, clock: Clock
) -> None:
    order, _ = maker.place("sell", 100, 5, time_in_force="gtd", expires_ms=clock.time_ms() + 500)
    clock.now += 0.6
    assert offered(taker, maker, "buy", 100, 5)[2] is None
    assert order.status is OrderStatus.CANCELLED


def test_an_order_whose_time_is_over_when_it_comes_is_refused(maker: Peer, clock: Clock) -> None:
    """It never trades, also where no other order has made the book look at the clock."""
    resting, _ = maker.place("sell", 100, 5)
    late = {"time_in_force": "gtd", "expires_ms": clock.time_ms()}
    with pytest.raises(OrderRefusedError, match="expires_ms must be in the future"):
        maker.place("buy", 100, 5, owner="bob", **late)
    leg = NewOrder("buy", "99", "5", "bob")
    pair = NewPair(leg._replace(**late), leg._replace(stop_price="101"))
    with pytest.raises(OrderRefusedError, match="expires_ms must be in the future"):
        maker.submit_pair(pair)
    assert (resting.open, len(maker.market.book.orders)) == (5, 1)


def test_a_clock_that_was_ahead_for_a_moment_refuses_no_later_order(maker: Peer, clock: Clock) -> None:
    maker.place("sell", 100, 5, time_in_force="gtd", expires_ms=clock.time_ms() + 500)
    clock.ahead_ms = 1_000_000
    maker.tick()
    clock.ahead_ms = 0
    order, _ = maker.place("sell", 100, 5, time_in_force="gtd", expires_ms=clock.time_ms() + 500)
    assert order.open == 5


def test_what_is_reserved_when_the_time_comes_may_fill(taker: Peer, maker: Peer, clock: Clock) -> None:
    order, _ = maker.place("sell", 100, 5, time_in_force="gtd", expires_ms=clock.time_ms() + 500)
    _, announce, offer = offered(taker, maker, "buy", 100, 2)
    clock.now += 0.6
    maker.tick()
    assert (order.status, order.cancelled) == (OrderStatus.PENDING_CANCEL, 3)
    assert maker.answer(confirmed(taker, announce, offer))["status"] == "committed"
    assert (order.filled, order.cancelled) == (2, 3)


# -- post-only -----------------------------------------------------------------------------------------


def beat(peer: Peer, **bests: object) -> list[Effect]:
    """``peer`` hears a heartbeat of ``maker``."""
    known = peer.market.roster.named("maker")
    assert known is not None
    message = {"sequence": known.sequence + 1, "from": "maker", **bests}
    effects = peer.heartbeat_answered("maker", message)
    peer.check()
    return effects


def test_a_post_only_order_asks_nobody(taker: Peer) -> None:
    order, effects = taker.place("buy", 100, 5, post_only="reject")
    assert kinds(effects) == [Settled]
    assert order.open == 5


def test_a_post_only_order_keeps_clear_of_what_peers_have_published(taker: Peer) -> None:
    beat(taker, best_ask="100")
    with pytest.raises(OrderRefusedError) as caught:
        taker.place("buy", 100, 5, post_only="reject")
    assert caught.value.code == "post_only_crosses"
    order, _ = taker.place("buy", 103, 5, post_only="slide", client_order_id="mine")
    assert order.price == 99
    same, _ = taker.place("buy", 103, 5, post_only="slide", client_order_id="mine")
    assert same is order
    with pytest.raises(DuplicateOrderError):
        taker.place("buy", 99, 5, post_only="slide", client_order_id="mine")


def test_a_post_only_order_that_crosses_a_plain_one_waits_to_be_taken(taker: Peer, clock: Clock) -> None:
    order, _ = taker.place("buy", 100, 5, post_only="reject")
    assert beat(taker, best_ask="99") == []
    clock.now += 1.0
    assert not [effect for effect in taker.tick() if isinstance(effect, Announce)]
    assert order.open == 5


@pytest.mark.parametrize(("older_ms", "yields"), [(-1, True), (1, False)])
@pytest.mark.parametrize("mode", ["reject", "slide"])
def test_of_two_post_only_orders_that_cross_the_younger_yields(
    taker: Peer, clock: Clock, older_ms: int, yields: bool, mode: str
) -> None:
    order, _ = taker.place("buy", 100, 5, post_only=mode)
    beat(taker, best_ask="99", ask_since=clock.time_ms() + older_ms)
    if not yields:
        assert (order.open, order.price) == (5, 100)
    elif mode == "slide":
        assert (order.open, order.price) == (5, 98)
    else:
        assert (order.status, order.reason) == (OrderStatus.CANCELLED, "post_only")


def test_exactly_one_of_two_that_are_of_an_age_yields(clock: Clock) -> None:
    peers = {name: Peer(name, clock) for name in ("a", "b")}
    for name, other in (("a", "b"), ("b", "a")):
        peers[name].discovered([other])
        peers[name].heartbeat_answered(other, {"sequence": 1, "from": other})
    bid, _ = peers["a"].place("buy", 100, 5, post_only="reject")
    ask, _ = peers["b"].place("sell", 99, 5, post_only="reject")
    beats = {name: only(peer.discovered([f"{name}:x"]), Beat) for name, peer in peers.items()}
    for name, other in (("a", "b"), ("b", "a")):
        peers[name].handle(beats[other].payload)
    assert sorted((bid.open, ask.open)) == [0, 5]


# -- stops ---------------------------------------------------------------------------------------------


def test_a_stop_order_waits_unseen_and_goes_out_when_a_trade_of_its_peer_reaches_it(
    taker: Peer, maker: Peer
) -> None:
    stop, effects = taker.place("buy", 110, 3, owner="sue", stop_price="100")
    assert kinds(effects) == [Settled]
    assert stop.status is OrderStatus.UNTRIGGERED
    maker.place("sell", 100, 5)
    _, announce, offer = offered(taker, maker, "buy", 105, 2)
    confirm = confirmed(taker, announce, offer)
    effects = taker.match_answered(confirm.match_id, maker.answer(confirm))
    taker.check()
    assert only(effects, Announce).order_id == stop.id


def test_what_a_maker_commits_brings_its_stops_alive(taker: Peer, maker: Peer) -> None:
    maker.place("sell", 100, 5)
    maker.place("buy", 99, 5, owner="bob")
    stop, _ = maker.place("sell", None, 3, owner="sue", type="market", stop_price="100")
    _, announce, offer = offered(taker, maker, "buy", 105, 2)
    confirm = confirmed(taker, announce, offer)
    answer = maker.handle(confirm.payload)
    maker.check()
    assert stop.status is OrderStatus.FILLED
    traded = [trade for effect in answer.effects if isinstance(effect, Traded) for trade in effect.trades]
    assert [trade.price for trade in traded] == [100, 99]


# -- icebergs ------------------------------------------------------------------------------------------


def test_an_iceberg_shows_and_asks_for_one_tip_at_a_time(taker: Peer, maker: Peer) -> None:
    order, effects = taker.place("buy", 100, 5, display="2")
    announce = only(effects, Announce)
    assert plain(announce.payload)["payload"]["order"]["quantity"] == "2"
    taker.offer_answered(order.id, announce.round, "maker", None)
    assert taker.market.book.depth(order.side, 1) == [(100, 2)]


# -- routing -------------------------------------------------------------------------------------------


def test_by_best_price_our_own_book_competes(clock: Clock) -> None:
    net = Network(clock, lots=2, makers=2, routing=Routing.BEST_PRICE)
    own, effects = net.taker.place("sell", 101, 2, owner="bob")
    net.offers(effects)
    order, effects = net.taker.place("buy", 105, 4)
    effects = net.offers(effects)
    assert [trade.price for trade in only(effects, Traded).trades] == [101], "the same price, and nearer"
    net.told(effects)
    net.commits(effects)
    assert (order.filled, own.filled) == (4, 2)
    assert [net.resting[name].filled for name in ("m0", "m1")] == [2, 0]


def test_by_best_price_what_is_not_wanted_of_our_own_book_is_free_again(clock: Clock) -> None:
    net = Network(clock, lots=4, makers=1, routing=Routing.BEST_PRICE)
    own, effects = net.taker.place("sell", 102, 2, owner="bob")
    net.offers(effects)
    order, effects = net.taker.place("buy", 105, 4)
    effects = net.offers(effects)
    assert (own.open, own.filled) == (2, 0)
    net.commits(effects)
    assert order.status is OrderStatus.FILLED


def test_by_best_price_nobody_to_ask_is_our_own_book_alone(clock: Clock) -> None:
    peer = Peer("alone", clock, routing=Routing.BEST_PRICE)
    peer.place("sell", 101, 2, owner="bob")
    order, effects = peer.place("buy", 105, 4)
    assert kinds(effects) == [Traded, Settled]
    assert (order.filled, order.open) == (2, 2)


# -- amending ------------------------------------------------------------------------------------------


def change(peer: Peer, order: Order, price: int | None = None, quantity: int | None = None) -> list[Effect]:
    texts = (None if number is None else str(number) for number in (price, quantity))
    _, effects = peer.amend(order.id, Amendment(*texts))
    peer.check()
    return effects


def test_an_order_that_moves_meets_everyone_again(taker: Peer, maker: Peer) -> None:
    maker.place("sell", 100, 5)
    order, announce, offer = offered(taker, maker, "buy", 99, 5)
    taker.offer_answered(order.id, announce.round, "maker", offer)
    effects = change(taker, order, price=100)
    again = only(effects, Announce)
    confirm = confirmed(taker, again, maker.answer(again))
    taker.match_answered(confirm.match_id, maker.answer(confirm))
    assert order.status is OrderStatus.FILLED


def test_a_smaller_order_keeps_its_place_and_asks_nobody(taker: Peer) -> None:
    order, effects = taker.place("buy", 100, 5)
    taker.offer_answered(order.id, only(effects, Announce).round, "maker", None)
    place = order.priority
    assert kinds(change(taker, order, quantity=3)) == [Settled]
    assert (order.quantity, order.open, order.priority) == (3, 3, place)


def test_an_order_on_its_way_is_not_changed(taker: Peer) -> None:
    order, _ = taker.place("buy", 100, 5)
    for wish in ({"price": 101}, {"quantity": 9}, {"quantity": 3}):
        with pytest.raises(UnderWayError):
            change(taker, order, **wish)
    assert (order.price, order.quantity, order.reserved) == (100, 5, 5)


def test_what_is_reserved_for_others_keeps_its_price(taker: Peer, maker: Peer) -> None:
    order, _ = maker.place("sell", 100, 5)
    offered(taker, maker, "buy", 100, 3)
    with pytest.raises(OrderRefusedError) as caught:
        change(maker, order, price=101)
    assert caught.value.code == "price_reserved"
    with pytest.raises(OrderRefusedError) as caught:
        change(maker, order, quantity=2)
    assert caught.value.code == "quantity_gone"
    change(maker, order, quantity=4)
    assert (order.open, order.reserved) == (1, 3)


def test_a_changed_order_is_known_by_what_was_submitted(maker: Peer) -> None:
    order, _ = maker.place("sell", 100, 5, client_order_id="mine")
    change(maker, order, price=101, quantity=7)
    assert maker.place("sell", 100, 5, client_order_id="mine")[0] is order
    with pytest.raises(DuplicateOrderError):
        maker.place("sell", 101, 7, client_order_id="mine")


def test_a_change_must_change_something(maker: Peer) -> None:
    order, _ = maker.place("sell", 100, 5)
    with pytest.raises(InvalidFieldError):
        change(maker, order)


def test_a_stop_order_that_is_changed_keeps_its_place_over_a_restart(maker: Peer, clock: Clock) -> None:
    first, _ = maker.place("sell", 90, 1, stop_price="95")
    second, _ = maker.place("sell", 90, 1, stop_price="95")
    change(maker, first, price=91, quantity=2)
    for peer in (maker, restarted(maker, clock)):
        assert [order.id for order in peer.market.book.stops] == [first.id, second.id]


# -- restarts ------------------------------------------------------------------------------------------


def restarted(peer: Peer, clock: Clock, change: Callable[[Recovered], Recovered] = lambda r: r) -> Peer:
    """A new process of ``peer`` that goes on from its events, or from a snapshot of them."""
    recovered = change(Recovered(peer.market.peer, "SIM").apply(peer.market.take_events()))
    again = Peer(peer.market.peer, clock)
    again.resume(recovered)
    again.check()
    return again


def by_snapshot(recovered: Recovered) -> Recovered:
    snapshot = Recovered("maker", "SIM")
    snapshot.load(recovered.to_plain())
    return snapshot


@pytest.mark.parametrize("how", [lambda recovered: recovered, by_snapshot])
def test_every_kind_of_order_survives_a_restart(
    maker: Peer, clock: Clock, how: Callable[[Recovered], Recovered]
) -> None:
    first, _ = maker.place("sell", 103, 5, display="2")
    stop, _ = maker.place("buy", None, 2, owner="sue", type="market", stop_price="109")
    limit, _ = maker.place("sell", 105, 3, owner="bob", stop_price="103", self_trade="cancel_both")
    late, _ = maker.place("buy", 90, 4, time_in_force="gtd", expires_ms=clock.time_ms() + 9000)
    soon, _ = maker.place("buy", 91, 4, time_in_force="gtd", expires_ms=clock.time_ms() + 500)
    posted, _ = maker.place("sell", 104, 4, post_only="slide", client_order_id="mine")
    change(maker, first, price=104, quantity=6)
    change(maker, posted, price=110)
    maker.place("buy", 104, 1, owner="zoe")
    clock.now += 0.6
    again = restarted(maker, clock, how)
    for order in (first, stop, limit, late, posted):
        known = again.market.ledger.order(order.id)
        assert (known.price, known.quantity, known.open, known.filled, known.terms, known.status) == (
            order.price,
            order.quantity,
            order.open,
            order.filled,
            order.terms,
            order.status,
        )
    assert again.market.ledger.order(soon.id).reason == "expired", "its time came while nobody was there"
    assert again.market.book.last_price == 104
    assert again.place("sell", 104, 4, post_only="slide", client_order_id="mine")[0].id == posted.id


@pytest.mark.parametrize("reserved", [False, True], ids=["local", "cross-peer"])
def test_an_iceberg_keeps_its_place_over_a_restart(
    taker: Peer, maker: Peer, clock: Clock, *, reserved: bool
) -> None:
    iceberg, _ = maker.place("sell", 100, 5, display="2")
    plain_order, _ = maker.place("sell", 100, 3)
    if reserved:
        _, announce, offer = offered(taker, maker, "buy", 100, 2)
        assert maker.answer(confirmed(taker, announce, offer))["status"] == "committed"
    else:
        maker.place("buy", 100, 2, owner="zoe")
    events = maker.market.take_events()
    fills = [(plain_order.id, 3), (iceberg.id, 2), (iceberg.id, 1)]
    assert sold(maker, 6) == fills, "the next tip went to the back of the queue"
    for kept in range(len(events) + 1):
        snapshot = by_snapshot(Recovered("maker", "SIM").apply(events[:kept]))
        again = Peer("maker", clock)
        again.resume(snapshot.apply(events[kept:]))
        again.check()
        assert sold(again, 6) == fills, f"after a restart from a snapshot of {kept} events and the others"


def test_a_post_only_order_that_slides_back_keeps_its_place_over_a_restart(maker: Peer, clock: Clock) -> None:
    posted, _ = maker.place("sell", 100, 3, post_only="slide")
    other, _ = maker.place("sell", 100, 3)
    maker.place("buy", 99, 1, owner="zoe")
    change(maker, posted, price=99)
    assert posted.price == 100
    again = restarted(maker, clock)
    for peer in (maker, again):
        assert sold(peer, 4) == [(posted.id, 3), (other.id, 1)]


def sold(peer: Peer, lots: int) -> list[tuple[str, int]]:
    """What ``lots`` that are bought of ``peer`` now trade with, in order."""
    ids = (f"later-{n}" for n in itertools.count())
    peer.market.new_id = lambda: next(ids)
    _, effects = peer.place("buy", 100, lots, owner="zoe")
    return [(trade.maker_order_id, trade.quantity) for trade in only(effects, Traded).trades]

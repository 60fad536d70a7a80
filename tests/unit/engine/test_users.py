"""What users of other engines asked for, and the bugs that they met, one test each; the issues are named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orderbook.engine import (
    FOK,
    GTC,
    IOC,
    MARKET,
    POST_ONLY,
    Book,
    Cancellation,
    Code,
    Feed,
    Instrument,
    Match,
    Order,
    Reason,
    Replica,
    Rules,
    SelfTrade,
    Side,
    Terms,
    TimeInForce,
    l2,
    l3,
    restore,
    snapshot,
)
from orderbook.errors import InvalidFieldError
from tests.harness import IS_COMPILED
from tests.unit.engine.twins import plain

BUY, SELL = Side.BUY, Side.SELL
ROOT = Path(__file__).parents[3]


def book_of(*orders: Order) -> Book:
    book = Book()
    for order in orders:
        assert book.submit(order) is Code.OK
    return book


def sell(id: str, price: int, lots: int, terms: Terms = GTC, owner: str = "maker") -> Order:
    return Order(id, owner, SELL, price, lots, terms)


def buy(id: str, price: int, lots: int, terms: Terms = GTC, owner: str = "taker") -> Order:
    return Order(id, owner, BUY, price, lots, terms)


def events(book: Book) -> list[tuple[object, ...]]:
    return [plain(event) for event in book.events]


# -- asked for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", SelfTrade)
def test_nobody_trades_with_themselves_in_any_mode(mode: SelfTrade) -> None:
    """nodejs-order-book#149, #226, #537, #596; order-matcher#6; dingir#98; econia#43."""
    book = book_of(sell("a", 101, 2, owner="sue"), sell("b", 101, 2))
    book.submit(buy("x", 101, 5, Terms(self_trade=mode), owner="sue"))
    assert not [event for event in book.events if isinstance(event, Match) and event.maker.owner == "sue"]
    cancelled = [event for event in book.events if isinstance(event, Cancellation)]
    assert cancelled[0].reason is Reason.SELF_TRADE
    book.check()


def test_the_residual_of_a_prevented_self_trade_does_not_rest() -> None:
    """OrderBook-rs#138."""
    book = book_of(sell("a", 101, 2, owner="sue"))
    order = buy("x", 101, 5, owner="sue")
    book.submit(order)
    assert (order.open, order.cancelled, order.live) == (0, 5, False)
    assert list(book.orders) == ["a"]


def test_a_book_survives_a_restart() -> None:
    """nodejs-order-book#387, exchange-core#64."""
    book = book_of(sell("a", 101, 2), sell("b", 101, 2), buy("s", 99, 1, Terms(stop_price=105)))
    copy = restore(snapshot(book))
    for one in (book, copy):
        one.submit(buy("x", 101, 3))
    assert events(copy) == events(book)
    assert snapshot(copy) == snapshot(book)


def test_stop_stop_limit_and_oco() -> None:
    """nodejs-order-book#161, #414; exchange-core#22."""
    book = book_of(buy("b", 95, 9))
    book.submit(sell("stop", 0, 2, Terms(TimeInForce.IOC, market=True, stop_price=97)))
    book.submit(sell("limit", 96, 2, Terms(stop_price=97)))
    pair = sell("target", 110, 2, owner="sue"), sell("loss", 1, 2, Terms(stop_price=97), owner="sue")
    assert book.submit_pair(*pair) is Code.OK
    assert len(book.orders) == 5
    book.note_trade(97)
    assert events(book) == [
        ("trigger", "stop"),
        ("match", "b", "stop", 95, 2),
        ("trigger", "limit"),
        ("trigger", "loss"),
        ("match", "b", "loss", 95, 2),
        ("cancel", "target", 2, Reason.PARTNER),
    ]
    assert list(book.orders) == ["b", "limit"]


@pytest.mark.parametrize("terms", [POST_ONLY, FOK])
def test_post_only_and_fok_are_decided_before_anything_changes(terms: Terms) -> None:
    """dingir#100, OrderBook-rs#209; rolled back all-or-none orders: liquibook#17."""
    book = book_of(sell("a", 101, 2), sell("b", 102, 2))
    before = snapshot(book)
    order = buy("x", 102, 5, terms)
    assert book.submit(order) in (Code.POST_ONLY_CROSSES, Code.UNFILLABLE)
    assert snapshot(book) == before
    assert (order.open, order.filled, order.cancelled, order.sequence) == (5, 0, 0, 0)


def test_ioc_keeps_what_it_got_and_cancels_the_rest() -> None:
    """dingir#100."""
    book = book_of(sell("a", 101, 2))
    order = buy("x", 101, 5, IOC)
    book.submit(order)
    assert (order.filled, order.cancelled) == (2, 3)


def test_orders_expire() -> None:
    """Komodo#2516; khrapovs#25, #33."""
    book = book_of(sell("a", 101, 2, Terms(TimeInForce.GTD, expires_ms=1_700_000_000_000)))
    book.expire_orders(1_699_999_999_999)
    assert list(book.orders) == ["a"]
    book.expire_orders(1_700_000_000_000)
    assert not book.orders
    assert events(book) == [("cancel", "a", 2, Reason.EXPIRED)]


def test_feeds_tell_orders_and_their_number() -> None:
    """exchange-core#91, #30."""
    book = book_of(sell("a", 101, 2), sell("b", 101, 3))
    assert (l2(book, 5).asks[0].quantity, l2(book, 5).asks[0].orders) == (5, 2)
    assert [row.id for row in l3(book, 5).asks] == ["a", "b"]


def test_a_refreshed_iceberg_never_leaves_a_crossed_book() -> None:
    """vega#8374."""
    book = book_of(sell("i", 101, 100, Terms(display=1)))
    book.submit(buy("x", 103, 60))
    assert book.best(BUY) is None
    assert book.orders["i"].open == 40
    book.submit(buy("y", 103, 60))
    assert (book.best(BUY), book.best(SELL)) == (103, None)
    book.check()


def test_events_name_the_traders() -> None:
    book = book_of(sell("a", 101, 2, owner="ann"))
    book.submit(buy("x", 101, 2, owner="xi"))
    (match,) = book.events
    assert isinstance(match, Match)
    assert (match.maker.owner, match.taker.owner) == ("ann", "xi")


# -- the rule for amendments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"quantity": 4}, "a"),
        ({"quantity": 6}, "b"),
        ({"price": 102}, "b"),
        ({"price": 102, "quantity": 1}, "b"),
    ],
)
def test_only_a_smaller_quantity_keeps_priority(changes: dict[str, Any], first: str) -> None:
    """econia#143, OrderBook-rs#203; also over a restart: #205."""
    book = book_of(sell("a", 101, 5), sell("b", 101, 5), sell("c", 102, 5))
    book.amend("a", **changes)
    for one in (book, restore(snapshot(book))):
        assert l3(one, 1).asks[0].id == first


# -- bugs ----------------------------------------------------------------------------------------------------


def test_an_amendment_counts_what_was_filled() -> None:
    """liquibook#32, Alpaca-API#165: the new quantity was taken for the open one."""
    book = book_of(sell("a", 101, 10))
    book.submit(buy("x", 101, 4))
    book.amend("a", quantity=8)
    assert (book.orders["a"].open, book.orders["a"].filled) == (4, 4)
    assert book.depth(SELL, 1) == [(101, 4)]
    assert book.amend("a", quantity=4) is Code.QUANTITY_GONE


def test_the_sum_of_a_level_never_underflows() -> None:
    """liquibook#18."""
    book = book_of(sell("a", 101, 10), sell("i", 101, 10, Terms(display=3)))
    fills, _ = book.crossing(BUY, 101, 12)
    reservation = book.reserve("lock", "peer", "order", fills, 1.0)
    book.amend("a", quantity=10)
    book.cancel("i")
    book.commit(reservation, {"a": 10})
    book.submit(buy("x", 101, 5))
    book.check()
    assert book.depth(SELL, 5) == []
    assert book.depth(BUY, 5) == [(101, 5)]


def test_a_waiting_stop_order_can_be_cancelled() -> None:
    """liquibook#25."""
    book = book_of(buy("s", 105, 1, Terms(stop_price=103)))
    assert book.cancel("s") is Code.OK
    book.note_trade(103)
    assert not book.events
    assert not book.orders


@pytest.mark.parametrize(
    ("side", "not_yet", "reached"), [(BUY, (1, 99), (100, 101)), (SELL, (101, 500), (100, 99))]
)
def test_stop_prices_are_compared_the_right_way_round(
    side: Side, not_yet: tuple[int, ...], reached: tuple[int, ...]
) -> None:
    """liquibook#23."""
    for price in reached:
        book = book_of(Order("s", "sue", side, 100, 1, Terms(stop_price=100)))
        for other in not_yet:
            book.note_trade(other)
            assert book.orders["s"].untriggered
        book.note_trade(price)
        assert events(book) == [("trigger", "s")]


def test_the_last_price_is_part_of_the_snapshot() -> None:
    """bnb-chain/node#175."""
    book = book_of(sell("a", 101, 2))
    book.submit(buy("x", 101, 1))
    copy = restore(snapshot(book))
    copy.submit(buy("s", 101, 1, Terms(stop_price=101)))
    assert events(copy)[0] == ("trigger", "s")


REPLAY = """
from random import Random
from tests.unit.engine.twins import Twins, random_command
random, twins = Random(11), Twins()
for _ in range(200):
    twins.do(random_command(random, twins))
print(twins.hashes[-1])
"""


def test_the_order_of_hashes_decides_nothing() -> None:
    """OrderBook-rs#193: the same commands, in processes that hash strings differently."""
    hashes = {
        subprocess.run(
            [sys.executable, "-c", REPLAY],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_a_follower_holds_no_more_rows_than_the_feed_shows() -> None:
    """nautilus#4456: the memory of L3 views grew without bound."""
    book = Book()
    feed = Feed(lambda: l3(book, 5))
    replica = Replica(feed.snapshot())
    for number in range(300):
        book.submit(sell(f"o{number}", 500 - number, 1))
        delta = feed.delta()
        assert delta is not None
        assert replica.apply(delta)
        assert len(replica.view().asks) <= 5


def test_a_snapshot_keeps_places_in_the_queue() -> None:
    """nautilus#4942; OrderBook-rs#207: maker ids and FIFO order, not only totals."""
    book = book_of(*(sell(f"o{number}", 101, 1) for number in range(9)))
    fills, _ = book.crossing(BUY, 101, 4)
    book.release(book.reserve("lock", "peer", "order", fills, 1.0))
    copy = restore(snapshot(book))
    copy.submit(buy("x", 101, 9))
    assert [event[1] for event in events(copy)] == [f"o{number}" for number in range(9)]


def test_a_replica_never_goes_on_after_a_lost_delta() -> None:
    """nautilus#2075, XChange#4080, bitfinex-client-websocket#38: books stayed crossed."""
    book = book_of(sell("a", 101, 2))
    feed = Feed(lambda: l2(book, 5))
    replica = Replica(feed.snapshot())
    book.submit(buy("x", 101, 2))
    feed.delta()  # lost
    book.submit(buy("y", 102, 2))
    delta = feed.delta()
    assert delta is not None
    assert not replica.apply(delta)
    view = replica.view()
    assert not view.bids or not view.asks or view.bids[0].price < view.asks[0].price


# -- trust ---------------------------------------------------------------------------------------------------


A_BOOL = pytest.param(True, marks=pytest.mark.skipif(IS_COMPILED, reason="compiled modules take it for 1"))


@pytest.mark.parametrize("wrong", [100.0, A_BOOL, "100", None, float("nan"), 2**70, -1, 0])
def test_no_float_and_nothing_else_but_whole_numbers_gets_in(wrong: Any) -> None:
    """exchange-core's README, OrderBook-rs#210, bitfinex-api-node#511."""
    book = Book()

    def refused(command: Callable[[], Code], *codes: Code) -> None:
        try:
            assert command() in codes
        except TypeError:
            assert IS_COMPILED  # there another type gets no further than to the parameter
            assert type(wrong) is not int

    refused(lambda: book.submit(Order("a", "ann", BUY, wrong, 5)), Code.INVALID_PRICE)
    refused(
        lambda: book.submit(Order("a", "ann", BUY, 100, wrong)), Code.INVALID_QUANTITY, Code.ABOVE_MAXIMUM
    )
    refused(lambda: book.set_band(wrong, wrong), Code.INVALID_PRICE)
    refused(lambda: book.note_trade(wrong), Code.INVALID_PRICE)
    book.submit(Order("b", "ann", BUY, 100, 5))
    if wrong is not None:  # which means: as it is
        refused(lambda: book.amend("b", price=wrong), Code.INVALID_PRICE)
        refused(lambda: book.amend("b", quantity=wrong), *(set(Code) - {Code.OK}))
    assert list(book.orders) == ["b"]


def test_tick_lot_and_bounds_are_told_by_name() -> None:
    """Text becomes ticks and lots in one place, which says what is wrong with it."""
    instrument = Instrument("BTC-USD", tick="0.5", lot="0.001", max_quantity=10_000, max_price=1_000_000)
    assert instrument.price("100.5") == 201
    assert instrument.quantity("0.250") == 250
    for field, text, rule in (
        ("price", "100.3", "multiple of 0.5"),
        ("price", "1e3", "plain decimal"),
        ("quantity", "0.0005", "multiple of 0.001"),
        ("quantity", "10.001", "at most 10"),
        ("quantity", "0", "more than zero"),
    ):
        with pytest.raises(InvalidFieldError, match=rule):
            getattr(instrument, field)(text)


def test_every_refusal_has_a_code_and_a_rule_of_its_own() -> None:
    assert len({code.rule for code in Code}) == len(Code)
    assert len({code.value for code in Code}) == len(Code)
    assert all(code.rule and code.value == code.value.lower() for code in Code)


def test_the_book_is_bounded() -> None:
    book = Book(Rules(max_orders=2))
    assert book.submit(sell("a", 101, 1)) is Code.OK
    assert book.submit(buy("s", 90, 1, Terms(stop_price=200))) is Code.OK
    assert book.submit(sell("b", 101, 1)) is Code.BOOK_FULL
    assert book.submit(buy("x", 0, 1, MARKET)) is Code.BOOK_FULL
    book.cancel("s")
    assert book.submit(buy("y", 0, 1, MARKET)) is Code.OK

"""L1, L2 and L3, and feeds: who follows one has the same view as who looks."""

from __future__ import annotations

import zlib
from random import Random
from typing import Any

import pytest

from orderbook.engine import (
    Book,
    Feed,
    Instrument,
    LevelRow,
    Order,
    OrderRow,
    Replica,
    Side,
    Terms,
    Top,
    checksum,
    l1,
    l2,
    l3,
)
from tests.unit.engine.twins import Twins, random_command

BUY, SELL = Side.BUY, Side.SELL


def book_of(*orders: Order) -> Book:
    book = Book()
    for order in orders:
        book.submit(order)
    return book


def test_l1_shows_the_best_prices() -> None:
    book = book_of(
        Order("a", "ann", BUY, 99, 5), Order("b", "bob", SELL, 101, 2), Order("c", "cy", SELL, 101, 3)
    )
    assert l1(book) == Top(book.sequence, 99, 5, 101, 5, None)
    book.submit(Order("x", "xi", BUY, 101, 4))
    assert l1(book) == Top(book.sequence, 99, 5, 101, 1, 101)
    assert l1(Book()) == Top(0, None, 0, None, 0, None)


def test_l2_counts_orders_and_shows_no_more_than_is_shown() -> None:
    book = book_of(
        Order("a", "ann", SELL, 101, 9, Terms(display=2)),
        Order("b", "bob", SELL, 101, 3),
        Order("c", "cy", SELL, 103, 1),
        Order("s", "sue", SELL, 90, 1, Terms(stop_price=95)),
    )
    view = l2(book, 10)
    assert view.asks == [LevelRow(SELL, 101, 5, 2), LevelRow(SELL, 103, 1, 1)]
    assert view.bids == []
    fills, _ = book.crossing(BUY, 101, 4)
    book.reserve("lock", "peer", "order", fills, 1.0)
    assert l2(book, 1).asks == [LevelRow(SELL, 101, 1, 1)]


def test_l3_lists_orders_in_the_order_in_which_they_trade() -> None:
    book = book_of(
        *(Order(id, id, BUY, price, 5) for id, price in (("a", 99), ("b", 100), ("c", 100), ("d", 98)))
    )
    assert [row.id for row in l3(book, 10).bids] == ["b", "c", "a", "d"]
    book.amend("b", quantity=9)
    assert [row.id for row in l3(book, 2).bids] == ["c", "b"]


def test_every_change_raises_the_sequence_and_nothing_else_does() -> None:
    book = book_of(Order("a", "ann", BUY, 99, 5))
    for change in (
        lambda: book.submit(Order("b", "bob", SELL, 99, 1)),
        lambda: book.amend("a", quantity=4),
        lambda: book.hold(book.orders["a"]),
        lambda: book.release_held(book.orders["a"], 3),
        lambda: book.cancel("a"),
    ):
        before = book.sequence
        change()
        assert book.sequence > before
    before = book.sequence
    book.cancel("a")
    l2(book, 5)
    assert book.sequence == before


@pytest.mark.parametrize("seed", range(8))
def test_who_follows_a_feed_sees_what_is_there(seed: int) -> None:
    random = Random(seed)
    twins = Twins()
    book = twins.book
    levels, orders = Feed(lambda: l2(book, 3)), Feed(lambda: l3(book, 4))
    by_level, by_order = Replica(levels.snapshot()), Replica(orders.snapshot())
    for _ in range(300):
        twins.do(random_command(random, twins))
        if random.random() < 0.5:
            continue  # changes add up to the next delta
        followed: list[tuple[Feed[Any], Replica[Any]]] = [(levels, by_level), (orders, by_order)]
        for feed, replica in followed:
            delta = feed.delta()
            if delta is not None:
                assert replica.apply(delta)
            assert feed.delta() is None, "published twice"
        assert by_level.view() == l2(book, 3)
        assert by_order.view() == l3(book, 4)


def test_a_lost_or_repeated_delta_is_noticed_and_a_snapshot_heals() -> None:
    book = book_of(Order("a", "ann", BUY, 99, 5))
    feed = Feed(lambda: l2(book, 5))
    replica = Replica(feed.snapshot())
    book.submit(Order("b", "bob", BUY, 98, 5))
    first = feed.delta()
    book.submit(Order("c", "cy", SELL, 98, 9))
    second = feed.delta()
    assert first is not None
    assert second is not None
    before = replica.view()
    assert not replica.apply(second), "the first one is missing"
    assert replica.view() == before
    assert replica.apply(first)
    assert not replica.apply(first), "this one is known"
    assert replica.apply(second)
    assert replica.view() == l2(book, 5)
    assert Replica(feed.snapshot()).view() == replica.view()


def test_a_feed_remembers_no_more_than_it_shows() -> None:
    book = Book()
    feed = Feed(lambda: l3(book, 10))
    replica = Replica(feed.snapshot())
    for number in range(500):
        book.submit(Order(f"o{number}", "ann", BUY, 1 + number % 50, 5))
        delta = feed.delta()
        if delta is not None:
            replica.apply(delta)
    assert len(replica.view().bids) == 10
    assert len(feed._rows) == 10


def test_a_refreshed_iceberg_moves_back_in_the_replica_too() -> None:
    book = book_of(Order("i", "ivy", SELL, 101, 9, Terms(display=2)), Order("a", "ann", SELL, 101, 1))
    feed = Feed(lambda: l3(book, 10))
    replica = Replica(feed.snapshot())
    book.submit(Order("x", "xi", BUY, 101, 2))
    delta = feed.delta()
    assert delta is not None
    assert [row.id for row in delta.changed] == ["i"]
    replica.apply(delta)
    rows = replica.view().asks
    assert [(row.id, row.quantity) for row in rows] == [("a", 1), ("i", 2)]
    assert isinstance(rows[0], OrderRow)


def test_the_checksum_is_that_of_bitfinex() -> None:
    """bids and asks in turn, asks negative, exact decimals: no exponents and no trailing zeros."""
    instrument = Instrument("BTC-USD", tick="0.1", lot="0.00000001")
    book = book_of(
        Order("a", "ann", BUY, instrument.price("6000"), instrument.quantity("1")),
        Order("b", "bob", BUY, instrument.price("5900.5"), instrument.quantity("0.00000051")),
        Order("c", "cy", SELL, instrument.price("6010"), instrument.quantity("10")),
    )
    expected = zlib.crc32(b"6000:1:6010:-10:5900.5:0.00000051")
    assert checksum(book, instrument) == (expected - 2**32 if expected >= 2**31 else expected)
    assert checksum(Book(), instrument) == 0
    deep = book_of(*(Order(f"o{number}", "ann", BUY, number, number) for number in range(2, 27)))
    whole = checksum(deep, instrument)
    deep.submit(Order("o1", "ann", BUY, 1, 1))
    assert checksum(deep, instrument) == whole, "the 26th price is not in it"
    deep.amend("o2", quantity=1)
    assert checksum(deep, instrument) != whole, "the 25th is"
    values = set()
    for number in range(1, 60):
        book.submit(Order(f"o{number}", "ann", BUY, number, 1))
        values.add(checksum(book, instrument))
    assert len(values) > 1
    assert any(value < 0 for value in values), "the number is signed"

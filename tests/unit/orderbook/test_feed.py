"""A book that is followed line by line is the book; what is missing or wrong is noticed."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from orderbook.entry import NewOrder
from orderbook.feed import BookFeed
from orderbook.feed_reader import BookReplica
from orderbook.model import Side
from orderbook.records import FeedLine
from tests.unit.orderbook.negotiators import Clock, Peer


def travelled(line: Any) -> FeedLine:
    return msgspec.json.decode(msgspec.json.encode(line), type=FeedLine)


def trade(peer: Peer, random: Random) -> None:
    """Something happens to the book, perhaps."""
    live = list(peer.market.book.orders)
    if live and random.random() < 0.4:
        peer.cancel(random.choice(live))
        return
    side, price, quantity = random.choice(("buy", "sell")), random.randint(80, 120), random.randint(1, 9)
    peer.submit(NewOrder(side, str(price), str(quantity), f"o{random.randrange(99)}"))


def sides(peer: Peer, levels: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    bids, asks = (peer.market.book.depth(side, levels) for side in (Side.BUY, Side.SELL))
    return [(str(p), str(q)) for p, q in bids], [(str(p), str(q)) for p, q in asks]


@pytest.mark.parametrize("levels", [1, 3, 30])
@pytest.mark.parametrize("seed", range(5))
def test_whoever_follows_a_feed_has_the_book(levels: int, seed: int) -> None:
    random, peer = Random(seed), Peer("maker", Clock())
    for _ in range(20):
        trade(peer, random)
    feed, replica = BookFeed(peer.market, levels), BookReplica(levels)
    assert replica.apply(travelled(feed.snapshot()))
    assert replica.sides() == sides(peer, levels)
    lines = 0
    for _ in range(100):
        for _ in range(random.choice((0, 1, 1, 5))):  # a reader may be slow
            trade(peer, random)
        line = feed.delta()
        if line is not None:
            assert replica.apply(travelled(line))
            lines += 1
        assert replica.sides() == sides(peer, levels)
        assert not replica.apply(travelled(feed.alive()))
    assert lines > 10


def test_what_the_reader_would_not_see_is_no_line() -> None:
    peer = Peer("maker", Clock())
    peer.place("buy", 100, 5)
    feed, replica = BookFeed(peer.market, 1), BookReplica(1)
    replica.apply(travelled(feed.snapshot()))
    peer.place("buy", 90, 5)
    assert feed.delta() is None, "it is behind the best price"
    peer.place("buy", 101, 5)
    assert replica.apply(travelled(feed.delta())), "and yet none is missing"


def test_a_line_that_is_missing_is_noticed() -> None:
    peer = Peer("maker", Clock())
    feed, replica = BookFeed(peer.market, 5), BookReplica(5)
    replica.apply(travelled(feed.snapshot()))
    for price in (100, 101):
        peer.place("buy", price, 5)
        line = feed.delta()
    with pytest.raises(ValueError, match="a line is missing"):
        replica.apply(travelled(line))
    assert replica.apply(travelled(feed.snapshot())), "a snapshot begins again"


def test_a_line_that_is_wrong_is_noticed() -> None:
    peer = Peer("maker", Clock())
    feed, replica = BookFeed(peer.market, 5), BookReplica(5)
    replica.apply(travelled(feed.snapshot()))
    peer.place("buy", 100, 5)
    line = feed.delta()
    assert line is not None
    with pytest.raises(ValueError, match="checksum"):
        replica.apply(travelled(msgspec.structs.replace(line, bids=[("100", "6", 1)])))


@pytest.mark.parametrize("price", ["x", "NaN", "Infinity", ""])
def test_a_price_that_is_none_is_noticed(price: str) -> None:
    line = {"type": "snapshot", "sequence": 1, "bids": [(price, "1", 1)], "asks": [], "checksum": 0}
    with pytest.raises(ValueError, match="is no price"):
        BookReplica(5).apply(travelled(line))

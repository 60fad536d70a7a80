"""Snapshots and hashes: what is brought back is the same book, and goes on the same."""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

import pytest

from orderbook.engine import Book, Order, Rules, Side, Terms, restore, snapshot, state_hash
from tests.unit.engine.twins import RULES, Twins, plain, random_command

BUY, SELL = Side.BUY, Side.SELL


@pytest.mark.parametrize("seed", range(20))
def test_a_restored_book_goes_on_like_the_one_it_was_taken_from(seed: int) -> None:
    """Every event, sequence, priority and maker from then on, not only the totals (OrderBook-rs#207)."""
    random = Random(seed)
    twins = Twins()
    for _ in range(150):
        twins.do(random_command(random, twins))
    data = json.loads(json.dumps(snapshot(twins.book)))
    other = Twins()
    other.book = restore(data, RULES, other.closed.append)
    other.naive = deepcopy(twins.naive)
    other.accepted = list(other.book.orders.values())
    other.locks_made = twins.locks_made
    assert snapshot(other.book) == data
    assert state_hash(other.book) == state_hash(twins.book)
    for _ in range(100):
        command = random_command(random, twins)
        twins.do(command)
        other.do(command)
    assert snapshot(other.book) == snapshot(twins.book)


def test_a_replay_of_the_commands_gives_the_same_bytes() -> None:
    def run() -> tuple[str, list[Any]]:
        random = Random(5)
        twins = Twins()
        events: list[Any] = []
        for _ in range(300):
            twins.do(random_command(random, twins))
            events.append([str(plain(event)) for event in twins.book.events])
        return json.dumps(snapshot(twins.book)), events

    assert run() == run()


def test_the_loss_of_priority_survives_a_restart() -> None:
    """OrderBook-rs#205, nautilus#4942."""
    book = Book()
    book.submit(Order("a", "ann", SELL, 101, 5))
    book.submit(Order("b", "bob", SELL, 101, 5))
    book.amend("a", quantity=6)
    book = restore(snapshot(book))
    book.submit(Order("x", "xi", BUY, 101, 1))
    assert plain(book.events[0]) == ("match", "b", "x", 101, 1)


def test_the_last_price_is_in_the_snapshot() -> None:
    """bnb-chain/node#175."""
    book = Book()
    book.note_trade(110)
    book = restore(snapshot(book))
    book.submit(Order("s", "sue", BUY, 105, 1, Terms(stop_price=103)))
    assert plain(book.events[0]) == ("trigger", "s")


def test_what_is_reserved_comes_back_reserved() -> None:
    book = Book()
    book.submit(Order("a", "ann", SELL, 101, 5))
    fills, _ = book.crossing(BUY, 101, 3)
    book.reserve("lock", "peer", "order", fills, expires=2.0)
    book = restore(snapshot(book))
    assert [r.id for r in book.expired(2.0)] == ["lock"]
    book.commit(book.reservations["lock"], {"a": 1})
    assert (book.orders["a"].open, book.orders["a"].filled) == (4, 1)


def sound() -> dict[str, Any]:
    book = Book()
    book.submit(Order("a", "ann", SELL, 101, 5))
    book.submit(Order("b", "bob", SELL, 101, 5))
    book.submit(Order("c", "cy", BUY, 99, 5))
    fills, _ = book.crossing(BUY, 101, 3)
    book.reserve("lock", "peer", "order", fills, expires=2.0)
    data: dict[str, Any] = json.loads(json.dumps(snapshot(book)))
    return data


SPOILED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "no orders": (("orders",), None),
    "quantity invented": (("orders", 0, 4), 99),
    "negative quantity": (("orders", 0, 5), -1),
    "unknown side": (("orders", 0, 2), "both"),
    "a row cut short": (("orders", 0), ["a"]),
    "two orders of one id": (("orders", 1, 0), "a"),
    "crossing orders": (("orders", 1, 3), 1),
    "one priority twice": (("numbers", 1), [1, 1]),
    "a priority of the future": (("numbers", 0), [1, 10_000]),
    "numbers of other orders": (("numbers",), [[1, 1]]),
    "a reservation of nothing": (("reservations", 0, 4, 0, 0), "nobody"),
    "reserved more than there is": (("reservations", 0, 4, 0, 1), 50),
    "an unknown state": (("market", 0), "asleep"),
    "places of other orders": (("places",), ["z"]),
    "a pair of strangers": (("pairs",), [["y", "z"]]),
    "a stranger that waits": (("reached",), ["z"]),
    "freed strangers": (("freed",), ["z"]),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_snapshot_is_refused_whole(name: str) -> None:
    """All or nothing (OrderBook-rs#208)."""
    data = sound()
    restore(data)
    path, value = SPOILED[name]
    place: Any = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValueError, match="no snapshot of a book"):
        restore(data)


def test_a_snapshot_is_refused_where_it_breaks_the_rules() -> None:
    with pytest.raises(ValueError, match="too many orders"):
        restore(sound(), Rules(max_orders=2))

"""Misuse of reservations, and that what is reserved costs nothing to pass over."""

from __future__ import annotations

import pytest

from orderbook.engine import Book, Code, Fill, MarketState, Match, Order, Side, Terms
from orderbook.model import Level
from tests.harness import IS_COMPILED

BUY, SELL = Side.BUY, Side.SELL


def sells(count: int, price: int = 101) -> Book:
    book = Book()
    for number in range(count):
        assert book.submit(Order(f"o{number}", "maker", SELL, price, 2)) is Code.OK
    return book


def test_a_reservation_ends_once() -> None:
    book = sells(2)
    fills, _ = book.crossing(BUY, 101, 4)
    first = book.reserve("first", "peer", "order", fills, 1.0)
    book.commit(first, {"o0": 1})
    with pytest.raises(ValueError, match="has ended"):
        book.commit(first, {"o0": 1})
    with pytest.raises(ValueError, match="has ended"):
        book.release(first)
    again = book.reserve("first", "peer", "order", [Fill(book.orders["o1"], 1)], 1.0)
    with pytest.raises(ValueError, match="has ended"):
        book.release(first)  # another one has its name now
    book.release(again)
    book.check()


@pytest.mark.parametrize(
    "quantities", [{"o0": 3}, {"o0": 0}, {"o0": -1}, {"o9": 1}, {"o0": 1, "o1": 1}, {"o0": 1.0}]
)
def test_a_commitment_beyond_the_reservation_changes_nothing(quantities: dict[str, int]) -> None:
    book = sells(2)
    reservation = book.reserve("lock", "peer", "order", [Fill(book.orders["o0"], 2)], 1.0)
    before = book.sequence
    # Where it is compiled, another type gets no further than to a variable.
    refusal = (ValueError, TypeError) if IS_COMPILED else ValueError
    with pytest.raises(refusal, match=r"not within reservation lock|object expected"):
        book.commit(reservation, quantities)
    assert book.sequence == before
    assert list(book.reservations) == ["lock"]
    book.check()


def test_what_is_not_open_can_not_be_reserved() -> None:
    book = sells(2)
    first, second = book.orders["o0"], book.orders["o1"]
    book.reserve("lock", "peer", "order", [Fill(first, 2)], 1.0)
    before = book.sequence
    for fills in ([Fill(first, 1)], [Fill(second, 3)], [Fill(second, 0)], [Fill(second, 1)] * 2, []):
        with pytest.raises(ValueError, match="reservation"):
            book.reserve("other", "peer", "order", fills, 1.0)
    with pytest.raises(ValueError, match="exists already"):
        book.reserve("lock", "peer", "order", [Fill(second, 1)], 1.0)
    iceberg = Order("i", "ivy", SELL, 101, 9, Terms(display=2))
    book.submit(iceberg)
    with pytest.raises(ValueError, match="not open"):
        book.reserve("other", "peer", "order", [Fill(iceberg, 3)], 1.0)
    book.submit(Order("x", "xi", BUY, 101, 2))
    with pytest.raises(ValueError, match="not open"):
        book.reserve("other", "peer", "order", [Fill(second, 1)], 1.0)  # it is gone
    assert book.sequence > before
    book.check()


def test_what_is_not_held_can_not_be_filled_or_released() -> None:
    book = sells(1)
    order = book.orders["o0"]
    for act in (lambda: book.fill_held(order, (1, 100)), lambda: book.release_held(order, 1)):
        with pytest.raises(ValueError, match="are not reserved"):
            act()
    assert book.hold(order) == 2
    assert book.hold(order) == 0
    with pytest.raises(ValueError, match="are not reserved"):
        book.release_held(order, 3)


def test_a_waiting_stop_order_has_nothing_to_hold() -> None:
    book = Book()
    book.submit(Order("s", "sue", BUY, 105, 1, Terms(stop_price=103)))
    assert book.hold(book.orders["s"]) == 0
    assert book.orders["s"].open == 1


def test_leases_run_out_in_their_order() -> None:
    book = sells(3)
    for number, expires in ((0, 3.0), (1, 1.0), (2, 2.0)):
        book.reserve(f"r{number}", "peer", "order", [Fill(book.orders[f"o{number}"], 1)], expires)
    assert book.next_expiry() == 1.0
    assert book.expired(0.5) == []
    assert [reservation.id for reservation in book.expired(2.0)] == ["r1", "r2"]
    for reservation in book.expired(2.0):
        book.release(reservation)
    assert book.next_expiry() == 3.0
    book.release(book.reservations["r0"])
    assert book.next_expiry() is None


def test_nothing_is_offered_while_the_market_is_not_open() -> None:
    book = sells(1)
    book.set_state(MarketState.CANCEL_ONLY)
    assert book.crossing(BUY, 101, 1) == ([], False)
    book.set_state(MarketState.OPEN)
    assert book.crossing(BUY, 101, 1).fills == [Fill(book.orders["o0"], 1)]


@pytest.mark.parametrize("same_price", [True, False])
def test_matching_never_looks_at_what_is_reserved(same_price: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand reserved orders are better than the one that is open: it is found at once all the same."""
    book = Book()
    for number in range(1000):
        book.submit(Order(f"o{number}", "maker", SELL, 101 if same_price else 101 + number, 2))
    fills, _ = book.crossing(BUY, 5000, 2000)
    reservation = book.reserve("lock", "peer", "order", fills, 1.0)
    book.submit(Order("open", "maker", SELL, 101 if same_price else 2000, 2))
    looked_at: list[str] = []

    def look(level: Level):
        order = level.head
        while order is not None:
            looked_at.append(order.id)
            yield order
            order = order.next

    monkeypatch.setattr(Level, "__iter__", look)
    assert book.best(SELL) == (101 if same_price else 2000)
    assert book.crossing(BUY, 2000, 3) == ([Fill(book.orders["open"], 2)], True)
    assert looked_at == ["open"]
    book.submit(Order("x", "xi", BUY, 2000, 1))
    assert [(e.maker.id, e.quantity) for e in book.events if isinstance(e, Match)] == [("open", 1)]
    monkeypatch.undo()

    book.release(reservation)
    assert [order.id for order in book.crossed_by(BUY, 5000, 3)] == ["o0", "o1", "o2"]
    book.check()

"""Books that are one of several: what goes out, comes back, and may not be taken meanwhile."""

from __future__ import annotations

from random import Random

import pytest

from orderbook.engine import (
    FOK,
    IOC,
    MARKET,
    POST_ONLY,
    Book,
    Cancellation,
    Code,
    Match,
    Order,
    OrderStatus,
    Outbound,
    Reason,
    Routing,
    SelfTrade,
    Side,
    Terms,
    TimeInForce,
    Trigger,
)

BUY, SELL = Side.BUY, Side.SELL
LOCAL_FIRST, BEST_PRICE = Routing.LOCAL_FIRST, Routing.BEST_PRICE


def routed(routing: Routing, *resting: Order) -> Book:
    book = Book(routing=routing)
    for order in resting:
        assert book.submit(order) is Code.OK
        if order.reserved:
            back(book, order)
    return book


def back(book: Book, order: Order) -> None:
    """All that went out of ``order`` comes back."""
    book.release_held(order, order.reserved)
    book.rematch(order)
    book.check()


def taken(book: Book, order: Order) -> list[Order]:
    """Submit ``order``. Returns what went out."""
    assert book.submit(order) is Code.OK
    book.check()
    return [event.order for event in book.events if isinstance(event, Outbound)]


@pytest.mark.parametrize("terms", [IOC, MARKET])
def test_what_is_left_of_an_order_that_does_not_rest_goes_out_and_ends_when_it_is_back(terms: Terms) -> None:
    book = routed(LOCAL_FIRST, Order("s", "sue", SELL, 100, 3))
    order = Order("b", "bob", BUY, 0 if terms.market else 100, 5, terms)
    assert taken(book, order) == [order]
    assert (order.filled, order.reserved) == (3, 2)
    back(book, order)
    assert book.events == [Cancellation(order, 2, Reason.REMAINDER)]
    assert order.status is OrderStatus.CANCELLED


def test_a_market_order_on_its_way_never_makes_a_price() -> None:
    book = routed(LOCAL_FIRST)
    order = Order("b", "bob", BUY, 0, 5, MARKET)
    taken(book, order)
    late = Order("s", "sue", SELL, 100, 3)
    assert taken(book, late) == []
    assert late.open == 3
    back(book, order)
    match, _ = book.events
    assert match == Match(late, order, 100, 3)


def test_a_stop_that_comes_alive_does_not_meet_a_market_order_on_its_way() -> None:
    book = routed(LOCAL_FIRST, Order("s", "sue", SELL, 100, 1))
    stop = Order("stop", "ann", SELL, 90, 4, Terms(stop_price=100))
    assert book.submit(stop) is Code.OK
    order = Order("b", "bob", BUY, 0, 5, MARKET)
    assert taken(book, order) == [order]
    assert [type(event) for event in book.events] == [Match, Outbound, Trigger]
    assert (stop.open, order.reserved) == (4, 4)


def test_a_post_only_order_may_come_while_a_market_order_is_on_its_way() -> None:
    book = routed(LOCAL_FIRST)
    order = Order("b", "bob", BUY, 0, 5, MARKET)
    taken(book, order)
    assert book.submit(Order("s", "sue", SELL, 100, 3, POST_ONLY)) is Code.OK


def test_fill_or_kill_trades_here_if_it_can_and_goes_out_whole_if_not() -> None:
    book = routed(LOCAL_FIRST, Order("s", "sue", SELL, 100, 3))
    small, large = Order("b1", "bob", BUY, 100, 2, FOK), Order("b2", "bob", BUY, 100, 2, FOK)
    assert taken(book, small) == []
    assert small.status is OrderStatus.FILLED
    assert taken(book, large) == [large]
    assert large.filled == 0, "nothing of it trades before all of it can"
    assert book.reach(large, 2).fills == [(book.orders["s"], 1)]
    back(book, large)
    assert book.events == [Cancellation(large, 2, Reason.UNFILLABLE)]
    assert book.orders["s"].open == 1


def test_fill_or_kill_that_comes_back_trades_if_all_of_it_is_here_by_now() -> None:
    book = routed(LOCAL_FIRST, Order("s1", "sue", SELL, 100, 3))
    order = Order("b", "bob", BUY, 100, 5, FOK)
    taken(book, order)
    taken(book, Order("s2", "sue", SELL, 99, 3))
    back(book, order)
    assert order.status is OrderStatus.FILLED


def test_what_is_left_of_a_broken_fill_or_kill_order_says_so() -> None:
    book = routed(LOCAL_FIRST)
    order = Order("b", "bob", BUY, 100, 5, FOK)
    taken(book, order)
    book.fill_held(order, (2, 100))
    back(book, order)
    assert book.events == [Cancellation(order, 3, Reason.BROKEN)]


def test_by_best_price_an_order_goes_out_before_it_meets_anything() -> None:
    resting = Order("s", "sue", SELL, 100, 3)
    book = routed(BEST_PRICE, resting)
    order = Order("b", "bob", BUY, 101, 5)
    assert taken(book, order) == [order]
    assert (order.reserved, order.filled) == (5, 0)
    assert book.reach(order, 5) == ([(resting, 3)], 101)
    back(book, order)
    assert book.events == [Match(resting, order, 100, 3)]
    assert (order.filled, order.open) == (3, 2)


def test_a_post_only_order_never_goes_out() -> None:
    book = routed(BEST_PRICE)
    order = Order("b", "bob", BUY, 101, 5, POST_ONLY)
    assert taken(book, order) == []
    assert order.open == 5


def test_an_order_that_moves_goes_out_again() -> None:
    book = routed(BEST_PRICE, Order("s", "sue", SELL, 103, 3), Order("b", "bob", BUY, 101, 5))
    assert book.amend("b", price=103) is Code.OK
    assert [type(event) for event in book.events] == [Outbound]
    order = book.orders["b"]
    back(book, order)
    assert (order.filled, order.price) == (3, 103)


@pytest.mark.parametrize(
    ("mode", "lots", "price"),
    [(SelfTrade.CANCEL_NEWEST, 2, 101), (SelfTrade.DECREMENT, 2, 101), (SelfTrade.CANCEL_OLDEST, 5, 109)],
)
def test_an_order_reaches_no_further_than_its_owner(mode: SelfTrade, lots: int, price: int) -> None:
    makers = [
        Order("s1", "sue", SELL, 100, 2),
        Order("own", "bob", SELL, 101, 2),
        Order("s2", "sue", SELL, 102, 3),
    ]
    book = routed(BEST_PRICE, *makers)
    order = Order("b", "bob", BUY, 109, 9, Terms(self_trade=mode))
    taken(book, order)
    reach = book.reach(order, 9)
    assert (sum(fill.quantity for fill in reach.fills), reach.price) == (lots, price)


def test_a_stop_order_of_an_earlier_life_waits_or_has_come_alive() -> None:
    book = Book(routing=LOCAL_FIRST)
    waiting = Order("w", "ann", BUY, 0, 2, Terms(TimeInForce.IOC, market=True, stop_price=105))
    alive = Order("a", "ann", BUY, 103, 2, Terms(stop_price=103))
    alive.priority = 1
    book.last_price = 104
    book.add(waiting)
    book.add(alive)
    book.check()
    assert (waiting.status, alive.status) == (OrderStatus.UNTRIGGERED, OrderStatus.OPEN)


@pytest.mark.parametrize("routing", [LOCAL_FIRST, BEST_PRICE])
@pytest.mark.parametrize("seed", range(20))
def test_a_routed_book_holds_its_invariants(routing: Routing, seed: int) -> None:
    """Orders of every kind; what goes out is filled and comes back in any order."""
    random = Random(seed)
    book = Book(routing=routing)
    away: list[tuple[Order, int]] = []
    kinds = [Terms(), IOC, FOK, MARKET, POST_ONLY, Terms(display=2), Terms(self_trade=SelfTrade.DECREMENT)]

    def look() -> None:
        events, book.events = book.events, []
        for event in events:
            if isinstance(event, Outbound):
                away.append((event.order, event.quantity))
            elif isinstance(event, Match):
                assert event.maker.rests, f"{event.maker} makes a price"
                assert event.price == event.maker.price
        book.check()

    for number in range(200):
        act = random.random()
        if act < 0.5:
            terms = random.choice(kinds)
            if random.random() < 0.2 and terms.post_only is None:
                terms = Terms(terms.time_in_force, terms.market, stop_price=random.randint(97, 103))
            price = 0 if terms.market else random.randint(97, 103)
            side = random.choice((BUY, SELL))
            book.submit(
                Order(f"o{number}", f"w{random.randrange(3)}", side, price, random.randint(1, 9), terms)
            )
        elif act < 0.6 and book.orders:
            book.cancel(random.choice(list(book.orders)))
        elif act < 0.7 and book.orders:
            price = random.randint(97, 103)
            book.amend(random.choice(list(book.orders)), price=price, quantity=random.randint(1, 12))
        elif away:
            order, quantity = away.pop(random.randrange(len(away)))
            part = random.randint(0, quantity)
            if part:
                book.fill_held(order, (part, order.price))
                look()
            if quantity - part:
                book.release_held(order, quantity - part)
                look()
            if order.live:
                book.rematch(order)
        else:
            continue
        look()
    for order, quantity in away:
        book.release_held(order, quantity)
        if order.live:
            book.rematch(order)
        look()
    assert not [order for order in book.orders.values() if not order.rests and not order.untriggered]

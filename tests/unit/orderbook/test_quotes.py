"""Mass quotes over the network: all of them or none, and each name one order."""

from __future__ import annotations

from typing import Any

import pytest

from orderbook import limits
from orderbook.effects import Announce, Effect, Settled
from orderbook.entry import NewOrder, NewQuote
from orderbook.errors import InvalidFieldError, OrderRefusedError, UnderWayError
from orderbook.model import Order, OrderStatus
from orderbook.recovery import Recovered
from tests.unit.orderbook.negotiators import INSTRUMENT, Clock, Peer, confirmed, offered, settled


def quote(peer: Peer, *quotes: tuple[str, str, int | None, int]) -> tuple[list[Any], list[Effect]]:
    """Quotes of mia: ``(name, side, price, quantity)``."""
    rows = [
        NewQuote(name, side, None if price is None else str(price), str(quantity))
        for name, side, price, quantity in quotes
    ]
    orders, effects = peer.mass_quote("mia", rows)
    peer.check()
    return orders, effects


def book(peer: Peer) -> list[tuple[str | None, int, int]]:
    return sorted((o.client_order_id, o.price, o.open) for o in peer.market.book.orders.values())


def test_a_quote_places_changes_and_takes_back(maker: Peer) -> None:
    (bid, ask), effects = quote(maker, ("b", "buy", 99, 5), ("a", "sell", 101, 5))
    assert settled(effects) == [bid.id, ask.id]
    assert book(maker) == [("a", 101, 5), ("b", 99, 5)]
    again, _ = quote(maker, ("b", "buy", 100, 7), ("a", "sell", None, 0), ("c", "sell", 103, 1))
    assert again[:2] == [bid, ask]
    assert book(maker) == [("b", 100, 7), ("c", 103, 1)]
    assert (ask.status, ask.reason) == (OrderStatus.CANCELLED, "requested")
    assert quote(maker, ("a", "sell", None, 0))[0] == [None]


def test_a_quote_is_what_shall_be_there_whatever_was_filled(taker: Peer, maker: Peer) -> None:
    (ask,), _ = quote(maker, ("a", "sell", 101, 5))
    _, announce, offer = offered(taker, maker, "buy", 101, 2)
    maker.answer(confirmed(taker, announce, offer))
    assert (ask.open, ask.filled) == (3, 2)
    quote(maker, ("a", "sell", 101, 5))
    assert (ask.open, ask.filled, ask.quantity) == (5, 2, 7)


def test_a_quote_may_make_an_order_larger_than_a_new_one_but_not_than_can_be_kept(maker: Peer) -> None:
    most = INSTRUMENT.max_quantity
    quote(maker, ("a", "sell", 100, most))
    maker.place("buy", 100, 2, owner="bob")
    maker.market.take_events()
    with pytest.raises(OrderRefusedError, match="quantity must be at most the maximum"):
        quote(maker, ("a", "sell", 100, most))
    assert maker.market.take_events() == []
    assert book(maker) == [("a", 100, most - 2)]


def test_a_name_whose_order_has_closed_is_that_of_a_new_one(maker: Peer, clock: Clock) -> None:
    (first,), _ = quote(maker, ("a", "sell", 101, 1))
    maker.place("buy", 101, 1)
    (second,), _ = quote(maker, ("a", "sell", 102, 1))
    assert (first.status, second.price) == (OrderStatus.FILLED, 102)
    clock.now += limits.CLOSED_ORDER_AGE_S
    maker.market.ledger.sweep(clock.now)
    assert quote(maker, ("a", "sell", 103, 1))[0] == [second], "it has the name alone now"
    assert book(maker) == [("a", 103, 1)]


def test_quotes_never_meet_those_that_they_replace(maker: Peer) -> None:
    quote(maker, ("b", "buy", 99, 5), ("a", "sell", 101, 5))
    _, effects = quote(maker, ("b", "buy", 102, 5), ("a", "sell", 104, 5))
    assert {type(effect) for effect in effects} == {Settled}
    assert book(maker) == [("a", 104, 5), ("b", 102, 5)]


def test_what_moves_goes_its_way_and_what_gets_smaller_keeps_its_place(taker: Peer) -> None:
    (bid, ask), effects = quote(taker, ("b", "buy", 99, 5), ("a", "sell", 101, 5))
    announces = [effect for effect in effects if isinstance(effect, Announce)]
    assert [announce.order_id for announce in announces] == [bid.id, ask.id]
    with pytest.raises(UnderWayError):
        quote(taker, ("a", "sell", 102, 5))
    assert taker.quotes_under_way("mia", [NewQuote("a", "sell", "102", "5")]) == ask.id
    for announce in announces:
        taker.offer_answered(announce.order_id, announce.round, "maker", None)
    _, effects = quote(taker, ("b", "buy", 99, 3), ("a", "sell", 102, 5))
    assert [effect.order_id for effect in effects if isinstance(effect, Announce)] == [ask.id]
    assert bid.id in settled(effects)


@pytest.mark.parametrize(
    ("quotes", "code"),
    [
        ([("b", "buy", 102, 5), ("c", "sell", 102, 5)], "crossed_quotes"),
        ([("c", "sell", 102, 5), ("c", "sell", 103, 5)], "duplicate_quote"),
        ([("c", "buy", 90, 5), ("a", "sell", 102, 5)], "price_reserved"),
    ],
)
def test_what_is_refused_for_one_is_refused_for_all(
    taker: Peer, maker: Peer, quotes: list[tuple[str, str, int, int]], code: str
) -> None:
    quote(maker, ("b", "buy", 99, 5), ("a", "sell", 101, 5))
    offered(taker, maker, "buy", 101, 2)
    before = book(maker)
    maker.market.take_events()
    with pytest.raises(OrderRefusedError) as caught:
        quote(maker, *quotes)
    assert caught.value.code == code
    assert book(maker) == before
    assert not maker.market.take_events()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (NewQuote(None, "buy", "99", "5"), "quotes[1].client_order_id"),
        (NewQuote("b", "both", "99", "5"), "quotes[1].side"),
        (NewQuote("b", "buy", None, "5"), "quotes[1].price"),
        (NewQuote("b", "buy", "99", "-1"), "quotes[1].quantity"),
    ],
)
def test_a_wrong_field_is_named_with_its_place(maker: Peer, wrong: NewQuote, field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        maker.mass_quote("mia", [NewQuote("a", "sell", "101", "5"), wrong])
    assert caught.value.field == field
    assert not maker.market.book.orders


def test_quotes_survive_a_restart_in_their_order(maker: Peer, clock: Clock) -> None:
    quote(maker, ("a1", "sell", 101, 5), ("a2", "sell", 101, 5), ("a3", "sell", 101, 5))
    quote(maker, ("a1", "sell", 101, 6), ("a2", "sell", 101, 2), ("a4", "sell", 101, 1))
    again = Peer("maker", clock)
    again.resume(Recovered("maker", "SIM").apply(maker.market.take_events()))
    again.check()

    def queue(peer: Peer) -> list[Order]:
        return sorted(peer.market.book.orders.values(), key=lambda order: order.priority)

    for peer in (maker, again):
        assert [(o.client_order_id, o.open) for o in queue(peer)] == [
            ("a2", 2),
            ("a3", 5),
            ("a1", 6),
            ("a4", 1),
        ]
    (known,), _ = quote(again, ("a4", "sell", 101, 1))
    assert known.id == queue(maker)[-1].id
    assert maker.submit(NewOrder("sell", "101", "5", "mia", "a3"))[0] is queue(maker)[1]

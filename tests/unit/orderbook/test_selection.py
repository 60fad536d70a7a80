"""Choosing among offers: the best price always, then the policy."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook.model import Side
from orderbook.selection import POLICIES, Choice, OfferFill, PeerOffer, choose


def offer(peer: str, *fills: tuple[int, int], full: bool = False) -> PeerOffer:
    rows = tuple(OfferFill(f"{peer}{n}", price, quantity) for n, (price, quantity) in enumerate(fills))
    return PeerOffer(peer, f"{peer}:1", f"lock-{peer}", rows, sum(q for _, q in fills), full)


def taken(choices: list[Choice]) -> dict[str, int]:
    return {choice.offer.peer: choice.quantity for choice in choices}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_best_price_comes_first_whatever_the_policy(policy: str) -> None:
    offers = [offer("a", (102, 10), full=True), offer("b", (101, 4)), offer("c", (103, 10), full=True)]
    buying = choose(offers, Side.BUY, 10, POLICIES[policy], Random(1))
    assert taken(buying) == {"b": 4, "a": 6}
    selling = choose(offers, Side.SELL, 10, POLICIES[policy], Random(1))
    assert taken(selling) == {"c": 10}


@pytest.mark.parametrize(("policy", "first"), [("full-first", "c"), ("fastest", "a"), ("largest", "b")])
def test_the_policy_decides_among_equals(policy: str, first: str) -> None:
    offers = [offer("a", (100, 3)), offer("b", (100, 9)), offer("c", (100, 5), full=True)]
    assert taken(choose(offers, Side.BUY, 3, POLICIES[policy], Random(1))) == {first: 3}


def test_random_is_fair() -> None:
    offers = [offer(peer, (100, 1)) for peer in "abcd"]
    random = Random(7)
    firsts = [choose(offers, Side.BUY, 1, POLICIES["random"], random)[0].offer.peer for _ in range(2000)]
    for peer in "abcd":
        assert 400 < firsts.count(peer) < 600


def test_an_own_policy_is_a_function() -> None:
    offers = [offer("a", (100, 3)), offer("b", (100, 3))]
    assert taken(choose(offers, Side.BUY, 3, lambda offers, random: offers[::-1], Random())) == {"b": 3}


FILLS = st.lists(st.tuples(st.integers(95, 105), st.integers(1, 9)), min_size=1, max_size=4)


@given(
    st.lists(FILLS, max_size=5), st.integers(1, 60), st.sampled_from(list(POLICIES)), st.sampled_from(Side)
)
def test_never_more_than_wanted_or_offered_and_never_a_worse_price(
    rows: list[list[tuple[int, int]]], wanted: int, policy: str, side: Side
) -> None:
    best_first = [sorted(fills, key=lambda fill: fill[0] * (1 if side is Side.BUY else -1)) for fills in rows]
    offers = [offer(f"p{n}-", *fills) for n, fills in enumerate(best_first)]
    choices = choose(offers, side, wanted, POLICIES[policy], Random(3))
    assert sum(choice.quantity for choice in choices) == min(wanted, sum(o.quantity for o in offers))
    taken_prices, left_prices = [], []
    for candidate in offers:
        chosen = next((c.fills for c in choices if c.offer is candidate), ())
        # What is taken of an offer is its beginning: the maker's own priority is kept.
        for place, fill in enumerate(chosen):
            assert fill.order_id == candidate.fills[place].order_id
            assert 0 < fill.quantity <= candidate.fills[place].quantity
        taken_prices += [fill.price for fill in chosen]
        left_prices += [fill.price for fill in candidate.fills[len(chosen) :]]
    if taken_prices and left_prices:
        worst, best_left = (max, min) if side is Side.BUY else (min, max)
        assert not side.crosses(worst(taken_prices), best_left(left_prices)) or (
            worst(taken_prices) == best_left(left_prices)
        )

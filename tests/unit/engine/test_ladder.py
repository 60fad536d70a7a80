"""The price ladder: near and far keys are one sorted list together; queues keep their order."""

from __future__ import annotations

from random import Random

import pytest

from orderbook.engine import Order, Side
from orderbook.engine.ladder import NEAR_MAX, Ladder
from orderbook.model import Level


def order_at(price: int, side: Side) -> Order:
    return Order(f"o{price}", "ann", side, price, 5)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("reach", [20, 5_000])
def test_levels_come_and_go_in_order(side: Side, reach: int) -> None:
    """Thousands of prices, so that keys spill to the far list and are fetched back."""
    random = Random(reach)
    ladder = Ladder(side)
    prices: set[int] = set()
    fetched_back = 0
    for step in range(20_000):
        grows = step % 8_000 < 5_000
        if prices and random.random() < (0.3 if grows else 0.7):
            best = max(prices) if side is Side.BUY else min(prices)
            price = best if random.random() < 0.6 else random.choice(sorted(prices)[:50])
            prices.remove(price)
            was_far = len(ladder._far)
            ladder.drop_level(ladder.levels[price * ladder.sign])
            fetched_back += len(ladder._far) < was_far and price == best
        else:
            price = random.randint(1, reach)
            if price in prices:
                continue
            prices.add(price)
            ladder.open_level(price * ladder.sign, order_at(price, side))
        if step % 100 == 0:
            expected = sorted(prices, reverse=side is Side.BUY)
            assert [level.price for level in ladder.best_first()] == expected
        at_best = (max(prices) if side is Side.BUY else min(prices)) if prices else None
        assert (ladder.best.price if ladder.best else None) == at_best
        assert len(ladder._near) <= NEAR_MAX
    if reach > NEAR_MAX:
        assert fetched_back, "the far keys were never needed"


def test_down_to_ends_at_the_limit() -> None:
    asks = Ladder(Side.SELL)
    for price in (101, 103, 102):
        asks.open_level(price * asks.sign, order_at(price, Side.SELL))
    assert [level.price for level in asks.down_to(102 * asks.sign)] == [101, 102]


def test_orders_come_back_to_their_places() -> None:
    random = Random(1)
    orders = [Order(f"o{number}", "ann", Side.BUY, 100, 1) for number in range(200)]
    for priority, order in enumerate(orders, 1):
        order.priority = priority
    level = Level(100, orders[0])
    for order in orders[1:]:
        level.append(order)
    away: list[Order] = []
    for _ in range(2_000):
        if away and random.random() < 0.5:
            level.insert(away.pop(random.randrange(len(away))))
        elif level.count > 1:
            order = random.choice(list(level))
            level.remove(order)
            away.append(order)
        places = [order.priority for order in level]
        assert places == sorted(places)
        assert len(places) == level.count == level.open == 200 - len(away)

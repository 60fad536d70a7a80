"""Order flow that is made up, from a seed: the same seed gives the same rows everywhere and for ever.

The middle of the market takes a random walk. Most new orders rest a few ticks away from it, nearer ones more
often than far ones; some cross it and trade. Almost half of all rows cancel an order that was placed before,
which may have traded meanwhile, as in real flow; a few change one. Only ``Random.random`` is drawn from,
whose numbers Python promises to keep, and only products of them are taken, which are the same on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from random import Random

from .files import Row

PRICE_DECIMALS = 1
QUANTITY_DECIMALS = 8
START_TICKS = 500_000
"""Price of the first orders, in steps of 0.1: the walk starts at 50000.0."""
LOWEST_TICKS = 10_000
"""The walk turns here, so that no price comes near zero."""

CANCEL_SHARE = 0.44
CHANGE_SHARE = 0.002
CROSSING_SHARE = 0.12
"""Of new orders: those that reach over the middle to the other side."""
WALK_SHARE = 0.05
"""Of rows: those before which the middle moves by a tick or two."""
WARM_UP = 100
"""Orders placed before the first is cancelled: a market that starts empty has nothing to cancel."""
GAP_MS_MAX = 10
"""Rows are 0 to this many milliseconds apart, about 200 a second, like a busy exchange."""
DEPTH_TICKS = 60
"""How far from the middle most resting orders lie at the most."""
QUANTITY_MAX = 80_000_000
"""The largest order, in steps of 1e-8: 0.8."""


def synthesize(rows: int, seed: int) -> Iterator[Row]:
    """``rows`` rows of flow from ``seed``; fewer rows of one seed are the beginning of more."""
    random = Random(seed).random
    live: list[Row] = []
    middle = START_TICKS
    elapsed_ms = 0
    placed = 0
    for _ in range(rows):
        elapsed_ms += int(random() * (GAP_MS_MAX + 1))
        if random() < WALK_SHARE:
            middle += (-2, -1, 1, 2)[int(random() * 4)]
            middle = max(middle, LOWEST_TICKS)
        kind = random() if len(live) >= WARM_UP else 1.0
        if kind < CANCEL_SHARE + CHANGE_SHARE:
            age = random()
            place = len(live) - 1 - int(age * age * len(live))  # the square: young ones more often
            order = live[place]
            if kind < CANCEL_SHARE:
                live[place] = live[-1]
                live.pop()
                yield order._replace(elapsed_ms=elapsed_ms, action="cancel")
            else:
                changed = _order(random(), random(), random(), middle, order.id, order.side)
                live[place] = changed
                yield changed._replace(elapsed_ms=elapsed_ms, action="change")
        else:
            placed += 1
            side = "buy" if random() < 0.5 else "sell"
            order = _order(random(), random(), random(), middle, str(placed), side)
            live.append(order)
            yield order._replace(elapsed_ms=elapsed_ms)


def _order(reach: float, depth: float, size: float, middle: int, id: str, side: str) -> Row:
    """A new order; ``reach``, ``depth`` and ``size`` are random numbers from 0 to 1."""
    crosses = reach < CROSSING_SHARE
    away = 1 + int(depth * depth * depth * DEPTH_TICKS)  # the cube: most are near
    above = away if (side == "sell") != crosses else -away
    quantity = 1 + int(size * size * QUANTITY_MAX)  # the square: many small ones, few large ones
    return Row(
        elapsed_ms=0,
        action="new",
        id=id,
        side=side,
        price=Decimal(middle + above).scaleb(-PRICE_DECIMALS),
        quantity=Decimal(quantity).scaleb(-QUANTITY_DECIMALS),
    )

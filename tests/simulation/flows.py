"""Orders that clients make up: seeded, small, of every kind, and much given to meeting each other at once.

Each flow gives one order at a time, for a client of the peer ``name`` at the time ``time_ms``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import NamedTuple

from orderbook.entry import NewOrder, NewPair, NewQuote


class Quotes(NamedTuple):
    """A mass quote."""

    owner: str
    quotes: list[NewQuote]


Flow = Callable[[Random, str, int], NewOrder | NewPair | Quotes]


def mixed(random: Random, name: str, time_ms: int) -> NewOrder:
    """Any kind; about half of the orders are plain."""
    new = NewOrder(
        random.choice(("buy", "sell")),
        str(random.randint(97, 103)),
        str(random.randint(1, 9)),
        f"o{random.randrange(6)}-{name}",
        self_trade=random.choice((None, None, "cancel_oldest", "cancel_both", "decrement")),
    )
    kind = random.choices(range(8), weights=(45, 9, 9, 12, 7, 9, 9, 9))[0]
    if kind == 1:
        new = new._replace(type="market", price=None, time_in_force=random.choice((None, "fok")))
    elif kind == 2:
        new = new._replace(time_in_force="ioc")
    elif kind == 3:
        new = new._replace(time_in_force="fok", quantity=str(random.randint(2, 12)))
    elif kind == 4:
        life_ms = random.choice((1, 20, 300, 3000))
        new = new._replace(time_in_force="gtd", expires_ms=time_ms + life_ms)
    elif kind == 5:
        new = new._replace(post_only=random.choice(("reject", "slide")))
    elif kind == 6:
        new = new._replace(display=str(random.randint(1, 3)), quantity=str(random.randint(4, 12)))
    elif kind == 7:
        new = new._replace(stop_price=str(random.randint(97, 103)))
        if random.random() < 0.5:
            new = new._replace(type="market", price=None)
    return new


def fill_or_kill(random: Random, name: str, time_ms: int) -> NewOrder:
    """Small orders that rest, and large ones that want several of them, or nothing."""
    side = random.choice(("buy", "sell"))
    owner = f"o{random.randrange(20)}-{name}"
    if random.random() < 0.7:
        price = random.randint(97, 99) if side == "buy" else random.randint(101, 103)
        return NewOrder(side, str(price), str(random.randint(2, 5)), owner)
    limit = "103" if side == "buy" else "97"
    return NewOrder(side, limit, str(random.randint(4, 14)), owner, time_in_force="fok")


def posted(random: Random, name: str, time_ms: int) -> NewOrder:
    """Orders that only want to make prices, and cross each other; now and then one that takes."""
    new = mixed(random, name, time_ms)
    if random.random() < 0.2:
        return new
    price = str(random.randint(98, 102))
    mode = random.choice(("reject", "reject", "slide"))
    return NewOrder(new.side, price, new.quantity, new.owner, post_only=mode)


def paired(random: Random, name: str, time_ms: int) -> NewOrder | NewPair:
    """Pairs close around the price, of which one cancels the other; and orders that move it."""
    new = mixed(random, name, time_ms)
    if random.random() < 0.5:
        return new
    buys = new.side == "buy"
    price, stop_price = random.randint(98, 100), random.randint(99, 102)
    if not buys:
        price, stop_price = 200 - price, 200 - stop_price
    resting = NewOrder(new.side, str(price), new.quantity, new.owner)
    if random.random() < 0.3:
        resting = resting._replace(display="1", quantity=str(random.randint(2, 9)))
    stop = NewOrder(new.side, None, new.quantity, new.owner, type="market", stop_price=str(stop_price))
    if random.random() < 0.5:
        stop = stop._replace(type=None, price="103" if buys else "97")
    return NewPair(resting, stop)


def quoted(random: Random, name: str, time_ms: int) -> NewOrder | Quotes:
    """Makers who set both of their sides again and again, around prices of their own; and those who take."""
    new = mixed(random, name, time_ms)
    if random.random() < 0.4:
        return new
    middle, quotes = random.randint(98, 102), []
    for side, sign in (("buy", -1), ("sell", 1)):
        for place in range(random.randint(0, 2)):
            price = str(middle + sign * (place + random.randint(0, 1)) + (sign > 0))
            quotes.append(NewQuote(f"{side}{place}", side, price, str(random.choice((0, 1, 3, 6)))))
    return Quotes(f"m{random.randrange(2)}-{name}", quotes)


FLOWS: Mapping[str, Flow] = {
    "mixed": mixed,
    "fill-or-kill": fill_or_kill,
    "post-only": posted,
    "pairs": paired,
    "quotes": quoted,
}

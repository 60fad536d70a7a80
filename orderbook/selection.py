"""Which offers a taker takes up.

The best price always comes first; a *policy* decides among equals. A policy takes the offers and a random
source and returns them in its order of preference. One's own function of that form works as well as ours:

    full-first   who can fill all that was asked, then in order of arrival (the default)
    fastest      in order of arrival
    largest      the most quantity first
    random       a fair shuffle
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random

from .model import BUY, Side


class OfferFill:
    """Part of a maker's order: price in ticks, quantity in lots."""

    __slots__ = ("order_id", "price", "quantity")

    def __init__(self, order_id: str, price: int, quantity: int):
        self.order_id = order_id
        self.price = price
        self.quantity = quantity


class PeerOffer:
    """A validated offer and who made it; offers are kept in order of arrival.

    What our own book offers, where it competes, is the first one: ``peer`` is ourselves, and it has no
    ``destination``.

    Attributes:
        expires: When its lease has surely not run out yet, on our monotonic clock.
        contended: The maker has more that crosses, but not now.
    """

    __slots__ = (
        "contended",
        "destination",
        "expires",
        "fills",
        "fully_matched",
        "key",
        "lock_id",
        "peer",
        "quantity",
    )

    def __init__(
        self,
        peer: str,
        destination: str,
        lock_id: str,
        fills: tuple[OfferFill, ...],
        quantity: int,
        fully_matched: bool,
        key: str | None = None,
        expires: float = math.inf,
        contended: bool = False,
    ):
        self.peer = peer
        self.destination = destination
        self.lock_id = lock_id
        self.fills = fills
        self.quantity = quantity
        self.fully_matched = fully_matched
        self.key = key
        self.expires = expires
        self.contended = contended


class Choice:
    """What to confirm of one offer; the rest of it is freed by the confirmation."""

    __slots__ = ("fills", "offer")

    def __init__(self, offer: PeerOffer, fills: tuple[OfferFill, ...]):
        self.offer = offer
        self.fills = fills

    @property
    def quantity(self) -> int:
        return sum(fill.quantity for fill in self.fills)


Policy = Callable[[Sequence[PeerOffer], Random], Sequence[PeerOffer]]


def full_first(offers: Sequence[PeerOffer], random: Random) -> Sequence[PeerOffer]:
    full = [offer for offer in offers if offer.fully_matched]
    if len(full) == len(offers):
        return full
    return full + [offer for offer in offers if not offer.fully_matched]


def fastest(offers: Sequence[PeerOffer], random: Random) -> Sequence[PeerOffer]:
    return offers


def largest(offers: Sequence[PeerOffer], random: Random) -> Sequence[PeerOffer]:
    return sorted(offers, key=lambda offer: -offer.quantity)


def shuffled(offers: Sequence[PeerOffer], random: Random) -> Sequence[PeerOffer]:
    return random.sample(offers, len(offers))


POLICIES: Mapping[str, Policy] = {
    "full-first": full_first,
    "fastest": fastest,
    "largest": largest,
    "random": shuffled,
}


EAGER_POLICIES = (fastest,)
"""Policies that need not hear everyone once what they have cannot be bettered."""


def choose(
    offers: Sequence[PeerOffer], side: Side, quantity: int, policy: Policy, random: Random
) -> list[Choice]:
    """Fill up to ``quantity`` lots for a taker of ``side`` from ``offers``, combining peers.

    Within an offer the maker's own order (price, then time) is kept. Returns one choice per offer taken up;
    offers not named in it are to be released.
    """
    ranked = list(policy(offers, random))
    sign = 1 if side is BUY else -1
    first = ranked[0].fills[0] if ranked else None
    if first is not None and first.quantity == quantity:
        best = sign * first.price
        if all(sign * fill.price >= best for offer in ranked for fill in offer.fills):
            return [Choice(ranked[0], (first,))]  # the same for most orders, without sorting
    candidates = sorted(
        (sign * fill.price, rank, place)
        for rank, offer in enumerate(ranked)
        for place, fill in enumerate(offer.fills)
    )
    taken: dict[int, list[OfferFill]] = {}
    for _, rank, place in candidates:
        if not quantity:
            break
        fill = ranked[rank].fills[place]
        part = min(fill.quantity, quantity)
        quantity -= part
        whole = part == fill.quantity
        taken.setdefault(rank, []).append(fill if whole else OfferFill(fill.order_id, fill.price, part))
    return [Choice(ranked[rank], tuple(fills)) for rank, fills in taken.items()]

"""When a node joins the network, and through whom. IO-free.

At the start, and again while one of the bootstrap addresses is not among the contacts: so it comes back after
an outage, and two halves of a network that were apart find each other. A node without any contact asks those
too that it had before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from random import Random

from .bounds import BOOTSTRAP_RETRY_MAX_S, BOOTSTRAP_RETRY_S, EARLIER_MAX_AGE_S, K
from .krpc import Address


class Bootstrap:
    """The bootstrap addresses, and the pauses between attempts: 1 s doubling to 30 s, a little random."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.addresses: list[Address] = []
        #: those that turned out to be ourselves
        self.own: set[Address] = set()
        #: contacts that were given up, and until when they are remembered; in the order of that time
        self.earlier: OrderedDict[Address, float] = OrderedDict()
        self.under_way = False
        self._due = 0.0
        self._delay_s = BOOTSTRAP_RETRY_S

    def lost(self, address: Address, now: float) -> None:
        """A contact was given up, or may be: it is of an earlier life."""
        self.earlier.pop(address, None)
        self.earlier[address] = now + EARLIER_MAX_AGE_S
        if len(self.earlier) > K:
            self.earlier.popitem(last=False)

    def missing(self, now: float, known: Collection[Address]) -> list[Address]:
        """Through whom to join now, if at all."""
        if self.under_way or now < self._due:
            return []
        while self.earlier and next(iter(self.earlier.values())) <= now:
            self.earlier.popitem(last=False)
        addresses = self.addresses if known else [*self.addresses, *self.earlier]
        return [address for address in addresses if address not in known and address not in self.own]

    def ended(self, now: float, alone: bool) -> None:
        """An attempt is over; ``alone``: still without any contact."""
        self.under_way = False
        self._delay_s = min(2 * self._delay_s, BOOTSTRAP_RETRY_MAX_S) if alone else BOOTSTRAP_RETRY_MAX_S
        self._due = now + self._delay_s * self._random.uniform(0.75, 1.25)

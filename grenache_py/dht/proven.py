"""Addresses known to receive what is sent there, so that an answer to them reaches who asked. IO-free.

The source address of a datagram proves nothing. It is proven by an answer to a query of ours, or by a write
token that was sent there.
"""

from __future__ import annotations

from collections import OrderedDict

from .bounds import PROVEN_MAX, PROVEN_S
from .krpc import Address


class Proven:
    """Addresses, each for ``max_age_s`` after its last proof; the oldest goes when there are too many."""

    def __init__(self, max_age_s: float = PROVEN_S, max_addresses: int = PROVEN_MAX) -> None:
        self._max_age_s = max_age_s
        self._max_addresses = max_addresses
        self._deadlines: OrderedDict[Address, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._deadlines)

    def add(self, address: Address, now: float) -> None:
        self._deadlines.pop(address, None)
        self._deadlines[address] = now + self._max_age_s
        if len(self._deadlines) > self._max_addresses:
            self._deadlines.popitem(last=False)

    def has(self, address: Address, now: float) -> bool:
        return self._deadlines.get(address, 0.0) > now

    def purge(self, now: float) -> None:
        """Forget what has expired."""
        while self._deadlines:
            address = next(iter(self._deadlines))
            if self._deadlines[address] > now:
                return
            del self._deadlines[address]

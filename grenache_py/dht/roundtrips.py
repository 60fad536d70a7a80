"""How long nodes take to answer, and so how soon a query is worth sending again. IO-free.

RFC 6298 with limits for a DHT: what would be sent again after ``QUERY_TIMEOUT_S`` is not sent again.
"""

from __future__ import annotations

from .bounds import QUERY_TIMEOUT_S, RESEND_MIN_S, RESEND_UNKNOWN_S, ROUND_TRIPS_MAX
from .krpc import Address


class RoundTrips:
    """Smoothed round trip, its variation and the time-out that follows, in seconds, by address; the one that
    was new first goes when there are too many.
    """

    def __init__(self, max_addresses: int = ROUND_TRIPS_MAX) -> None:
        self._max_addresses = max_addresses
        # Lists, which are changed in place: one is for every answer that comes.
        self._known: dict[Address, list[float]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def timeout_s(self, address: Address) -> float:
        """After so many seconds of silence a query is sent again."""
        known = self._known.get(address)
        return RESEND_UNKNOWN_S if known is None else known[2]

    def measured(self, address: Address, took_s: float) -> None:
        """A query that was sent once was answered (sections 2.2 and 2.3; of others it is not known which of
        the two was: section 3).
        """
        known = self._known.get(address) or self._add(address)
        smoothed, variation, _ = known
        if smoothed:
            known[1] = variation = variation + (abs(smoothed - took_s) - variation) / 4
            known[0] = smoothed = smoothed + (took_s - smoothed) / 8
        else:
            known[0] = smoothed = took_s
            known[1] = variation = took_s / 2
        timeout_s = smoothed + 4 * variation
        if timeout_s < RESEND_MIN_S:
            timeout_s = RESEND_MIN_S
        elif timeout_s > QUERY_TIMEOUT_S:
            timeout_s = QUERY_TIMEOUT_S
        known[2] = timeout_s

    def resent(self, address: Address) -> None:
        """A query was sent again: the next one is given twice the time (section 5.5)."""
        known = self._known.get(address) or self._add(address)
        known[2] = min(2 * known[2], QUERY_TIMEOUT_S)

    def _add(self, address: Address) -> list[float]:
        """Of an address of which nothing was measured yet."""
        if len(self._known) >= self._max_addresses:
            del self._known[next(iter(self._known))]
        self._known[address] = known = [0.0, 0.0, RESEND_UNKNOWN_S]
        return known

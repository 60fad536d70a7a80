"""How long nodes take to answer, and so how soon a query is worth sending again. IO-free.

RFC 6298 with limits for a DHT: what would be sent again after ``QUERY_TIMEOUT_S`` is not sent again.
"""

from __future__ import annotations

from .bounds import QUERY_TIMEOUT_S, RESEND_MIN_S, RESEND_UNKNOWN_S, ROUND_TRIPS_MAX
from .krpc import Address


class RoundTrips:
    """Smoothed round trip and its variation, in seconds, by address; the one that was new first goes when
    there are too many.
    """

    def __init__(self, max_addresses: int = ROUND_TRIPS_MAX) -> None:
        self._max_addresses = max_addresses
        # Both, and the factor of the time-out. Lists, which are changed in place: one is for every answer
        # that comes.
        self._known: dict[Address, list[float]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def timeout_s(self, address: Address) -> float:
        """After so many seconds of silence a query is sent again."""
        known = self._known.get(address)
        if known is None:
            return RESEND_UNKNOWN_S
        smoothed, variation, factor = known
        timeout_s = max(smoothed + 4 * variation, RESEND_MIN_S) if smoothed else RESEND_UNKNOWN_S
        return min(timeout_s * factor, QUERY_TIMEOUT_S)

    def measured(self, address: Address, took_s: float) -> None:
        """A query that was sent once was answered (sections 2.2 and 2.3; of others it is not known which of
        the two was: section 3).
        """
        known = self._known.get(address) or self._add(address)
        smoothed = known[0]
        if smoothed:
            late = took_s - smoothed
            known[0] = smoothed + late / 8
            known[1] += ((late if late > 0.0 else -late) - known[1]) / 4
        else:
            known[0] = took_s
            known[1] = took_s / 2
        known[2] = 1.0

    def resent(self, address: Address) -> None:
        """A query was sent again: the next one is given twice the time (section 5.5)."""
        known = self._known.get(address) or self._add(address)
        known[2] = min(2 * known[2], QUERY_TIMEOUT_S / RESEND_MIN_S)

    def _add(self, address: Address) -> list[float]:
        """Of an address of which nothing was measured yet."""
        if len(self._known) >= self._max_addresses:
            del self._known[next(iter(self._known))]
        self._known[address] = known = [0.0, 0.0, 1.0]
        return known

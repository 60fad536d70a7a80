"""How many datagrams an address may send that has not proved itself by answering us. IO-free."""

from __future__ import annotations

from collections import OrderedDict

from .bounds import (
    MALFORMED_COST,
    PRIVATE_BURST,
    PRIVATE_RATE,
    STRANGER_BURST,
    STRANGER_RATE,
    STRANGERS_BURST,
    STRANGERS_MAX,
    STRANGERS_RATE,
)


class RateLimiter:
    """One token bucket per IP address, and one for all that are not private; the address that was silent
    longest is forgotten first.
    """

    def __init__(self, max_addresses: int = STRANGERS_MAX) -> None:
        self._max_addresses = max_addresses
        # Tokens left, and when they were counted; in the order of use.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._all = STRANGERS_BURST, 0.0

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, host: str, now: float, cost: float = 1.0) -> bool:
        """Take ``cost`` tokens; False when there are not so many."""
        private = _private(host)
        rate, burst = (PRIVATE_RATE, PRIVATE_BURST) if private else (STRANGER_RATE, STRANGER_BURST)
        known = self._buckets.pop(host, None)
        if known is None:
            left = burst
            if len(self._buckets) >= self._max_addresses:
                self._buckets.popitem(last=False)
        else:
            left = min(burst, known[0] + (now - known[1]) * rate)
        allowed = left >= cost
        self._buckets[host] = (left - cost if allowed else left), now
        return allowed and (private or self._allow_all(now, cost))

    def _allow_all(self, now: float, cost: float) -> bool:
        left = min(STRANGERS_BURST, self._all[0] + (now - self._all[1]) * STRANGERS_RATE)
        allowed = left >= cost
        self._all = (left - cost if allowed else left), now
        return allowed

    def malformed(self, host: str, now: float) -> None:
        """Nonsense costs us the most to look at, so it costs its sender more too."""
        self.allow(host, now, MALFORMED_COST)


def _private(host: str) -> bool:
    # Loopback and RFC 1918.
    if host.startswith(("127.", "10.", "192.168.")):
        return True
    return host.startswith("172.") and 16 <= int(host.split(".")[1]) <= 31

"""How many datagrams an address may send. IO-free."""

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


class TokenBuckets:
    """One token bucket per key, ``rate`` tokens a second and up to ``burst`` at once; the key that was silent
    longest is forgotten first.
    """

    def __init__(self, rate: float, burst: float, max_keys: int) -> None:
        self._rate = rate
        self._burst = burst
        self._max_keys = max_keys
        # Tokens left, and when they were counted; in the order of use.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def allow(self, key: str, now: float, cost: float = 1.0) -> bool:
        """Take ``cost`` tokens; False when there are not so many."""
        known = self._buckets.pop(key, None)
        if known is None:
            left = self._burst
            if len(self._buckets) >= self._max_keys:
                self._buckets.popitem(last=False)
        else:
            left = min(self._burst, known[0] + (now - known[1]) * self._rate)
        allowed = left >= cost
        self._buckets[key] = (left - cost if allowed else left), now
        return allowed


class StrangerLimiter:
    """For IP addresses that have not proved themselves by answering us: a bucket each, and one for all that
    are not private.
    """

    def __init__(self, max_addresses: int = STRANGERS_MAX) -> None:
        self._private = TokenBuckets(PRIVATE_RATE, PRIVATE_BURST, max_addresses)
        self._public = TokenBuckets(STRANGER_RATE, STRANGER_BURST, max_addresses)
        self._all = TokenBuckets(STRANGERS_RATE, STRANGERS_BURST, 1)

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._private) + len(self._public)

    def allow(self, host: str, now: float, cost: float = 1.0) -> bool:
        """Whether one more datagram may come from there; or ``cost`` more."""
        if _private(host):
            return self._private.allow(host, now, cost)
        return self._public.allow(host, now, cost) and self._all.allow("", now, cost)

    def malformed(self, host: str, now: float) -> None:
        """Nonsense costs us the most to look at, so it costs its sender more too."""
        self.allow(host, now, MALFORMED_COST)


def _private(host: str) -> bool:
    # Loopback and RFC 1918.
    if host.startswith(("127.", "10.", "192.168.")):
        return True
    return host.startswith("172.") and 16 <= int(host.split(".")[1]) <= 31

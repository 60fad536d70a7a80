"""How long calls took: many durations in little memory. IO-free."""

from __future__ import annotations

import math
from typing import Any

# Bucket n holds durations from _BASE_S * _GROWTH ** n on; each is 1 % wider than the one before.
_BASE_S = 1e-6
_GROWTH = 1.01
_BUCKETS = 2500  # the last one begins at 17 hours

_BARS = "▁▂▃▄▅▆▇█"


class Histogram:
    """Durations in seconds. Minimum, maximum and mean are exact, quantiles to within 1 %."""

    def __init__(self) -> None:
        self.count = 0
        self.minimum_s = math.inf
        self.maximum_s = 0.0
        self._sum_s = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float, times: int = 1) -> None:
        self.count += times
        self.minimum_s = min(self.minimum_s, seconds)
        self.maximum_s = max(self.maximum_s, seconds)
        self._sum_s += seconds * times
        bucket = _bucket(seconds)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + times

    @property
    def mean_s(self) -> float:
        """Raises ZeroDivisionError when there is none."""
        return self._sum_s / self.count

    def quantile(self, share: float) -> float:
        """The smallest duration that at least this share (0 to 1) did not exceed (nearest rank).

        Raises ValueError when there is none.
        """
        rank = max(1, math.ceil(share * self.count))
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                ends_s = _BASE_S * _GROWTH ** (bucket + 1)
                return min(max(ends_s, self.minimum_s), self.maximum_s)
        raise ValueError("no durations")

    def bars(self, width: int) -> str:
        """A bar for each of ``width`` ranges from the shortest to the longest, of equal width on a
        logarithmic scale; a space where there is none.
        """
        if not self.count:
            return ""
        first, last = min(self._buckets), max(self._buckets)
        columns = [0] * min(width, last - first + 1)
        for bucket, count in self._buckets.items():
            columns[(bucket - first) * len(columns) // (last - first + 1)] += count
        highest = max(columns)
        return "".join(_BARS[(count * 8 - 1) // highest] if count else " " for count in columns)


def _bucket(seconds: float) -> int:
    if seconds <= _BASE_S:
        return 0
    return min(int(math.log(seconds / _BASE_S) / math.log(_GROWTH)), _BUCKETS - 1)


QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def summary(histogram: Histogram) -> dict[str, Any] | None:
    """For programs, in seconds; ``None`` when there is nothing to tell."""
    if not histogram.count:
        return None
    figures = {
        "min_s": histogram.minimum_s,
        "mean_s": histogram.mean_s,
        **{f"{name}_s": histogram.quantile(share) for name, share in QUANTILES.items()},
        "max_s": histogram.maximum_s,
    }
    return {name: round(seconds, 7) for name, seconds in figures.items()}

"""Where calls go and when services speak up, without any IO: the cache of look-ups, the choice of a
destination, the pauses between announcements, and one peer's part in a broadcast.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from . import limits
from .errors import PeerError


class LookupCache:
    """The destinations of recently looked up names, and those that failed of late.

    At most ``max_size`` names for ``max_age_s`` each (grenache-nodejs-link: 2500, 10 s). Ours: an empty
    look-up is not kept, so a service is found as soon as it is announced; and a destination that failed
    leaves at once and stays away for ``max_age_s`` while others remain, since Grapes go on returning a dead
    one for minutes.

    ``clock`` returns seconds that never go back. Not thread-safe.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        max_age_s: float = limits.LOOKUP_CACHE_AGE_S,
        max_size: int = limits.LOOKUP_CACHE_SIZE,
    ):
        self._clock = clock
        self._max_age_s = max_age_s
        self._max_size = max_size
        self._names: OrderedDict[str, tuple[float, list[str]]] = OrderedDict()  # each with when it ends
        self._failed: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._names)

    def get(self, name: str) -> list[str] | None:
        """The destinations of ``name``; ``None`` when they are not known or too old. Not to be changed."""
        entry = self._names.get(name)
        if entry is None:
            return None
        ends, destinations = entry
        if self._clock() >= ends:
            del self._names[name]
            return None
        return destinations

    def put(self, name: str, destinations: Sequence[str]) -> list[str]:
        """Remember what a Grape returned; returns it without those that failed of late, unless all did."""
        now = self._clock()
        alive = [place for place in destinations if self._failed.get(place, now) <= now]
        kept = alive or list(destinations)
        self._names[name] = (now + self._max_age_s, kept)
        self._names.move_to_end(name)
        if len(self._names) > self._max_size:
            self._names.popitem(last=False)
        return kept

    def forget(self, name: str, destination: str) -> None:
        """``destination`` failed: it leaves the entry of ``name`` now and is avoided for ``max_age_s``."""
        self._failed[destination] = self._clock() + self._max_age_s
        self._failed.move_to_end(destination)
        if len(self._failed) > self._max_size:
            self._failed.popitem(last=False)
        entry = self._names.get(name)
        if entry is None or destination not in entry[1]:
            return
        ends, destinations = entry
        remaining = [place for place in destinations if place != destination]
        if remaining:
            self._names[name] = (ends, remaining)
        else:
            del self._names[name]

    def clear(self) -> None:
        self._names.clear()
        self._failed.clear()


def choose(destinations: Sequence[str], tried: Collection[str], pick: Callable[[Sequence[str]], str]) -> str:
    """One destination, by ``pick`` (such as ``random.choice``) among those not ``tried`` if there are any."""
    return pick([place for place in destinations if place not in tried] or destinations)


def announce_pause_s(interval_s: float, failures: int, uniform: Callable[[float, float], float]) -> float:
    """Seconds until the next announcement, after so many failed ones in a row.

    0.5 to 1.5 times the interval (grenache-nodejs-link, startAnnouncing); ours: after failures sooner,
    starting at ``limits.ANNOUNCE_RETRY_S`` and doubling. ``uniform`` is such as ``random.uniform``.
    """
    mean = interval_s
    if failures:
        mean = min(interval_s, limits.ANNOUNCE_RETRY_S * 2 ** min(failures - 1, 16))
    return mean * uniform(0.5, 1.5)


@dataclass(frozen=True)
class MapResult:
    """What one peer made of a broadcast: ``payload``, or the ``error`` that stands in its place.

    ``elapsed_s`` is the time from the start of its call to this outcome.
    """

    destination: str
    payload: Any
    error: PeerError | None
    elapsed_s: float

    @property
    def ok(self) -> bool:
        """Whether there is a payload rather than an error."""
        return self.error is None

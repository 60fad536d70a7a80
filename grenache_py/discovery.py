"""Where calls go and when services speak up, without any IO: the cache of look-ups, the choice of a
Grape and of a destination, the pauses between announcements, and one peer's part in a broadcast.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from . import limits
from .checks import check_policy
from .errors import (
    ConnectError,
    ConnectionLost,
    GrapeReplyError,
    GrapeUnreachableError,
    PeerError,
    RemoteError,
    StatusError,
)


class GrapeChoice:
    """Which of several Grapes is asked.

    Attributes:
        url: Of the Grape that is asked at present.
        urls: Of all of them.
    """

    def __init__(self, urls: list[str]):
        self.urls = urls
        self.url = urls[0]

    def _failed(self, grape: str, kind: str, error: PeerError | GrapeReplyError, *, last: bool) -> None:
        """``grape`` did not do what it was asked for. Returns when the next one may be asked; raises what the
        caller is to hear where none may, or this was the ``last`` try.
        """
        if isinstance(error, GrapeReplyError):
            if last or error.status < 500 or kind == "put":
                raise error
            self._go_on_from(grape)
            return
        self._go_on_from(grape)
        # What may have been stored is not stored again: with a ``seq`` that would be refused.
        if last or (kind == "put" and error.in_doubt):
            raise GrapeUnreachableError(grape, f"{kind}: {error.message}", error.code) from error

    def _go_on_from(self, grape: str) -> None:
        """Ask another one from now on, if there is another and nobody did so before."""
        if self.url == grape:
            self.url = self.urls[(self.urls.index(grape) + 1) % len(self.urls)]


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


class Chooser:
    """Chooses destinations by a policy.

    - ``random``: any, as Node does.
    - ``least-loaded``: one with the fewest calls of ours under way.
    - ``fastest``: the one that answered fastest of late, a moving average in which a failure counts as slow;
      those not known yet come first, and one call in ``PROBE`` goes to any, so that who was slow gets
      another chance.

    ``pick`` is such as ``random.choice``, ``uniform`` such as ``random.random``. What is known of at most
    ``limits.LOOKUP_CACHE_SIZE`` destinations is kept, those heard of last. Not thread-safe, but harmless:
    what threads may spoil is a count or an average.
    """

    PROBE = 20
    # The share of the newest answer in the average.
    _WEIGHT = 0.2

    def __init__(
        self, policy: str, pick: Callable[[Sequence[str]], str], uniform: Callable[[], float]
    ) -> None:
        self.policy = check_policy(policy)
        self._pick = pick
        self._uniform = uniform
        self._under_way: dict[str, int] = {}
        self._seconds: OrderedDict[str, float] = OrderedDict()

    def choose(self, destinations: Sequence[str], tried: Collection[str] = ()) -> str:
        """One destination, not one of those ``tried`` if there are others."""
        if len(destinations) == 1:
            return destinations[0]
        if tried:
            destinations = [place for place in destinations if place not in tried] or destinations
        if self.policy == "least-loaded":
            best = min(self._under_way.get(place, 0) for place in destinations)
            destinations = [place for place in destinations if self._under_way.get(place, 0) == best]
        elif self.policy == "fastest" and self._uniform() * self.PROBE >= 1:
            known = self._seconds
            shortest = min(known.get(place, 0.0) for place in destinations)
            destinations = [place for place in destinations if known.get(place, 0.0) == shortest]
        return self._pick(destinations)

    @contextmanager
    def timed(self, destination: str, clock: Callable[[], float]) -> Iterator[None]:
        """Learn from the call to ``destination`` that is made within."""
        began = clock()
        self.started(destination)
        failed = True
        try:
            yield
            failed = False
        except RemoteError:
            failed = False  # it did answer
            raise
        finally:
            self.ended(destination, clock() - began, failed)

    def started(self, destination: str) -> None:
        """A call to ``destination`` begins."""
        if self.policy == "least-loaded":
            self._under_way[destination] = self._under_way.get(destination, 0) + 1

    def ended(self, destination: str, elapsed_s: float, failed: bool) -> None:
        """It has ended, after so many seconds."""
        if self.policy == "least-loaded":
            left = self._under_way.get(destination, 1) - 1
            if left > 0:
                self._under_way[destination] = left
            else:
                self._under_way.pop(destination, None)
        elif self.policy == "fastest":
            # A peer that fails at once is not a fast one.
            seconds = max(elapsed_s, limits.CONNECT_TIMEOUT_S) if failed else elapsed_s
            before = self._seconds.pop(destination, seconds)
            self._seconds[destination] = before + self._WEIGHT * (seconds - before)
            if len(self._seconds) > limits.LOOKUP_CACHE_SIZE:
                self._seconds.popitem(last=False)


class Attempts(msgspec.Struct):
    """Which peers a request has been tried at, and whether it is tried at another one.

    A peer that cannot be connected to, or says that it is too busy to begin, costs nothing: another one is
    asked, each once. So is one that breaks off, when the request is ``idempotent``. Any other failure of a
    peer, but for the answer of its handler, uses up one of the attempts that are ``left``.
    """

    left: int
    idempotent: bool
    tried: Collection[str] = ()
    in_doubt: bool = False

    def go_on(self, destination: str, error: PeerError, others: Sequence[str]) -> bool:
        """Whether to try again after ``error`` at ``destination``; ``others`` are announced at present.

        ``error`` is put in doubt when an earlier attempt was.
        """
        self.tried = {*self.tried, destination}
        free = (
            isinstance(error, ConnectError)
            or (isinstance(error, StatusError) and error.busy)
            or (self.idempotent and isinstance(error, ConnectionLost))
        )
        self.in_doubt = error.in_doubt = self.in_doubt or error.in_doubt
        if free and any(place not in self.tried for place in others):
            return True
        self.left -= 1
        return self.left > 0 and not isinstance(error, RemoteError)


def announce_pause_s(interval_s: float, failures: int, uniform: Callable[[float, float], float]) -> float:
    """Seconds until the next announcement, after so many failed ones in a row.

    0.5 to 1.5 times the interval (grenache-nodejs-link, startAnnouncing); ours: after failures sooner,
    starting at ``limits.ANNOUNCE_RETRY_S`` and doubling. ``uniform`` is such as ``random.uniform``.
    """
    mean = interval_s
    if failures:
        mean = min(interval_s, limits.ANNOUNCE_RETRY_S * 2 ** min(failures - 1, 16))
    return mean * uniform(0.5, 1.5)


def sample(
    destinations: Sequence[str], limit: int | None, draw: Callable[[Sequence[str], int], list[str]]
) -> list[str]:
    """At most ``limit`` of them, drawn by ``draw(destinations, count)``; all in their order without one."""
    if limit is None or limit >= len(destinations):
        return list(destinations)
    return draw(destinations, limit)


class MapResult(msgspec.Struct, frozen=True):
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

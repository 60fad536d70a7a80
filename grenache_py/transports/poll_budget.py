"""How long one may look for a message again and again in place of sleeping: what busy polling may cost.

It must not cost much where it does not help: when no message comes in time, or when others want the core, to
whom it gives way between two looks. What is lost by either is counted; beyond 10 ms, and 1% of the time, it
rests: 20 ms at first, twice as long each time, up to 2 s. Where others work for long it rests at once, for
100 ms or more. Not counted is the moment that the other end of a connection, or the other end's other end,
needs on the core of this one. Nor does it begin while clearly more want to run than there are processors.
"""

from __future__ import annotations

import os
from collections.abc import Callable

# The other end of a connection, which may be on the same core, gives it back sooner.
_GAVE_WAY_S = 100e-6
# So does the system's own work. Whoever does not has work to do.
_AT_WORK_S = 0.0005
_LOST_S_MAX, _LOST_SHARE = 0.01, 0.01
_REST_S, _REST_AT_WORK_S, _REST_S_MAX = 0.02, 0.1, 2.0
# After so long without another rest, the next one is short again.
_CALM_S = 5.0


class PollBudget:
    """What one poller, or several, have lost; ``now`` is on the clock of ``time.perf_counter``."""

    def __init__(self, crowded: Callable[[], bool]):
        self._crowded = crowded
        self._lost_s = self._lost_at = 0.0
        self._rest_s = _REST_S
        self._rests_until = 0.0
        #: it rests, or has rested and not begun again
        self.rests = True

    def begins(self, now: float) -> bool:
        """Whether it may poll now; to be asked while it ``rests``."""
        if now < self._rests_until:
            return False
        if self._crowded():
            self._rests_until = now + _REST_AT_WORK_S
            return False
        self.rests = False
        return True

    def gave_way(self, gone_s: float, now: float) -> bool:
        """Count what a look has taken, others included; returns whether it rests now."""
        if gone_s > _AT_WORK_S:
            self._rest(_REST_AT_WORK_S, now)
            return True
        return gone_s > _GAVE_WAY_S and self.lose(gone_s, now)

    def lose(self, lost_s: float, now: float) -> bool:
        """Count a time in vain; returns whether it rests now."""
        paid_s = (now - self._lost_at) * _LOST_SHARE
        self._lost_s = max(0.0, self._lost_s - paid_s) + lost_s
        self._lost_at = now
        if self._lost_s < _LOST_S_MAX:
            return False
        self._rest(_REST_S, now)
        return True

    def _rest(self, first_s: float, now: float) -> None:
        self._lost_s = 0.0
        calm = now - self._rests_until > _CALM_S
        self._rest_s = first_s if calm else min(max(2 * self._rest_s, first_s), _REST_S_MAX)
        self._rests_until = now + self._rest_s
        self.rests = True


def can_win() -> bool:
    """Whether there is anything to be won: more than one processor, and a way to give it to others."""
    return processors() > 1 and hasattr(os, "sched_yield")


def crowded() -> bool:
    """Whether two more want to run than there are processors, where the system says so; one more may be the
    other end of a connection, awake for the same reason.
    """
    try:
        with open("/proc/loadavg") as file:
            running = int(file.read().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return False
    return running > (os.cpu_count() or 1) + 1


def processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

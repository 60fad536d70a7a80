"""An event loop that stays awake for a moment while it expects a message.

To sleep and to be woken costs more processor time than a small message, most of all on a virtual machine: a
core that halts takes tens of microseconds to come back. As ``net.core.busy_poll`` and ``cpuidle-haltpoll`` of
Linux: whoever expects a message looks for it again and again for a moment before it sleeps.

It must not cost much where it does not help: when no message comes in time, or when others want the core, to
whom it gives way between two looks. What is lost by either is counted; beyond 10 ms, and 1% of the time, it
rests: 20 ms at first, twice as long each time, up to 10 s. Where others work for long it rests at once, for
100 ms or more: a core that both ends of a connection share, while another one idles, is a matter of
milliseconds for the system to mend, and a busy machine is not. Nor does it begin while more want to run than
there are processors.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

# To give way takes less than a microsecond when nobody is there.
_GAVE_WAY_S = 10e-6
# The other end of a connection, when it is on the same core, comes back sooner, and so does the system's own
# work. Whoever does not has work to do.
_AT_WORK_S = 0.0005
_LOST_S_MAX, _LOST_SHARE = 0.01, 0.01
_REST_S, _REST_AT_WORK_S, _REST_S_MAX = 0.02, 0.1, 10.0
# After so long without another rest, the next one is short again.
_CALM_S = 5.0


def busy_poll(loop: asyncio.AbstractEventLoop, microseconds: float) -> BusyPoll | None:
    """For connections on ``loop``; ``None`` when there is nothing to be won: 0 microseconds, only one
    processor, or no way to give it to others.
    """
    if not microseconds or _processors() < 2 or not hasattr(os, "sched_yield"):
        return None
    return BusyPoll(
        loop.call_soon,
        microseconds / 1e6,
        clock=time.perf_counter,
        give_way=os.sched_yield,
        crowded=_crowded,
    )


class BusyPoll:
    """Keeps a loop awake for at most ``window_s`` after each ``expect``, until ``came``; used on it only."""

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        window_s: float,
        *,
        clock: Callable[[], float],
        give_way: Callable[[], object],
        crowded: Callable[[], bool],
    ):
        self._call_soon = call_soon
        self._window_s = window_s
        self._clock = clock
        self._give_way = give_way
        self._crowded = crowded
        self._ends = 0.0  # 0: nothing is expected
        self._turning = False
        self._lost_s = self._lost_at = 0.0
        self._rest_s = _REST_S
        self._rests_until = 0.0
        self._rests = True  # or has rested, and not begun again

    def expect(self) -> None:
        """A message should come at once."""
        now = self._clock()
        if self._rests:
            if now < self._rests_until:
                return
            if self._crowded():
                self._rest(_REST_AT_WORK_S, now)
                return
            self._rests = False
        self._ends = now + self._window_s
        if not self._turning:
            self._turning = True
            self._call_soon(self._turn)

    def came(self) -> None:
        """It came."""
        self._ends = 0.0

    def _turn(self) -> None:
        # Between two of these the loop looks for messages, and runs whatever else it has to.
        if not self._ends:
            self._turning = False
            return
        now = self._clock()
        if now >= self._ends:
            self._turning = False
            self._lose(self._window_s, now)
            return
        self._give_way()
        gone_s = self._clock() - now
        if gone_s > _AT_WORK_S:
            self._turning = False
            self._rest(_REST_AT_WORK_S, now + gone_s)
        elif gone_s > _GAVE_WAY_S and self._lose(gone_s, now + gone_s):
            self._turning = False
        else:
            self._call_soon(self._turn)

    def _lose(self, lost_s: float, now: float) -> bool:
        """Count it; returns whether it was too much."""
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
        self._rests = True


def _crowded() -> bool:
    """Whether more want to run than there are processors, where the system says so."""
    try:
        with open("/proc/loadavg") as file:
            running = int(file.read().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return False
    return running > (os.cpu_count() or 1)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""An event loop that stays awake for a moment while it expects a message.

To sleep and to be woken costs more processor time than a small message, most of all on a virtual machine: a
core that halts takes tens of microseconds to come back. As ``net.core.busy_poll`` and ``cpuidle-haltpoll`` of
Linux: whoever expects a message looks for it again and again for a moment before it sleeps.

What that may cost: ``poll_budget``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import cache

from .poll_budget import PollBudget, can_win, crowded

# A loop with a message in each of so many turns would not sleep anyway; after so long it is tried again.
_TURNS_AT_WORK, _NEEDLESS_S = 16, 0.005

# It gives way to others in the first of so many turns without a message: to ask takes a third of a turn.
_TURNS_TO_GIVE_WAY = 4


def busy_poll(loop: asyncio.AbstractEventLoop, microseconds: float) -> BusyPoll | None:
    """For connections on ``loop``; ``None`` when there is nothing to be won: 0 microseconds, only one
    processor, or no way to give it to others.

    Each server and client has one of its own: one that has lost time for nothing rests without the others.
    """
    if not microseconds or not can_win():
        return None
    return BusyPoll(
        loop.call_soon,
        microseconds / 1e6,
        clock=time.perf_counter,
        give_way=os.sched_yield,
        budget=PollBudget(crowded),
    )


def busy_poll_on_demand(microseconds: float) -> Callable[[], BusyPoll | None]:
    """The one of a server, for all its services, or of a client: made on the running loop when it is first
    asked for.
    """
    return cache(lambda: busy_poll(asyncio.get_running_loop(), microseconds))


class BusyPoll:
    """Keeps a loop awake after ``expect`` until as many messages ``came``, but for at most ``window_s`` after
    the last of either; used on it only.
    """

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        window_s: float,
        *,
        clock: Callable[[], float],
        give_way: Callable[[], object],
        budget: PollBudget,
    ):
        self._call_soon = call_soon
        self._window_s = window_s
        self._clock = clock
        self._give_way = give_way
        self._budget = budget
        #: messages that have not come yet
        self.expected = 0
        self._ends = 0.0
        self._turning = False
        self._off = True  # it does not poll before it has asked the clock
        # Whether it was told of anything since the last turn, and for how many turns it was, or was not.
        self._told = False
        self._told_turns = self._untold_turns = 0
        self._needless_until = 0.0

    def expect(self) -> None:
        """A message should come at once, beside those that are expected already."""
        if self._off and not self._begins():
            return
        self.expected += 1
        self._told = True
        if not self._turning:
            self._turning = True
            self._call_soon(self._turn)

    def came(self) -> None:
        """One came."""
        if self.expected:
            self.expected -= 1
            self._told = True

    def _begins(self) -> bool:
        now = self._clock()
        self._off = now < self._needless_until or (self._budget.rests and not self._budget.begins(now))
        return not self._off

    def _turn(self) -> None:
        # Between two of these the loop looks for messages, and runs whatever else it has to.
        self._turning = False
        if not self.expected:
            return
        now = self._clock()
        if self._told:
            self._told = False
            self._ends = now + self._window_s
            self._untold_turns = 0
            self._told_turns += 1
            if self._told_turns >= _TURNS_AT_WORK:
                self._told_turns = 0
                self._needless_until = now + _NEEDLESS_S
                self._stop()
                return
        else:
            self._told_turns = 0
            if now >= self._ends:
                self.expected = 0
                self._off = self._budget.lose(self._window_s, now)
                return
            if self._untold_turns % _TURNS_TO_GIVE_WAY == 0:
                self._give_way()
                then = self._clock()
                if self._budget.gave_way(then - now, then):
                    self._stop()
                    return
            self._untold_turns += 1
        self._turning = True
        self._call_soon(self._turn)

    def _stop(self) -> None:
        self.expected = 0
        self._off = True

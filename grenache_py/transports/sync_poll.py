"""A thread that looks for a reply for a moment before it sleeps; why that pays: ``busy_poll``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from .poll_budget import PollBudget, can_win, crowded

Found = TypeVar("Found")


def sync_poll(microseconds: float) -> SyncPoll | None:
    """For the calls of one client; ``None`` when there is nothing to be won, as with ``busy_poll``."""
    if not microseconds or not can_win():
        return None
    return SyncPoll(
        microseconds / 1e6, clock=time.perf_counter, give_way=os.sched_yield, budget=PollBudget(crowded)
    )


class SyncPoll:
    """Looks again and again, for at most ``window_s`` and as far as the budget allows. Thread-safe, though
    for one thread at a time: several would take the interpreter from each other.
    """

    def __init__(
        self,
        window_s: float,
        *,
        clock: Callable[[], float],
        give_way: Callable[[], object],
        budget: PollBudget,
    ):
        self._window_s = window_s
        self._clock = clock
        self._give_way = give_way
        self._budget = budget

    def find(self, look: Callable[[], Found | None]) -> Found | None:
        """What ``look()`` finds, ``None`` if nothing comes in time. What it raises comes out."""
        started = self._clock()
        if self._budget.rests and not self._budget.begins(started):
            return None
        now = started
        while (found := look()) is None:
            self._give_way()
            # Other threads of this process may have had the interpreter meanwhile: they count as well.
            before, now = now, self._clock()
            if self._budget.gave_way(now - before, now):
                return None
            if now - started >= self._window_s:
                self._budget.lose(self._window_s, now)
                return None
        return found

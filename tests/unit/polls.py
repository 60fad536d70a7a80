"""For tests of busy polling."""

from __future__ import annotations

import os

import pytest

from grenache_py.transports.busy_poll import BusyPoll
from grenache_py.transports.poll_budget import PollBudget


def still_poll() -> BusyPoll:
    """One whose loop never turns, so that what it expects stays expected until it comes."""
    return BusyPoll(
        lambda turn: None, 1.0, clock=lambda: 0.0, give_way=lambda: None, budget=PollBudget(lambda: False)
    )


def set_processors(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """This process may use so many of them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)), raising=False)

"""Two peers that have met, on a clock set by hand; files with another kind of peer have their own."""

from __future__ import annotations

import pytest

from tests.unit.orderbook.negotiators import Clock, Peer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def maker(clock: Clock) -> Peer:
    return Peer("maker", clock)


@pytest.fixture
def taker(clock: Clock) -> Peer:
    return Peer("taker", clock, "maker")

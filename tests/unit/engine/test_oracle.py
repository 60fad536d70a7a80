"""The engine against the slow and obviously right book, under seeded streams of every command.

Limits are tiny, so that the rare happens often: few prices, few orders, levels spilled at four keys.
"""

from __future__ import annotations

from random import Random

import pytest

from orderbook.engine import Code, Reason, ladder
from tests.unit.engine.twins import Twins, random_command

SEEDS = range(60)
STEPS = 250


@pytest.fixture(autouse=True)
def tiny_near_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "NEAR_MAX", 4)


def stream(seed: int) -> Twins:
    random = Random(seed)
    twins = Twins()
    for _ in range(STEPS):
        twins.do(random_command(random, twins))
    return twins


@pytest.mark.parametrize("seed", SEEDS)
def test_engine_and_oracle_agree_after_every_command(seed: int) -> None:
    stream(seed)


def test_the_streams_reach_what_is_rare() -> None:
    """Every result code and every reason, but those that only bad callers or a protocol see."""
    seen: set[str] = set()
    for seed in SEEDS:
        seen |= stream(seed).seen
    unseen = {code for code in Code if code.value not in seen}
    assert unseen == {Code.INVALID_QUANTITY, Code.ABOVE_MAXIMUM, Code.TOO_MANY_QUOTES}
    assert {reason for reason in Reason if reason.value not in seen} == {Reason.BROKEN, Reason.POST_ONLY}
    assert {"match", "execution", "trigger", "contention", "contended", "reached"} <= seen


def test_the_same_commands_give_the_same_book_byte_for_byte() -> None:
    assert stream(7).hashes == stream(7).hashes

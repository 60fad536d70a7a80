"""The order book protocol holds under faults, and the simulation that says so can tell when it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from orderbook.terms import Routing
from tests.harness import IS_COMPILED
from tests.simulation.campaign import Scenario, failed_seeds, report, run, shrink
from tests.simulation.mutations import AMONG_HEIRS, AMONG_TWINS, MUTATIONS, SHOWN_BY, STAGES

SEEDS = 500
CHUNK = 25


def hold(seeds: range) -> Counter[str]:
    sights: Counter[str] = Counter()
    for seed in seeds:
        outcome = run(Scenario.of_seed(seed))
        if outcome.error is not None:
            pytest.fail(report(outcome), pytrace=False)
        sights += outcome.sights
    return sights


@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_all_invariants_hold(first: int) -> None:
    hold(range(first, first + CHUNK))


@pytest.mark.parametrize("seed", failed_seeds())
def test_what_failed_once_holds_now(seed: int) -> None:
    hold(range(seed, seed + 1))


@pytest.mark.parametrize("faults", ["", "loss repeats reordering crash liars", "liars skew leaving"])
def test_all_invariants_hold_with_real_signatures(faults: str) -> None:
    scenario = Scenario(
        15,
        3,
        60,
        "full-first",
        frozenset(faults.split()),
        listed="crash" in faults,
        ed25519=True,
        sessions=True,
    )
    outcome = run(scenario)
    assert outcome.error is None, report(outcome)
    assert outcome.sights["confirmation committed"] > 3


def test_every_fault_and_every_outcome_does_happen() -> None:
    sights = hold(range(1000, 1160))
    faults = (
        "message lost",
        "message repeated",
        "message overtaken",
        "answer after the deadline",
        "slow answer",
        "message cut off",
        "message cut off, one way only",
        "request to a place that is gone",
        "look-up: a dead peer",
        "look-up: a live peer missing",
        "our own book competes",
        "a stop order waits for what is reserved of its partner",
        "one of a pair has traded",
        "mass quote",
        "market halted",
        "market cancel_only",
        "order refused: halted",
        "fill-or-kill filled by several peers",
        "told: fok unfillable",
        "told: gtd expired",
        "told: untriggered",
        "post-only order yielded",
        "order refused: post_only_crosses",
        "tip of an iceberg offered",
        "amended",
        "amendment refused: under_way",
        "crash",
        "crash with a confirmation unanswered",
        "crash with reservations for others",
        "crash with something not yet durable",
        "write lost in a crash",
        "write kept in a crash that nobody waited out",
        "goodbye",
        "lease ran out",
        "trades left the memory",
        "request to who stands still",
        "forged answer",
        "forged request",
        "relayed request",
        "message on a connection altered",
        "session broken",
    )
    outcomes = (
        "offer",
        "session opened",
        "confirmation in a session",
        "request refused in a session: from",
        "request refused in a session: sig",
        "answer not believed in a session: from",
        "answer not believed in a session: sig",
        "contended",
        "confirmation committed",
        "confirmation rejected",
        "confirmation repeated",
        "confirmation unanswered",
        "answered from the archive",
        "rejected: lock_gone",
        "rejected: not_reserved",
        "release of a lock that is gone",
        "filled by several peers",
        "answer not believed: from",
        "answer not believed: key",
        "answer not believed: request",
        "answer not believed: sig",
        "request refused: from",
        "request refused: key",
        "request refused: nonce",
        "request refused: sig",
        "request refused: time",
        "request refused: to",
        "told: open",
        "told: partially_filled",
        "told: filled",
        "told: in doubt",
        "told: pending_cancel",
        "told: cancelled",
    )
    assert not [sight for sight in faults + outcomes if not sights[sight]]


def test_who_takes_a_name_that_is_free_by_now_gains_nothing() -> None:
    """Neither the proof of a trade of who had it before, nor a word in somebody's doubt about that one."""
    sights: Counter[str] = Counter()
    for seed in range(1, 9):
        outcome = run(replace(AMONG_HEIRS, seed=seed, sessions=seed % 2 == 0))
        assert outcome.error is None, report(outcome)
        sights += outcome.sights
    assert sights["heir not told of a match"] > 20
    assert sights["heir asked about a doubt"] > 2


def test_two_processes_of_one_name_deny_nothing_of_each_other() -> None:
    sights: Counter[str] = Counter()
    for seed in range(1, 61):
        outcome = run(replace(AMONG_TWINS, seed=seed, sessions=seed % 2 == 0, signs=seed % 3 > 0))
        assert outcome.error is None, report(outcome)
        sights += outcome.sights
    assert sights["request refused: lock_id"] > 10
    assert sights["request refused in a session: lock_id"]
    assert sights["rejected: lock_gone"]


TRACES = """
import hashlib
from tests.simulation.campaign import FAULTS, Scenario, run
for seed in range(7, 11):
    scenario = Scenario(seed, 5, 40, "random", faults=frozenset(FAULTS), sessions=seed > 8)
    print(hashlib.sha256("".join(run(scenario).timeline).encode()).hexdigest())
"""


def test_a_seed_decides_everything() -> None:
    """Also in another process, whose sets are in another order."""
    traces = [
        subprocess.run(
            [sys.executable, "-c", TRACES],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for hashes in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert len(set(traces[0])) == 4


def test_seeds_that_failed_once_draw_what_they_drew_then() -> None:
    """Also when what may be drawn has become more."""
    assert Scenario.of_seed(40048190) == Scenario(
        40048190,
        3,
        40,
        "full-first",
        frozenset({"closings", "standstill"}),
        trades_in_memory=4,
        routings=(Routing.LOCAL_FIRST, Routing.BEST_PRICE),
        flow="quotes",
        signs=False,
    )
    assert Scenario.of_seed(40042138) == Scenario(
        40042138,
        4,
        60,
        "fastest",
        frozenset({"staleness", "crash", "loss"}),
        listed=True,
        trades_in_memory=4,
        flow="pairs",
        signs=False,
    )
    late = {"heirs", "twins"}
    among_them = [seed for seed in failed_seeds() if late & Scenario.of_seed(seed).faults]
    assert among_them == [1174], "which failed with both"


def test_a_failure_is_shrunk_to_what_it_takes() -> None:
    scenario = Scenario(1, peers=9, orders=40, policy="largest", faults=frozenset({"loss", "crash", "skew"}))
    small = shrink(scenario, lambda s: "crash" in s.faults and s.orders >= 3)
    assert (small.peers, small.orders, small.faults) == (2, 3, frozenset({"crash"}))


# -- mutations: the protocol broken on purpose, each way must be caught ------------------------------


def scenarios(mutation: str) -> Iterator[Scenario]:
    """Where to look for what ``mutation`` breaks."""
    stage, seeds = STAGES.get(mutation), range(1, SEEDS + 1)
    if stage is not None:
        yield from (replace(stage, seed=seed) for seed in (stage.seed, *seeds))
        return
    known = SHOWN_BY.get(mutation)
    yield from map(Scenario.of_seed, seeds if known is None else (known, *seeds))


MISFIT = ("TypeError", "AttributeError", "NameError")
"""Errors of a mutation itself, not of a market in which something is broken."""


@pytest.mark.skipif(IS_COMPILED, reason="methods of compiled classes can't be replaced")
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_protocol_is_caught(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[mutation](monkeypatch)
    errors = (run(scenario).error for scenario in scenarios(mutation))
    caught = next((error for error in errors if error is not None), None)
    assert caught is not None, f"{SEEDS} seeds did not notice: {mutation}"
    assert not caught.startswith(MISFIT), f"{mutation} does not fit what it breaks any more: {caught}"

"""The order book protocol holds under faults, and the simulation that says so can tell when it does not."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from orderbook import book, maker, market, negotiation, outbox, recovery, taker
from orderbook.effects import Effect
from orderbook.engine import ladder
from orderbook.events import Cancelled, Event, Intended, Signed
from orderbook.model import Order, Side
from orderbook.signing import channel, gate
from tests.simulation import markets
from tests.simulation.campaign import Outcome, Scenario, failed_seeds, report, run, shrink

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
        15, 3, 60, "full-first", frozenset(faults.split()), listed="crash" in faults, ed25519=True
    )
    outcome = run(scenario)
    assert outcome.error is None, report(outcome)
    assert outcome.sights["confirmation committed"] > 3


def test_every_fault_and_every_outcome_does_happen() -> None:
    sights = hold(range(1000, 1120))
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
        "crash",
        "crash with a confirmation unanswered",
        "crash with reservations for others",
        "crash with something not yet durable",
        "write lost in a crash",
        "write kept in a crash that nobody waited out",
        "goodbye",
        "lease ran out",
        "trades left the memory",
        "forged answer",
        "forged request",
        "relayed request",
    )
    outcomes = (
        "offer",
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


TRACES = """
import hashlib
from tests.simulation.campaign import FAULTS, Scenario, run
for seed in range(7, 11):
    scenario = Scenario(seed, peers=5, orders=40, policy="random", faults=frozenset(FAULTS))
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


def test_a_failure_is_shrunk_to_what_it_takes() -> None:
    scenario = Scenario(1, peers=9, orders=40, policy="largest", faults=frozenset({"loss", "crash", "skew"}))
    small = shrink(scenario, lambda s: "crash" in s.faults and s.orders >= 3)
    assert (small.peers, small.orders, small.faults) == (2, 3, {"crash"})


# -- mutations: the protocol broken on purpose, each way must be caught ------------------------------


def forget_releases(patch: pytest.MonkeyPatch) -> None:
    """The taker does not release what it did not choose: only leases free it."""
    patch.setattr(taker.Taker, "_release", lambda self, destination, lock_id: [])


def refuse_repeated_confirmations(patch: pytest.MonkeyPatch) -> None:
    """The maker does not remember what it committed."""
    patch.setattr(market.Ledger, "trades_of_match", lambda self, taker_peer, match_id: [])
    patch.setattr(market.Ledger, "archived_match", lambda self, taker_peer, match_id: [])


def forget_what_left_the_memory(patch: pytest.MonkeyPatch) -> None:
    """The maker does not look into its journal."""
    patch.setattr(market.Ledger, "archived_match", lambda self, taker_peer, match_id: [])


def drop_trades_before_they_are_durable(patch: pytest.MonkeyPatch) -> None:
    """A trade leaves the memory when it is not in the journal yet."""
    add_trades = market.Ledger.add_trades

    def add(self: market.Ledger, trades: Any) -> None:
        add_trades(self, trades)
        self.drop_trades(self.trade_count)

    patch.setattr(market.Ledger, "add_trades", add)


def give_up_in_doubt(patch: pytest.MonkeyPatch) -> None:
    """The taker never asks again."""
    patch.setattr(taker.Taker, "_confirm_again", lambda self, match_id: [])


def take_silence_for_refusal(patch: pytest.MonkeyPatch) -> None:
    """The taker treats an unanswered confirmation as refused."""
    patch.setattr(
        taker.Taker,
        "match_failed",
        lambda self, match_id: self.match_answered(match_id, {"status": "rejected"}),
    )


def promise_before_durable(patch: pytest.MonkeyPatch) -> None:
    """Answers and confirmations go out before their events are on the disk."""

    def after_step(self: outbox.Outbox, effects: list[Effect]) -> None:
        self._journal.append(self._market.take_events())
        for effect in effects:
            self._carry_out(effect)

    patch.setattr(outbox.Outbox, "after_step", after_step)
    patch.setattr(outbox.Outbox, "promise", lambda self, tell: tell())


def without(kind: type[Event]) -> Callable[[pytest.MonkeyPatch], None]:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        note = market.Market.note
        patch.setattr(
            market.Market, "note", lambda self, event: None if isinstance(event, kind) else note(self, event)
        )

    return mutate


def reuse_ids_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    """Lock ids are counted from one by each process: an old confirmation finds a new lock."""
    start = markets.SimPeer.start

    def restart(self: markets.SimPeer) -> None:
        self._ids = itertools.count()
        start(self)
        assert self.negotiator is not None
        self.negotiator.market.new_id = lambda: f"{self.name}-{next(self._ids)}"

    patch.setattr(markets.SimPeer, "start", restart)


def ignore_limits(patch: pytest.MonkeyPatch) -> None:
    """Nobody compares prices with limits."""
    patch.setattr(Side, "crosses", lambda self, price, other: True)
    patch.setattr(ladder.Ladder, "down_to", lambda self, limit: self.best_first())


def offer_the_newest_first(patch: pytest.MonkeyPatch) -> None:
    """The maker forgets time priority."""
    crossing = book.Book.crossing
    oldest_first = ladder.Level.__iter__

    def reversed_crossing(self: book.Book, *args: Any, **options: Any) -> book.Crossing:
        patch.setattr(ladder.Level, "__iter__", lambda level: reversed(list(oldest_first(level))))
        try:
            return crossing(self, *args, **options)
        finally:
            patch.setattr(ladder.Level, "__iter__", oldest_first)

    patch.setattr(book.Book, "crossing", reversed_crossing)


def announce_without_holding(patch: pytest.MonkeyPatch) -> None:
    """The order stays open while it is offered elsewhere: it can be filled twice."""
    patch.setattr(book.Book, "hold", lambda self, order: order.open)


def keep_what_was_not_confirmed(patch: pytest.MonkeyPatch) -> None:
    """A partial confirmation does not free the rest of its reservation."""
    give_back = book.Book._give_back
    commit = book.Book.commit

    def leaky(self: book.Book, *args: Any) -> Any:
        patch.setattr(book.Book, "_give_back", lambda *_: None)
        try:
            return commit(self, *args)
        finally:
            patch.setattr(book.Book, "_give_back", give_back)

    patch.setattr(book.Book, "commit", leaky)


def ignore_heartbeats(patch: pytest.MonkeyPatch) -> None:
    """Crossed prices that no announcement showed are never noticed."""
    patch.setattr(negotiation.Negotiator, "_compare", lambda *_: None)


def reopen_cancelled_orders(patch: pytest.MonkeyPatch) -> None:
    """What is released of a cancelled order opens again."""

    release_held = book.Book.release_held

    def reopen(self: book.Book, order: Order, quantity: int) -> None:
        order.cancel_requested = False
        release_held(self, order, quantity)

    patch.setattr(book.Book, "release_held", reopen)


def leave_released_orders_crossed(patch: pytest.MonkeyPatch) -> None:
    """What is released is not matched with what came meanwhile."""
    patch.setattr(market.Market, "rematch", lambda self, orders: [])


def let_leases_last(patch: pytest.MonkeyPatch) -> None:
    """Nobody sweeps leases that have run out."""
    patch.setattr(maker.Maker, "expire", lambda self, now: [])


def trust_ids_of_strangers(patch: pytest.MonkeyPatch) -> None:
    """A trade counts for every order whose id it names, whoever's that is."""
    patch.setattr(recovery.Trade, "orders_of", lambda self, peer: [self.maker_order_id, self.taker_order_id])


def believe_any_signature(patch: pytest.MonkeyPatch) -> None:
    """Nobody verifies signatures while they trade."""
    patch.setattr(gate.Gate, "_check_signature", lambda *_: None)


def believe_any_key(patch: pytest.MonkeyPatch) -> None:
    """Whoever signs may use any name, and answer for anybody."""
    check_answer = gate.Gate.check_answer
    patch.setattr(gate.Keyring, "check", lambda *_: None)
    patch.setattr(
        gate.Gate, "check_answer", lambda self, request, answer, key=None: check_answer(self, request, answer)
    )


def take_commitments_without_proof(patch: pytest.MonkeyPatch) -> None:
    """The taker does not look whether what the maker has signed is the trade."""
    patch.setattr(channel, "agree", lambda proof: None)


def stamp_each_fill(patch: pytest.MonkeyPatch) -> None:
    """The maker reads its clock once for each fill of a match, the taker once for all."""
    trade = market.Market.trade

    def stamped(self: market.Market, *args: Any, **fields: Any) -> Any:
        return trade(self, *args, **{**fields, "time_ms": self.clock.time_ms()})

    patch.setattr(market.Market, "trade", stamped)


MUTATIONS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    mutation.__name__: mutation
    for mutation in (
        forget_releases,
        refuse_repeated_confirmations,
        forget_what_left_the_memory,
        drop_trades_before_they_are_durable,
        give_up_in_doubt,
        take_silence_for_refusal,
        promise_before_durable,
        reuse_ids_after_a_restart,
        ignore_limits,
        offer_the_newest_first,
        announce_without_holding,
        keep_what_was_not_confirmed,
        ignore_heartbeats,
        reopen_cancelled_orders,
        leave_released_orders_crossed,
        let_leases_last,
        trust_ids_of_strangers,
        stamp_each_fill,
        believe_any_signature,
        believe_any_key,
        take_commitments_without_proof,
    )
} | {
    "lose_intents": without(Intended),
    "lose_cancellations": without(Cancelled),
    "lose_proofs": without(Signed),
}


def first_caught(seeds: int) -> Outcome | None:
    outcomes = (run(Scenario.of_seed(seed)) for seed in range(1, seeds + 1))
    return next((outcome for outcome in outcomes if outcome.error is not None), None)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_protocol_is_caught(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[mutation](monkeypatch)
    caught = first_caught(SEEDS)
    assert caught is not None, f"{SEEDS} seeds did not notice: {mutation}"

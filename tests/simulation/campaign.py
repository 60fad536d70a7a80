"""Seeded campaigns over the simulated market, and what to do with a seed that fails.

    python -m tests.simulation.campaign --seed 1 --seeds 1000

Each seed draws its own mix of faults, size and policy, lets peers trade, heals everything, waits until the
market is at rest and checks I1 to I7. A failure is shrunk (fewer faults, peers, orders) and printed with its
timeline.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random

from orderbook.selection import POLICIES
from orderbook.terms import Routing
from tests.simulation.checks import check_claims, check_market
from tests.simulation.heirs import Heir
from tests.simulation.markets import Exchange
from tests.simulation.world import NetworkFaults

DRAWN_TOGETHER = (
    "loss",
    "repeats",
    "reordering",
    "lateness",
    "partition",
    "skew",
    "crash",
    "leaving",
    "slow disks",
    "slowness",
    "staleness",
    "liars",
)
"""Faults of which the same share of each is to be expected, in the order in which a seed draws them."""
DRAWN_ALONE = {
    "closings": (0.2, 0.4),
    "standstill": (0.38, 0.54),
    "heirs": (0.825, 0.96),
    "twins": (0.51, 0.67),
}
"""Faults that came later, drawn one by one after all else: each happens where what is drawn for it lies
between the two. A new one comes last, and takes an interval without FAILED_SEEDS, which stay as they were."""
FAULTS = (*DRAWN_TOGETHER, *DRAWN_ALONE)
ROUTINGS = (
    (Routing.LOCAL_FIRST,),
    (Routing.BEST_PRICE,),
    (Routing.LOCAL_FIRST, Routing.BEST_PRICE),
)
"""How the peers route orders, in turn."""
FAILED_SEEDS = Path(__file__).with_name("failed_seeds.txt")
"""Seeds that found something once, one per line with a word on what; they are run first, always."""


@dataclass(frozen=True)
class Scenario:
    """Everything that a run depends on."""

    seed: int
    peers: int
    orders: int
    policy: str
    faults: frozenset[str]
    listed: bool = False
    ed25519: bool = False
    trades_in_memory: int = 50
    routings: tuple[Routing, ...] = (Routing.LOCAL_FIRST,)
    flow: str = "mixed"
    signs: bool = True
    sessions: bool = False

    @classmethod
    def of_seed(cls, seed: int) -> Scenario:
        """What ``seed`` draws: mostly a few peers and some faults, sometimes many or all."""
        random = Random(seed)
        share = random.choice((0.0, 0.2, 0.5, 0.8, 1.0))
        drawn = cls(
            seed,
            peers=random.choice((2, 2, 3, 3, 4, 5, random.randint(6, 20))),
            orders=random.choice((10, 20, 40, 60)),
            policy=random.choice(list(POLICIES)),
            faults=frozenset(fault for fault in DRAWN_TOGETHER if random.random() < share),
            listed=random.random() < 0.5,
            trades_in_memory=random.choice((1, 4, 50)),
            routings=random.choice(ROUTINGS),
            flow=random.choice(("mixed", "mixed", "mixed", "mixed", "fill-or-kill", "post-only")),
        )
        if "liars" not in drawn.faults:  # where nobody signs, they can be anybody
            drawn = replace(drawn, signs=random.random() < 0.5)
        drawn = replace(drawn, sessions=drawn.signs and seed % 3 == 1)
        # In this order FAILED_SEEDS draw what they drew when they failed.
        flow = random.choices((drawn.flow, "pairs", "quotes", drawn.flow), (45, 12, 12, 31))[0]
        alone = {fault for fault, (least, most) in DRAWN_ALONE.items() if least < random.random() < most}
        return replace(drawn, flow=flow, faults=drawn.faults | alone)


@dataclass
class Outcome:
    """How a run ended; ``error`` is None when all held."""

    scenario: Scenario
    error: str | None
    timeline: list[str] = field(repr=False)
    sights: Counter[str] = field(default_factory=Counter)


def run(scenario: Scenario) -> Outcome:
    """Run one scenario from beginning to end."""
    exchange: Exchange | None = None
    try:
        exchange = set_up(scenario)
        exchange.world.run(16.0 if "heirs" in scenario.faults else 6.5)
        assert exchange.settle(), "the healed market did not come to rest (I4, I5)"
        check_market(exchange)
        check_claims(exchange)
        lost = exchange.sights["lease ran out"]
        if "slow disks" in scenario.faults:
            # What confirms one maker after the other may wait for a disk longer than a lease.
            lost -= exchange.sights["lease of a fill-or-kill order ran out"]
        faultless = scenario.faults <= {"skew", "slow disks"}
        assert not faultless or not lost, "a lease ran out, and nothing was lost"
    except Exception as error:
        timeline = exchange.world.timeline if exchange is not None else []
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return Outcome(scenario, text, timeline)
    return Outcome(scenario, None, exchange.world.timeline, exchange.sights)


def set_up(scenario: Scenario) -> Exchange:
    """The exchange of a scenario, with all that will happen to it."""
    faults, random = scenario.faults, Random(scenario.seed + 1)
    delay_s = (0.001, 0.02)
    if "reordering" in faults:
        delay_s = (0.001, 0.4)
    if "lateness" in faults:
        delay_s = (0.001, random.choice((1.5, 8.0)))  # beyond deadlines, beyond leases
    exchange = Exchange(
        scenario.seed,
        scenario.peers,
        liars=random.randint(1, 2) if "liars" in faults else 0,
        faults=NetworkFaults(
            lost=random.uniform(0.01, 0.3) if "loss" in faults else 0.0,
            repeated=random.uniform(0.05, 0.5) if "repeats" in faults else 0.0,
            delay_s=delay_s,
        ),
        policy=scenario.policy,
        routings=scenario.routings,
        calm=faults <= {"skew"},
        drift=0.02 if "skew" in faults else 0.0,
        wall_off_s=random.choice((0.05, 0.2, 1.0, 8.0)) if "skew" in faults else 0.0,
        stale_s=5.0 if "staleness" in faults else 0.0,
        listed=scenario.listed,
        ed25519=scenario.ed25519,
        trades_in_memory=scenario.trades_in_memory,
        signs=scenario.signs,
        sessions=scenario.sessions,
    )
    hurried = scenario.flow in ("pairs", "quotes")  # what they are to show takes many orders at once
    exchange.trade_at_random(scenario.orders, flow=scenario.flow, seconds=0.8 if hurried else 4.0)
    names = list(exchange.peers)
    if "partition" in faults:
        for _ in range(random.randint(1, 4)):
            links = [(a, b) for a in names for b in names if a != b]
            cut = set(random.sample(links, random.randint(1, len(links))))
            begin, length = random.uniform(0.2, 5.0), random.uniform(0.1, 6.0)
            exchange.world.after(begin, partial(exchange.network.cut.update, cut))
            exchange.world.after(begin + length, partial(exchange.network.cut.difference_update, cut))
    if "slowness" in faults:
        for name in random.sample(names, random.randint(1, len(names))):
            exchange.network.slow[name] = random.choice((0.3, 1.2, 6.0))
    if "crash" in faults:
        for _ in range(random.randint(1, 2 * len(names))):
            peer, down = exchange.peers[random.choice(names)], random.uniform(0.01, 7.0)
            kind = random.randrange(3)
            if kind == 0:
                exchange.crash_at(random.uniform(0.2, 6.0), peer, down)
            elif kind == 1:
                exchange.crash_at_write(random.randint(1, 20), peer, down)
            else:
                exchange.crash_at_confirmation(random.randint(0, 5), peer, down)
    if "leaving" in faults:
        for name in random.sample(names, random.randint(1, len(names))):
            exchange.leave_at(random.uniform(0.2, 5.0), exchange.peers[name], random.uniform(0.1, 3.0))
    if "closings" in faults:
        for _ in range(random.randint(1, len(names))):
            peer, state = exchange.peers[random.choice(names)], random.choice(("halted", "cancel_only"))
            exchange.close_at(random.uniform(0.5, 5.0), peer, state, random.uniform(0.1, 4.0))
    if "standstill" in faults:
        for name in random.sample(names, random.randint(1, len(names))):
            seconds = random.choice((0.3, 2.0, 6.0))  # beyond deadlines, beyond leases
            if random.random() < 0.5:
                exchange.stand_still_at(random.uniform(0.5, 5.0), exchange.peers[name], seconds)
            else:
                exchange.stand_still_at_offer(random.randint(0, 3), exchange.peers[name], seconds)
    if "heirs" in faults and scenario.signs:  # else anybody may have any name
        peer, down = exchange.peers[random.choice(names)], random.uniform(6.0, 8.5)
        kind = random.randrange(3)
        if kind == 0:
            exchange.crash_at(random.uniform(1.0, 4.0), peer, down)
        elif kind == 1:
            exchange.crash_at_confirmation(random.randint(0, 4), peer, down)
        else:
            exchange.crash_at_offer(random.randint(0, 4), peer, down)
        exchange.heirs.append(Heir(exchange, "heir", peer.name))
    if "twins" in faults:
        twin = exchange.add_twin(exchange.peers[random.choice(names)])
        exchange.world.after(random.uniform(0.2, 2.0), lambda: None if twin.alive else twin.start())
        if random.random() < 0.5:
            exchange.crash_at(random.uniform(2.5, 6.0), twin, random.uniform(0.01, 3.0))
    if "slow disks" in faults:
        for peer in exchange.processes:
            peer.disk.sync_s = (0.001, random.choice((0.05, 0.5, 3.0)))
    return exchange


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """The smallest scenario we find that fails as well, dropping one thing at a time."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in simpler(scenario):
            if fails(candidate):
                scenario, smaller = candidate, True
                break
    return scenario


def simpler(scenario: Scenario) -> Iterator[Scenario]:
    for fault in sorted(scenario.faults):
        yield replace(scenario, faults=scenario.faults - {fault})
    for orders in (scenario.orders // 2, scenario.orders * 3 // 4, scenario.orders - 1):
        if 0 < orders < scenario.orders:
            yield replace(scenario, orders=orders)
    if scenario.peers > 2:
        yield replace(scenario, peers=max(2, scenario.peers // 2))
        yield replace(scenario, peers=scenario.peers - 1)


def failed_seeds() -> list[int]:
    lines = FAILED_SEEDS.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def report(outcome: Outcome) -> str:
    """What a person needs to understand a failure."""
    small = shrink(outcome.scenario, lambda scenario: run(scenario).error is not None)
    final = run(small)
    return "\n".join(
        [
            f"seed {outcome.scenario.seed}: {outcome.error}",
            f"  as drawn: {outcome.scenario}",
            f"  shrunk:   {final.scenario}",
            f"  there:    {final.error}",
            "  timeline of the shrunk run:",
            *(f"    {line}" for line in final.timeline),
        ]
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Simulate markets under faults, one per seed.")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=500, help="how many")
    options = parser.parse_args(argv)
    started, sights = time.monotonic(), Counter[str]()
    for count, seed in enumerate(range(options.seed, options.seed + options.seeds), 1):
        outcome = run(Scenario.of_seed(seed))
        if outcome.error is not None:
            print(report(outcome))
            return 1
        sights += outcome.sights
        if count % 100 == 0 or count == options.seeds:
            print(f"{count} seeds held, {time.monotonic() - started:.0f} s", file=sys.stderr)
    for sight, times in sights.most_common():
        print(f"{times:>8}  {sight}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Read everything that a set of peers says, once their network has come to rest, and reconcile it."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from ..client import Client
from ..records import Health, MarketHealth
from .reconcile import Report, Snapshot, check

QUIET_TIMEOUT_S = 60.0
"""How long the network is given to come to rest. A lost message costs a lease of 5 s, a maker that is gone
keeps a confirmation in doubt."""
POLL_S = 0.25
"""Pause between questions; what is found at rest twice in a row is at rest."""

Progress = Callable[[str], None]


async def reconcile(
    clients: Sequence[Client], *, timeout_s: float = QUIET_TIMEOUT_S, progress: Progress = lambda text: None
) -> Report:
    """Wait until the peers are at rest, then check their books against each other.

    Findings are reported when a second reading has them too, or when ``timeout_s`` seconds are over: reading
    takes a while, in which an order may be announced once more. A network that does not come to rest is
    checked as it is then, and the report says what is not at rest.

    Args:
        clients: One for each peer of the network.
        progress: Told now and then what is waited for.

    Raises:
        PeerFailedError: A peer does not answer as it should.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    found_before = False
    while True:
        before = await wait_until_quiet(clients, deadline - loop.time(), progress)
        snapshots = await take_snapshots(clients)
        over = loop.time() >= deadline
        still = over or await _figures(clients) == before
        if not still:
            continue
        report = check(snapshots)
        if report.ok or found_before or over:
            return report
        found_before = True
        progress("something does not fit: reading everything once more")
        await asyncio.sleep(POLL_S)


async def wait_until_quiet(
    clients: Sequence[Client], timeout_s: float, progress: Progress = lambda text: None
) -> list[Health]:
    """Wait until nothing is under way, reserved, in doubt or crossed, and two looks in a row are the same.

    Returns:
        The last figures, at rest or not when ``timeout_s`` seconds are over.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    before: list[Health] | None = None
    while True:
        figures = await _figures(clients)
        restless = what_moves(figures)
        if (not restless and figures == before) or loop.time() >= deadline:
            return figures
        if restless:
            progress(f"waiting for {', '.join(restless)}")
        before = figures
        await asyncio.sleep(POLL_S)


def what_moves(figures: Sequence[Health]) -> list[str]:
    """What is not at rest, in words; empty when all is."""
    totals: dict[str, int] = defaultdict(int)
    crossed: set[str] = set()
    markets: dict[str, list[MarketHealth]] = defaultdict(list)
    for health in figures:
        for name, market in health.markets.items():
            markets[name].append(market)
            totals["under way"] += market.under_way
            totals["in doubt"] += market.in_doubt
            totals["reservations"] += market.reservations
    for name, peers in markets.items():
        bids = [_price(market.best_bid) for market in peers if market.best_bid is not None]
        asks = [_price(market.best_ask) for market in peers if market.best_ask is not None]
        if bids and asks and max(bids) >= min(asks):
            crossed.add(name)
    moving = [f"{count} {name}" for name, count in totals.items() if count]
    return moving + [f"crossing prices in {name}" for name in sorted(crossed)]


def _price(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal(0)  # not for us to judge: the check of the snapshots finds it


async def take_snapshots(clients: Sequence[Client]) -> list[Snapshot]:
    """Everything that the peers say, all of them asked at once."""
    return list(await asyncio.gather(*(_take(client) for client in clients)))


async def _take(client: Client) -> Snapshot:
    health = await client.health()
    markets: Mapping[str, MarketHealth] = health.markets
    return Snapshot(
        peer=health.peer,
        status=health.status,
        markets=markets,
        orders=[order for market in markets async for order in client.orders(market=market)],
        trades=[trade for market in markets async for trade in client.trades(market=market)],
        time_ms=time.time_ns() // 1_000_000,
    )


async def _figures(clients: Sequence[Client]) -> list[Health]:
    return list(await asyncio.gather(*(client.health() for client in clients)))

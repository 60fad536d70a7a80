"""The demo: a network of peers on this machine, order flow replayed at them, their books reconciled."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..audit.reconcile import Report
from ..audit.snapshots import reconcile
from ..client import Client, ClientError, PeerFailedError
from ..flow.files import Row
from ..flow.replay import Counts, replay
from ..records import Health
from .network import LocalNetwork, NetworkError

PEER_NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
LOOK_S = 0.5
"""Pause between looks at the peers' figures while the flow is replayed."""


@dataclass(frozen=True)
class Demo:
    """What is to be shown.

    Attributes:
        rows: The flow.
        market: Where it is traded.
        peers: How many.
        grape: URL of a Grape to use; None: two embedded ones.
        window: Requests in flight.
        journals: Where the peers keep their journals; None: in a folder that is gone afterwards.
        arguments: Further options of ``orderbook peer``.
    """

    rows: Iterable[Row]
    market: str
    peers: int
    grape: str | None
    window: int
    journals: Path | None = None
    arguments: Sequence[str] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    counts: Counts
    report: Report


class Display:
    """Where the demo shows what happens; this one shows nothing."""

    def note(self, text: str) -> None:
        """A line about what comes next."""

    def frame(self, counts: Counts, figures: Sequence[Health]) -> None:
        """The state of things, twice a second while the flow is replayed."""

    def close(self) -> None:
        """The flow has stopped."""


def peer_names(count: int) -> list[str]:
    return [PEER_NAMES[n] if n < len(PEER_NAMES) else f"peer-{n + 1}" for n in range(count)]


async def run_demo(demo: Demo, display: Display) -> Outcome:
    """Start everything, replay, reconcile, and stop everything, whatever happens.

    Raises:
        NetworkError: The network did not come up, or a peer has failed.
        FlowError, OSError: The flow cannot be read.
    """
    names = peer_names(demo.peers)
    grapes = f"the Grape at {demo.grape}" if demo.grape else "two Grapes"
    display.note(f"starting {grapes} and the peers {', '.join(names)}")
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="orderbook-demo-"))
        journals = demo.journals or Path(folder)
        network = await stack.enter_async_context(
            LocalNetwork(names, demo.market, grape=demo.grape, journals=journals, arguments=demo.arguments)
        )
        try:
            display.note(f"replaying order flow at {', '.join(peer.api for peer in network.peers)}")
            counts = await _replay(demo, network.clients, display)
            display.note("the flow has stopped; waiting until the peers are at rest")
            report = await reconcile(network.clients, progress=display.note)
        except PeerFailedError as error:
            raise NetworkError(await network.explain(error)) from error
    return Outcome(counts, report)


async def _replay(demo: Demo, clients: Sequence[Client], display: Display) -> Counts:
    counts = Counts()
    watching = asyncio.get_running_loop().create_task(_watch(clients, counts, display.frame))
    try:
        await replay(demo.rows, clients, demo.market, window=demo.window, counts=counts)
        display.frame(counts, await _look(clients))
        return counts
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        display.close()


async def _watch(
    clients: Sequence[Client], counts: Counts, show: Callable[[Counts, Sequence[Health]], Any]
) -> None:
    """Show the peers' figures again and again. A peer that fails is for the replay to report."""
    while True:
        try:
            show(counts, await _look(clients))
        except ClientError:
            pass
        await asyncio.sleep(LOOK_S)


async def _look(clients: Sequence[Client]) -> Sequence[Health]:
    return await asyncio.gather(*(client.health() for client in clients))

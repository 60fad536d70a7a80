"""Run one peer: a worker on a Grenache network and its client API, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from grenache_py.aio import Link
from grenache_py.signals import on_stop_signals
from grenache_py.transports import descriptors

from . import limits
from .api import Api
from .model import Instrument
from .selection import POLICIES, Policy
from .signing.keyfile import load_key
from .signing.keyring import Allowed
from .terms import Routing
from .worker import Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PeerSettings:
    """What a peer is started with.

    Attributes:
        name: Unique in the network.
        grape: URL of a Grape's HTTP API.
        instruments: One for each market.
        api_host: Where the client API listens.
        api_port: 0: any free one.
        host: Where other peers reach it; None: on all addresses.
        port: 0: any free one.
        policy: Chooses among offers of equal price.
        routing: Whether orders trade with its own book first, or wherever the price is best.
        journals: The folder of its journals; None: all is forgotten in the end.
        durability: Of the journals, one of :data:`orderbook.journal.schema.DURABILITIES`.
        key: The file of its private key; None: the one kept beside its journals, or for this run a new one.
        allowed: The keys that may trade with it, each with the only name that it may use or None; None: all.
        unsigned: Whether peers that do not sign may trade with it too.
    """

    name: str
    grape: str
    instruments: Sequence[Instrument]
    api_host: str = "127.0.0.1"
    api_port: int = 0
    host: str | None = None
    port: int = 0
    policy: Policy = POLICIES["full-first"]
    routing: Routing = Routing.LOCAL_FIRST
    journals: Path | None = None
    durability: str = "full"
    key: Path | None = None
    allowed: Allowed | None = None
    unsigned: bool = False


def tune_process() -> None:
    """Set up this process for a peer, once it has imported all and before it runs.

    It may open as many files as the system lets it, as each connection takes one.
    What is there now stays, so that the garbage collector need not look at it again; and it looks less often
    at the rest, of which most is kept (orders, trades) and nearly nothing is a cycle. The thread that writes
    the journal gets its turn earlier than after Python's 5 ms.
    """
    descriptors.raise_limit()
    gc.collect()
    gc.freeze()
    gc.set_threshold(limits.GARBAGE_OBJECTS, 20, 50)
    sys.setswitchinterval(limits.SWITCH_S)


async def run_peer(settings: PeerSettings, ready: Callable[[Worker, Api], None]) -> None:
    """Run until SIGINT or SIGTERM; ``ready`` is called once peers and clients can reach it.

    Raises:
        OSError: An address can't be listened on.
        JournalError, IdentityError: A file of it can't be used.
    """
    tune_process()
    identity = None if settings.key is None else load_key(settings.key)
    stop = asyncio.Event()
    on_stop_signals(stop.set)
    async with Link(settings.grape) as link:
        worker = Worker(
            link,
            settings.name,
            settings.instruments,
            policy=settings.policy,
            routing=settings.routing,
            host=settings.host,
            port=settings.port,
            journals=settings.journals,
            durability=settings.durability,
            identity=identity,
            allowed=settings.allowed,
            unsigned=settings.unsigned,
        )
        async with worker, Api(worker, settings.api_host, settings.api_port) as api:
            ready(worker, api)
            await stop.wait()
            log.info("stopping")

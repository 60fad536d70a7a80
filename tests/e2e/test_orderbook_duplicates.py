"""Two processes of one peer, with a copied key, are noticed: by each of the two, and by who hears both."""

from __future__ import annotations

from contextlib import AsyncExitStack

from grenache_py.aio import Link
from grenache_py.testing import Grapes
from orderbook.model import Instrument
from orderbook.signing.identity import Identity
from orderbook.worker import Worker
from tests.harness import until

MARKET = "BTC-USD"


async def test_a_copied_key_is_noticed_by_all_who_hear_it() -> None:
    copied = Identity.from_seed(b"copied".ljust(32))
    async with AsyncExitStack() as stack:
        grapes = stack.enter_context(Grapes(1))

        async def start(name: str, identity: Identity | None = None) -> Worker:
            link = await stack.enter_async_context(Link(grapes.url))
            worker = Worker(link, name, [Instrument(MARKET)], host="127.0.0.1", identity=identity)
            return await stack.enter_async_context(worker)

        def found(worker: Worker) -> int:
            return sum(worker.market(MARKET).counts.get("duplicate", {}).values())

        first, bob = await start("alice", copied), await start("bob")
        await until(lambda: first.market(MARKET).roster.trading(), what="the peers to meet")
        assert (found(first), found(bob)) == (0, 0)
        second = await start("alice", copied)
        for worker in (first, second, bob):
            await until(lambda worker=worker: found(worker), 20.0, f"{worker.name} to notice")

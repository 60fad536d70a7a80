"""A peer that keeps less in memory than others, so that it soon has as much there as it ever will.

Begun with ``{"role": "maker" | "taker", …}``. A maker rests one large order. Told a number, a taker fills as
many orders of its own from the maker, some at once. Each says then how much memory its Python objects take,
once what it need not keep is gone.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
from pathlib import Path
from typing import Any

from orderbook import limits

# Before they are read: some are defaults of parameters.
limits.CLOSED_ORDERS = limits.TRADES_IN_MEMORY = 300
limits.PROOFS_IN_MEMORY = 300
limits.HEARTBEAT_S = 0.2
limits.JOURNAL_SNAPSHOT = 2_000
limits.JOURNAL_TAKE_S = 0.1

from grenache_py.aio import Link  # noqa: E402
from orderbook.entry import NewOrder  # noqa: E402
from orderbook.model import Instrument  # noqa: E402
from orderbook.peer import tune_process  # noqa: E402
from orderbook.worker import Worker  # noqa: E402
from tests.harness import until  # noqa: E402

MARKET = "STEADY"
AT_ONCE = 16


async def run(conf: dict[str, Any]) -> None:
    tune_process()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    instrument = Instrument(MARKET, tick="1", lot="1")
    async with (
        Link(conf["grape"]) as link,
        Worker(
            link,
            conf["role"],
            [instrument],
            host="127.0.0.1",
            journals=Path(conf["journals"]),
            unsigned=True,
            signs=False,
        ) as worker,
    ):
        if conf["role"] == "maker":
            await worker.submit(MARKET, NewOrder("sell", "100", "1000000", "owner"))
        await until(lambda: len(worker.market(MARKET).roster.trading()) == 1, 30.0, "the peers to meet")
        print(json.dumps({"ready": True}), flush=True)

        async def place(count: int) -> None:
            for _ in range(count):
                order = await worker.submit(MARKET, NewOrder("buy", "100", "1", "owner"))
                assert order.filled == 1, order

        ledger = worker.market(MARKET).ledger
        while line := await reader.readline():
            await asyncio.gather(*(place(json.loads(line) // AT_ONCE) for _ in range(AT_ONCE)))
            await until(lambda: ledger.order_count <= limits.CLOSED_ORDERS + 1 and not ledger.excess)
            await worker.markets[MARKET].journal.proofs("none")  # once its tables have all
            await until(
                lambda: not any(thread.name.startswith("snapshot") for thread in threading.enumerate())
            )
            gc.collect()
            print(json.dumps({"trades": ledger.trade_count, "blocks": sys.getallocatedblocks()}), flush=True)


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))

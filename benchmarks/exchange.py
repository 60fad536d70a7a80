"""Cross-peer orders per second, ours beside the same algorithm on Node's packages, in the same run.

One taker and two makers, each a process of its own, over the same two Grapes. Each maker has one large
resting order at the same price; each order of the taker is announced to both, filled by one of them and
released by the other. Nothing matches locally. The sides take turns (theirs, ours, theirs, …), the median
round counts. Theirs never signs; ours does in the rows that say so, and writes a durable journal in those
that say that. At the end comes what an order costs with more peers, see peers.py.

Theirs (benchmarks/node/exchange.js) looks up, maps to all, takes the first answer, asks it to execute. It
keeps no book but one number, no time priority, no record of trades, and repeats nothing.

    python benchmarks/exchange.py --orders 2000 --rounds 3 --json exchange.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks import peers  # noqa: E402
from tests.harness import Process, need_node, until  # noqa: E402

MARKET = "BENCH"
IN_FLIGHT = (1, 16)
PEERS_ORDERS = 3_000


# --- our side, each a process of its own


async def run_peer(conf: dict[str, Any]) -> None:
    """A maker rests one order and serves; a taker submits what it is told to."""
    from grenache_py.aio import Link
    from orderbook.entry import NewOrder
    from orderbook.model import Instrument
    from orderbook.peer import tune_process
    from orderbook.worker import Worker

    tune_process()

    journals = Path(conf["journal"]) if conf["journal"] else None
    market = conf["market"]
    instrument = Instrument(market, tick="1", lot="1")
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Link(conf["grape"]) as link:
        signs = conf["signs"]
        worker = Worker(
            link,
            conf["name"],
            [instrument],
            host="127.0.0.1",
            journals=journals,
            unsigned=not signs,
            signs=signs,
        )
        async with worker:
            if conf["role"] == "maker":
                await worker.submit(market, NewOrder("sell", "100", str(10**15), "owner"))
            roster = worker.market(market).roster
            await until(lambda: len(roster.trading()) == 2, 30.0, "the peers to meet")
            print(json.dumps({"ready": worker.port}), flush=True)

            latencies: list[float] = []

            async def place(count: int) -> None:
                for _ in range(count):
                    started = time.perf_counter()
                    order = await worker.submit(market, NewOrder("buy", "100", "1", "owner"))
                    assert order.filled == 1, order
                    latencies.append((time.perf_counter() - started) * 1e3)

            while line := await reader.readline():
                round = json.loads(line)
                latencies.clear()
                started = time.perf_counter()
                each = round["orders"] // round["inFlight"]
                await asyncio.gather(*(place(each) for _ in range(round["inFlight"])))
                seconds = time.perf_counter() - started
                print(json.dumps({"seconds": seconds, "latencies_ms": latencies}), flush=True)


# --- the comparison


class Side:
    """One taker and two makers."""

    def __init__(self, name: str, argv: list[str], confs: list[dict[str, Any]], stack: ExitStack):
        self.name = name
        self.processes = [Process([*argv, json.dumps(conf)]) for conf in confs]
        for process in self.processes:
            stack.callback(process.stop)
        for process in self.processes:
            process.next_json(60)
        self.taker = self.processes[-1]

    def round(self, orders: int, in_flight: int) -> tuple[float, list[float]]:
        """Orders per second, and the latency of each in ms."""
        self.taker.send_json({"orders": orders, "inFlight": in_flight})
        said = self.taker.next_json(120)
        return len(said["latencies_ms"]) / said["seconds"], said["latencies_ms"]


def sides(stack: ExitStack, grapes: list[str]) -> dict[str, Side]:
    names = ("maker1", "maker2", "taker")
    roles = ("maker", "maker", "taker")
    ours = [sys.executable, __file__, "--peer"]
    theirs = [need_node(), str(ROOT / "benchmarks" / "node" / "exchange.js")]
    folder = Path(tempfile.mkdtemp(prefix="exchange-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)

    def confs(suffix: str, *, journal: bool = False, signs: bool = False) -> list[dict[str, Any]]:
        return [
            {
                "role": role,
                "name": name + suffix,
                "market": MARKET + suffix,
                "grape": grapes[n % 2],
                "journal": str(folder / (name + suffix)) if journal else None,
                "signs": signs,
            }
            for n, (name, role) in enumerate(zip(names, roles, strict=True))
        ]

    return {
        "node": Side("node", theirs, confs("n"), stack),
        "in memory": Side("in memory", ours, confs("m"), stack),
        "journaled": Side("journaled", ours, confs("j", journal=True), stack),
        "signed": Side("signed", ours, confs("s", signs=True), stack),
        "signed, journaled": Side("signed, journaled", ours, confs("sj", signs=True, journal=True), stack),
    }


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--orders", type=int, default=2000, help="orders a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts")
    parser.add_argument("--json", metavar="FILE", help="write rows {name, ours, theirs, ratio, unit} there")
    parser.add_argument("--peer", metavar="CONF", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.peer:
        try:
            import uvloop

            uvloop.run(run_peer(json.loads(options.peer)))
        except ImportError:
            asyncio.run(run_peer(json.loads(options.peer)))
        return 0

    from grenache_py import Grape
    from grenache_py.commands.version import is_compiled

    rates: dict[tuple[str, int], list[float]] = {}
    latencies: dict[tuple[str, int], list[float]] = {}
    cold: dict[tuple[str, int], float] = {}
    first = max(16, options.orders // 10)
    with ExitStack() as stack:
        one = stack.enter_context(Grape(dht_port=0, api_port=0, host="127.0.0.1"))
        second = stack.enter_context(
            Grape(dht_port=0, api_port=0, host="127.0.0.1", bootstrap=[one.dht_address])
        )
        compared = sides(stack, [one.url, second.url])
        for round in range(options.rounds + 1):
            for name, side in compared.items():
                for in_flight in IN_FLIGHT:
                    rate, times = side.round(options.orders if round else first, in_flight)
                    if round:  # the first one warms up
                        rates.setdefault((name, in_flight), []).append(rate)
                        latencies.setdefault((name, in_flight), []).extend(times)
                    else:
                        cold[name, in_flight] = rate
                    print(
                        f"round {round}: {name}, {in_flight} in flight: {rate:,.0f} orders/s", file=sys.stderr
                    )

    rows = []
    print(f"ours is {'' if is_compiled('orderbook.desk') else 'not '}compiled")
    print(f"{'':42}{'ours':>10}{'Node':>10}{'ratio':>8}   p50 / p99 ms, ours and Node's")
    for name in ("in memory", "journaled", "signed", "signed, journaled"):
        for in_flight in IN_FLIGHT:
            ours, theirs = (statistics.median(rates[side, in_flight]) for side in (name, "node"))
            shown = [
                " / ".join(f"{percentile(latencies[side, in_flight], share):.1f}" for share in (0.5, 0.99))
                for side in (name, "node")
            ]
            title = f"orders/s, {name}, {in_flight} in flight"
            print(f"{title:42}{ours:>10,.0f}{theirs:>10,.0f}{ours / theirs:>7.2f}x   {shown[0]}, {shown[1]}")
            rows.append(
                {"name": title, "ours": ours, "theirs": theirs, "ratio": ours / theirs, "unit": "orders/s"}
            )
    print(f"the first {first} orders of each side, before its just-in-time compiler, if it has one, is warm:")
    for in_flight in IN_FLIGHT:
        ours, theirs = cold["in memory", in_flight], cold["node", in_flight]
        title = f"cold, in memory, {in_flight} in flight"
        print(f"{title:42}{ours:>10,.0f}{theirs:>10,.0f}{ours / theirs:>7.2f}x")
        rows.append(
            {"name": title, "ours": ours, "theirs": theirs, "ratio": ours / theirs, "unit": "orders/s"}
        )
    durable, memory = rates["journaled", 16], rates["in memory", 16]
    share = statistics.median(durable) / statistics.median(memory)
    print(f"journaled at 16 in flight: {share:.0%} of in memory")
    alone = peers.rows(PEERS_ORDERS)
    print(peers.table(alone))
    rows += alone
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

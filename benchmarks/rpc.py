"""RPC calls per second, ours beside Node's, over the same Grapes in the same run.

Closed loop: so many calls are in flight at a time, each a small JSON object that is echoed; the next one
starts when one ends. Server and client are processes of their own, and so is every Grape. The rounds take
turns (theirs, ours, theirs, …) so that a busy moment of the machine hits both; the median counts.

    python benchmarks/rpc.py --seconds 1 --rounds 3 --json rpc.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

KINDS = ["node", "aio", "sync"]

# name of the row, (client, server) of ours, calls in flight; theirs is always a Node client and a Node server
ROWS = [
    ("asyncio client and server, 1 in flight", ("aio", "aio"), 1),
    ("asyncio client and server, 32 in flight", ("aio", "aio"), 32),
    ("synchronous client and server, 1 in flight", ("sync", "sync"), 1),
    ("synchronous client and server, 32 in flight", ("sync", "sync"), 32),
    ("asyncio client, Node server, 32 in flight", ("aio", "node"), 32),
    ("Node client, asyncio server, 32 in flight", ("node", "aio"), 32),
    ("Node client, synchronous server, 32 in flight", ("node", "sync"), 32),
]
WARM_UP_S = 0.3


def say(message: Any) -> None:
    print(json.dumps(message), flush=True)


# --- our servers and clients, each in a process of its own


def echo(rid: Any, key: Any, payload: Any, handler: Any) -> None:
    handler.reply(None, payload)


def serve_sync(grape: str, name: str) -> None:
    from grenache_py import Link, PeerRPCServer

    with Link(grape) as link:
        service = PeerRPCServer(link).transport()
        service.on("request", echo)
        service.listen(0, "127.0.0.1")
        link.announce(name, service.port)
        say({"ready": True})
        signal.signal(signal.SIGTERM, lambda *_: None)
        sys.stdin.read()


def call_sync(grape: str) -> None:
    from grenache_py import Link, PeerRPCClient

    with Link(grape) as link:
        client = PeerRPCClient(link)
        say({"ready": True})
        for line in sys.stdin:
            order = json.loads(line)
            counts: list[int] = []
            started = time.perf_counter()
            ends = started + order["seconds"]

            def work(name: str = order["name"], ends: float = ends, counts: list[int] = counts) -> None:
                calls = 0
                while time.perf_counter() < ends:
                    client.request(name, {"hello": "world", "n": calls})
                    calls += 1
                counts.append(calls)

            threads = [threading.Thread(target=work) for _ in range(order["in_flight"])]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            say({"calls": sum(counts), "seconds": time.perf_counter() - started})


async def serve_aio(grape: str, name: str) -> None:
    from grenache_py.aio import Link, PeerRPCServer

    async with Link(grape) as link:
        service = PeerRPCServer(link).transport()
        service.on("request", echo)
        await service.listen(0, "127.0.0.1")
        await link.announce(name, service.port)
        say({"ready": True})
        await asyncio.to_thread(sys.stdin.read)


async def call_aio(grape: str) -> None:
    from grenache_py.aio import Link, PeerRPCClient

    async with Link(grape) as link:
        client = PeerRPCClient(link)
        say({"ready": True})
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            started = time.perf_counter()
            ends = started + order["seconds"]

            async def work(name: str = order["name"], ends: float = ends) -> int:
                calls = 0
                while time.perf_counter() < ends:
                    await client.request(name, {"hello": "world", "n": calls})
                    calls += 1
                return calls

            counts = await asyncio.gather(*[work() for _ in range(order["in_flight"])])
            say({"calls": sum(counts), "seconds": time.perf_counter() - started})


def run_role(role: str, kind: str, grape: str, name: str) -> None:
    if kind == "sync":
        serve_sync(grape, name) if role == "server" else call_sync(grape)
        return
    try:
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    except ImportError:
        pass  # the standard loop, where there is no other
    asyncio.run(serve_aio(grape, name) if role == "server" else call_aio(grape))


# --- the measurement


@contextmanager
def processes() -> Iterator[dict[tuple[str, str], Any]]:
    """All servers and clients, by role and kind, with two Node Grapes between them."""
    from tests.harness import Process, need_node, start_node

    with ExitStack() as stack:
        first, ready = start_node("grape.js", {})
        stack.callback(first.stop)
        second, other = start_node("grape.js", {"dht_bootstrap": [f"127.0.0.1:{ready['dht_port']}"]})
        stack.callback(second.stop)
        grape = f"http://127.0.0.1:{other['api_port']}"
        running: dict[tuple[str, str], Any] = {}
        for role in ("server", "client"):
            for kind in KINDS:
                name = f"bench:{kind}"
                if kind == "node":
                    argv = [need_node(), str(ROOT / "benchmarks/node/rpc.js"), role, grape, name]
                else:
                    argv = [sys.executable, __file__, "--role", role, kind, grape, name]
                running[role, kind] = Process(argv)
                stack.callback(running[role, kind].kill)
                running[role, kind].next_json()
        yield running


def measure(
    running: dict[tuple[str, str], Any], client: str, server: str, in_flight: int, seconds: float
) -> float:
    """Calls per second."""
    for duration in (WARM_UP_S, seconds):
        running["client", client].send_json(
            {"name": f"bench:{server}", "in_flight": in_flight, "seconds": duration}
        )
        done = running["client", client].next_json(duration + 60)
    return float(done["calls"] / done["seconds"])


def run(seconds: float, rounds: int) -> list[dict[str, Any]]:
    setups = sorted({(("node", "node"), row[2]) for row in ROWS} | {(row[1], row[2]) for row in ROWS})
    rates: dict[tuple[tuple[str, str], int], list[float]] = {setup: [] for setup in setups}
    with processes() as running:
        for _ in range(rounds):
            for (client, server), in_flight in setups:
                rate = measure(running, client, server, in_flight, seconds)
                rates[(client, server), in_flight].append(rate)
    median = {setup: statistics.median(values) for setup, values in rates.items()}
    rows = []
    for name, pair, in_flight in ROWS:
        ours, theirs = median[pair, in_flight], median[("node", "node"), in_flight]
        rows.append(
            {
                "name": f"rpc: {name}",
                "ours": round(ours, 1),
                "theirs": round(theirs, 1),
                "ratio": round(ours / theirs, 3),
                "unit": "calls/s",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="RPC calls per second, ours beside Node's.")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind; the median counts")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    parser.add_argument("--role", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        run_role(*options.role)
        return
    rows = run(options.seconds, options.rounds)
    print(f"{'':55}{'ours':>10}{'theirs':>10}{'ratio':>8}")
    for row in rows:
        print(
            f"{row['name']:55}{row['ours']:>10.0f}{row['theirs']:>10.0f}{row['ratio']:>8.2f}  {row['unit']}"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

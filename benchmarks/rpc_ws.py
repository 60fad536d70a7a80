"""RPC calls per second over WebSocket, ours beside Node's, over the same Grapes in the same run.

Closed loop: so many calls are in flight at a time, each an object with a text of 200 bytes or 64 KiB
that is echoed; the next one starts when one ends. Server and client are processes of their own, and so is
every Grape.
The rows "server alone" replace the client by a lean one, the same for both servers, that sends frames made
beforehand and counts replies without reading them. The rounds take turns (theirs, ours, theirs, …) so that a
busy moment of the machine hits both; the median counts.

    python benchmarks/rpc_ws.py --seconds 1 --rounds 3 --json rpc_ws.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
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
SMALL, LARGE = 200, 64 * 1024

# name of the row, (client, server) of ours, calls in flight, bytes; theirs has Node in the place of ours
ROWS = [
    ("asyncio client and server, 1 in flight, 200 B", ("aio", "aio"), 1, SMALL),
    ("asyncio client and server, 32 in flight, 200 B", ("aio", "aio"), 32, SMALL),
    ("asyncio client and server, 1 in flight, 64 KiB", ("aio", "aio"), 1, LARGE),
    ("asyncio client and server, 32 in flight, 64 KiB", ("aio", "aio"), 32, LARGE),
    ("asyncio server alone, 1 in flight, 200 B", ("lean", "aio"), 1, SMALL),
    ("asyncio server alone, 32 in flight, 200 B", ("lean", "aio"), 32, SMALL),
    ("asyncio server alone, 32 in flight, 64 KiB", ("lean", "aio"), 32, LARGE),
    ("synchronous client and server, 1 in flight, 200 B", ("sync", "sync"), 1, SMALL),
    ("synchronous client and server, 32 in flight, 200 B", ("sync", "sync"), 32, SMALL),
]
WARM_UP_S = 0.3


def say(message: Any) -> None:
    print(json.dumps(message), flush=True)


# --- our servers and clients, each in a process of its own


def echo(rid: Any, key: Any, payload: Any, handler: Any) -> None:
    handler.reply(None, payload)


def serve_sync(grape: str, name: str) -> None:
    from grenache_py import Link
    from grenache_py.ws import PeerRPCServer

    with Link(grape) as link:
        service = PeerRPCServer(link).transport()
        service.on("request", echo)
        service.listen(0, "127.0.0.1")
        link.announce(name, service.port)
        say({"ready": service.port})
        signal.signal(signal.SIGTERM, lambda *_: None)
        sys.stdin.read()


def call_sync(grape: str) -> None:
    from grenache_py import Link
    from grenache_py.ws import PeerRPCClient

    with Link(grape) as link:
        client = PeerRPCClient(link)
        say({"ready": True})
        for line in sys.stdin:
            order = json.loads(line)
            text = "x" * order["size"]
            counts: list[int] = []
            started = time.perf_counter()
            ends = started + order["seconds"]

            def work(
                name: str = order["name"], text: str = text, ends: float = ends, counts: list[int] = counts
            ) -> None:
                calls = 0
                while time.perf_counter() < ends:
                    client.request(name, {"text": text, "n": calls})
                    calls += 1
                counts.append(calls)

            threads = [threading.Thread(target=work) for _ in range(order["in_flight"])]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            say({"calls": sum(counts), "seconds": time.perf_counter() - started})


async def serve_aio(grape: str, name: str) -> None:
    from grenache_py.aio import Link
    from grenache_py.aio.ws import PeerRPCServer

    async with Link(grape) as link:
        service = PeerRPCServer(link).transport()
        service.on("request", echo)
        await service.listen(0, "127.0.0.1")
        await link.announce(name, service.port)
        say({"ready": service.port})
        await asyncio.to_thread(sys.stdin.read)


async def call_aio(grape: str) -> None:
    from grenache_py.aio import Link
    from grenache_py.aio.ws import PeerRPCClient

    async with Link(grape) as link:
        client = PeerRPCClient(link)
        say({"ready": True})
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = json.loads(line)
            text = "x" * order["size"]
            started = time.perf_counter()
            ends = started + order["seconds"]

            async def work(name: str = order["name"], text: str = text, ends: float = ends) -> int:
                calls = 0
                while time.perf_counter() < ends:
                    await client.request(name, {"text": text, "n": calls})
                    calls += 1
                return calls

            counts = await asyncio.gather(*[work() for _ in range(order["in_flight"])])
            say({"calls": sum(counts), "seconds": time.perf_counter() - started})


async def call_lean() -> None:
    say({"ready": True})
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        say(await lean_load(order["port"], order["in_flight"], order["size"], order["seconds"]))


async def lean_load(port: int, in_flight: int, size: int, seconds: float) -> dict[str, float]:
    from picows import WSCloseCode, WSFrame, WSListener, WSTransport, ws_connect

    from grenache_py.transports.ws_frames import encode_frame

    message = json.dumps(["a rid", "bench", {"text": "x" * size, "n": 1}]).encode()
    request = encode_frame(1, message, os.urandom(4))
    ended = asyncio.get_running_loop().create_future()
    started = time.perf_counter()
    ends = started + seconds

    class Load(WSListener):
        calls = 0
        due = 0  # requests to send when all replies of one read are counted

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            self.calls += 1
            self.due += 1
            if frame.last_in_buffer:
                if time.perf_counter() < ends:
                    transport.underlying_transport.write(request * self.due)
                elif not ended.done():
                    ended.set_result(None)
                self.due = 0

    transport, load = await ws_connect(Load, f"ws://127.0.0.1:{port}/ws", use_aiofastnet=False)
    transport.underlying_transport.write(request * in_flight)
    await ended
    elapsed = time.perf_counter() - started
    transport.send_close(WSCloseCode.OK)
    transport.disconnect()
    await transport.wait_disconnected()
    assert isinstance(load, Load)
    return {"calls": load.calls, "seconds": elapsed}


def run_role(role: str, kind: str, grape: str, name: str) -> None:
    if kind == "sync":
        serve_sync(grape, name) if role == "server" else call_sync(grape)
        return
    try:
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    except ImportError:
        pass  # the standard loop, where there is no other
    if kind == "lean":
        asyncio.run(call_lean())
    else:
        asyncio.run(serve_aio(grape, name) if role == "server" else call_aio(grape))


# --- the measurement


@contextmanager
def processes() -> Iterator[tuple[dict[tuple[str, str], Any], dict[str, int]]]:
    """All servers and clients by role and kind, with two Node Grapes between them; the servers' ports."""
    from tests.harness import Process, need_node, start_node

    with ExitStack() as stack:
        first, ready = start_node("grape.js", {})
        stack.callback(first.stop)
        second, other = start_node("grape.js", {"dht_bootstrap": [f"127.0.0.1:{ready['dht_port']}"]})
        stack.callback(second.stop)
        grape = f"http://127.0.0.1:{other['api_port']}"
        running: dict[tuple[str, str], Any] = {}
        ports: dict[str, int] = {}
        for role, kinds in (("server", KINDS), ("client", [*KINDS, "lean"])):
            for kind in kinds:
                name = f"bench:{kind}"
                if kind == "node":
                    argv = [need_node(), str(ROOT / "benchmarks/node/rpc_ws.js"), role, grape, name]
                else:
                    argv = [sys.executable, __file__, "--role", role, kind, grape, name]
                running[role, kind] = Process(argv)
                stack.callback(running[role, kind].kill)
                ready = running[role, kind].next_json()["ready"]
                if role == "server":
                    ports[kind] = ready
        yield running, ports


def run(seconds: float, rounds: int) -> list[dict[str, Any]]:
    def theirs(client: str) -> tuple[str, str]:
        return (client if client == "lean" else "node", "node")

    setups = sorted(
        {(pair, *rest) for _, pair, *rest in ROWS} | {(theirs(row[1][0]), *row[2:]) for row in ROWS}
    )
    rates: dict[Any, list[float]] = {setup: [] for setup in setups}
    with processes() as (running, ports):
        for _ in range(rounds):
            for setup in setups:
                (client, server), in_flight, size = setup
                for duration in (WARM_UP_S, seconds):
                    order = {"name": f"bench:{server}", "port": ports[server], "in_flight": in_flight}
                    running["client", client].send_json({**order, "size": size, "seconds": duration})
                    done = running["client", client].next_json(duration + 60)
                rates[setup].append(done["calls"] / done["seconds"])
    median = {setup: statistics.median(values) for setup, values in rates.items()}
    rows = []
    for name, pair, in_flight, size in ROWS:
        our_rate = median[pair, in_flight, size]
        their_rate = median[theirs(pair[0]), in_flight, size]
        rows.append(
            {
                "name": f"rpc over WebSocket: {name}",
                "ours": round(our_rate, 1),
                "theirs": round(their_rate, 1),
                "ratio": round(our_rate / their_rate, 3),
                "unit": "calls/s",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="RPC calls per second over WebSocket, ours beside Node's.")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind; the median counts")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    parser.add_argument("--role", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        run_role(*options.role)
        return
    rows = run(options.seconds, options.rounds)
    print(f"{'':70}{'ours':>10}{'theirs':>10}{'ratio':>8}")
    for row in rows:
        print(
            f"{row['name']:70}{row['ours']:>10.0f}{row['theirs']:>10.0f}{row['ratio']:>8.2f}  {row['unit']}"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

"""RPC over HTTP, ours beside Node's, over the same Grapes in the same run.

Closed loop: so many calls are in flight at a time, each with a JSON object of about so many bytes that is
echoed; the next one starts when one ends. Server and client are processes of their own, and so is every
Grape. The rounds take turns so that a busy moment of the machine hits both; the median counts. Measured are

- calls of each client to each server, 1 and 32 in flight, 200 bytes and 64 KiB,
- ``map`` over 50 peers, in broadcasts per second,
- each server alone under ``wrk``, where that is installed (``apt-get install wrk``),
- beside our calls, a TCP echo of as many bytes on the same loop: what is possible without RPC.

Ours run on uvloop, as its command lines do.

    python benchmarks/rpc.py --seconds 1 --rounds 3 --json rpc.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

KINDS = ["node", "aio", "sync"]
PEERS = 50
WARM_UP_S = 0.3
SMALL, LARGE = 200, 64 * 1024


class Setup(NamedTuple):
    """What one measurement is about: ``call`` is request, map, wrk or echo."""

    call: str
    client: str
    server: str
    in_flight: int
    size: int

    def theirs(self) -> Setup:
        return self._replace(client="node", server="node")


# name of the row, our setup; beside it stands the same with Node at both ends, unless another is given
ROWS: list[tuple[str, Setup, Setup | None]] = [
    *(
        (f"{name}, {in_flight} in flight, {text}", Setup("request", kind, kind, in_flight, size), None)
        for name, kind in (("asyncio client and server", "aio"), ("synchronous client and server", "sync"))
        for in_flight in (1, 32)
        for size, text in ((SMALL, "200 B"), (LARGE, "64 KiB"))
    ),
    ("asyncio client, Node server, 32 in flight", Setup("request", "aio", "node", 32, SMALL), None),
    ("synchronous client, Node server, 1 in flight", Setup("request", "sync", "node", 1, SMALL), None),
    ("Node client, asyncio server, 32 in flight", Setup("request", "node", "aio", 32, SMALL), None),
    ("Node client, synchronous server, 32 in flight", Setup("request", "node", "sync", 32, SMALL), None),
    (f"asyncio map over {PEERS} peers", Setup("map", "aio", "aio", 1, SMALL), None),
    (f"synchronous map over {PEERS} peers", Setup("map", "sync", "sync", 1, SMALL), None),
    ("asyncio server under wrk, 32 connections", Setup("wrk", "wrk", "aio", 32, SMALL), None),
    ("synchronous server under wrk, 32 connections", Setup("wrk", "wrk", "sync", 32, SMALL), None),
    *(
        (
            f"asyncio beside a bare TCP echo, {in_flight} in flight",
            Setup("request", "aio", "aio", in_flight, SMALL),
            Setup("echo", "echo", "echo", in_flight, SMALL),
        )
        for in_flight in (1, 32)
    ),
]


def payload(size: int, number: int) -> dict[str, Any]:
    """An object of about ``size`` bytes of JSON."""
    return {"hello": "world", "n": number, "pad": "x" * max(0, size - 40)}


def say(message: Any) -> None:
    print(json.dumps(message), flush=True)


# --- our servers and clients, each in a process of its own


def echo(rid: Any, key: Any, payload: Any, handler: Any) -> None:
    handler.reply(None, payload)


def check(results: list[Any]) -> None:
    assert len(results) == PEERS - 1, len(results)
    assert all(result.ok for result in results)


def serve_sync(grape: str, name: str) -> None:
    from grenache_py import Link, PeerRPCServer

    with Link(grape) as link:
        server = PeerRPCServer(link)
        ports = []
        for number in range(PEERS):
            service = server.transport()
            service.on("request", echo)
            service.listen(0, "127.0.0.1")
            ports.append(service.port)
            link.announce(name if number == 0 else f"{name}:map", service.port)
        say({"ready": ports[0]})
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

            def work(order: Any = order, ends: float = ends, counts: list[int] = counts) -> None:
                calls = 0
                while time.perf_counter() < ends:
                    sent = payload(order["size"], calls)
                    if order["call"] == "map":
                        check(client.map(order["name"] + ":map", sent))
                    else:
                        client.request(order["name"], sent)
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
        server = PeerRPCServer(link)
        ports = []
        for number in range(PEERS):
            service = server.transport()
            service.on("request", echo)
            await service.listen(0, "127.0.0.1")
            ports.append(service.port)
            await link.announce(name if number == 0 else f"{name}:map", service.port)
        say({"ready": ports[0]})
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

            async def work(order: Any = order, ends: float = ends) -> int:
                calls = 0
                while time.perf_counter() < ends:
                    sent = payload(order["size"], calls)
                    if order["call"] == "map":
                        check(await client.map(order["name"] + ":map", sent))
                    else:
                        await client.request(order["name"], sent)
                    calls += 1
                return calls

            counts = await asyncio.gather(*[work() for _ in range(order["in_flight"])])
            say({"calls": sum(counts), "seconds": time.perf_counter() - started})


# --- a bare TCP echo


class EchoServer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoClient(asyncio.Protocol):
    def __init__(self, size: int, ends: float, done: asyncio.Future[int]):
        self.message = b"x" * size
        self.ends = ends
        self.done = done
        self.calls = self.got = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.message)

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if self.got < len(self.message):
            return
        self.got = 0
        self.calls += 1
        if time.perf_counter() < self.ends:
            self.transport.write(self.message)
        else:
            self.done.set_result(self.calls)
            self.transport.close()


async def serve_echo() -> None:
    server = await asyncio.get_running_loop().create_server(EchoServer, "127.0.0.1", 0)
    say({"ready": server.sockets[0].getsockname()[1]})
    await asyncio.to_thread(sys.stdin.read)


async def call_echo() -> None:
    loop = asyncio.get_running_loop()
    say({"ready": True})
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        started = time.perf_counter()
        ends = started + order["seconds"]
        done: list[asyncio.Future[int]] = [loop.create_future() for _ in range(order["in_flight"])]
        for each in done:
            client = EchoClient(order["size"], ends, each)
            await loop.create_connection(lambda client=client: client, "127.0.0.1", order["port"])
        say({"calls": sum(await asyncio.gather(*done)), "seconds": time.perf_counter() - started})


def run_role(role: str, kind: str, grape: str, name: str) -> None:
    if kind == "sync":
        serve_sync(grape, name) if role == "server" else call_sync(grape)
        return
    try:
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    except ImportError:
        pass  # the standard loop, where there is no other
    if kind == "echo":
        asyncio.run(serve_echo() if role == "server" else call_echo())
    else:
        asyncio.run(serve_aio(grape, name) if role == "server" else call_aio(grape))


# --- the measurement


Running = dict[tuple[str, str], Any]


@contextmanager
def processes() -> Iterator[tuple[Running, dict[str, int]]]:
    """All servers and clients by role and kind, two Node Grapes between them; and the servers' ports."""
    from tests.harness import Process, need_node, start_node

    with ExitStack() as stack:
        first, ready = start_node("grape.js", {})
        stack.callback(first.stop)
        second, other = start_node("grape.js", {"dht_bootstrap": [f"127.0.0.1:{ready['dht_port']}"]})
        stack.callback(second.stop)
        grape = f"http://127.0.0.1:{other['api_port']}"
        running: Running = {}
        ports = {}
        for role in ("server", "client"):
            for kind in [*KINDS, "echo"]:
                name = f"bench:{kind}"
                if kind == "node":
                    argv = [need_node(), str(ROOT / "benchmarks/node/rpc.js"), role, grape, name, str(PEERS)]
                else:
                    argv = [sys.executable, __file__, "--role", role, kind, grape, name]
                running[role, kind] = Process(argv)
                stack.callback(running[role, kind].kill)
                ready = running[role, kind].next_json()["ready"]
                if role == "server":
                    ports[kind] = ready
        yield running, ports


def measure(running: Running, ports: dict[str, int], setup: Setup, seconds: float) -> float:
    """Calls per second."""
    if setup.call == "wrk":
        return measure_wrk(ports[setup.server], setup, seconds)
    order = {
        "name": f"bench:{setup.server}",
        "call": setup.call,
        "port": ports[setup.server],
        "in_flight": setup.in_flight,
        "size": setup.size,
    }
    client = running["client", setup.client]
    for duration in (WARM_UP_S, seconds):
        client.send_json({**order, "seconds": duration})
        done = client.next_json(duration + 60)
    return float(done["calls"] / done["seconds"])


def measure_wrk(port: int, setup: Setup, seconds: float) -> float:
    body = json.dumps(["11111111-1111-4111-8111-111111111111", "bench", payload(setup.size, 1)])
    script = (
        f"wrk.method = 'POST'; wrk.body = '{body}'; wrk.headers['grc-compress'] = 'none'\n"
        "wrk.headers['Content-Type'] = 'text/plain;charset=UTF-8'\n"
        "done = function(summary) io.write(string.format('RESULT %d %d %d\\n', summary.requests,"
        " summary.duration, summary.errors.status + summary.errors.read + summary.errors.connect)) end\n"
    )
    with NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        argv = ["wrk", "-t1", f"-c{setup.in_flight}", f"-d{max(1, round(seconds))}s", "-s", file.name]
        said = subprocess.run(
            [*argv, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True
        )
    result = re.search(r"RESULT (\d+) (\d+) (\d+)", said.stdout)
    assert result is not None, said.stdout
    requests, microseconds, errors = map(int, result.groups())
    assert not errors, said.stdout
    return requests / microseconds * 1e6


def run(seconds: float, rounds: int, only: str) -> list[dict[str, Any]]:
    have_wrk = shutil.which("wrk") is not None
    wanted = [
        (name, ours, theirs or ours.theirs())
        for name, ours, theirs in ROWS
        if only in name and (have_wrk or ours.call != "wrk")
    ]
    setups = sorted({setup for _, *pair in wanted for setup in pair})
    rates: dict[Setup, list[float]] = {setup: [] for setup in setups}
    with processes() as (running, ports):
        for _ in range(rounds):
            for setup in setups:
                rates[setup].append(measure(running, ports, setup, seconds))
    median = {setup: statistics.median(values) for setup, values in rates.items()}
    rows = []
    for name, our_setup, their_setup in wanted:
        ours, theirs = median[our_setup], median[their_setup]
        rows.append(
            {
                "name": f"rpc: {name}",
                "ours": round(ours, 1),
                "theirs": round(theirs, 1),
                "ratio": round(ours / theirs, 3),
                "unit": "maps/s" if our_setup.call == "map" else "calls/s",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="RPC calls per second, ours beside Node's.")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind; the median counts")
    parser.add_argument("--only", metavar="TEXT", default="", help="rows with this text in their name")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    parser.add_argument("--role", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        run_role(*options.role)
        return
    rows = run(options.seconds, options.rounds, options.only)
    print(f"{'':70}{'ours':>10}{'theirs':>10}{'ratio':>8}")
    for row in rows:
        print(
            f"{row['name']:70}{row['ours']:>10.0f}{row['theirs']:>10.0f}{row['ratio']:>8.2f}  {row['unit']}"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

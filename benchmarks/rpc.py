"""RPC, ours beside Node's, over the same Grapes in the same run: HTTP and WebSocket.

Closed loop: so many calls are in flight at a time, each with a JSON object of about so many bytes that is
echoed; the next one starts when one ends. Server and client are processes of their own, and so is every
Grape. The sides take turns, in each round in another order, so that a busy moment of the machine hits both;
the medians count. Measured are

- calls of each client to each server, 1 and 32 in flight, 200 bytes and 64 KiB,
- ``map`` over peers of another name, in broadcasts per second,
- each server alone: under ``wrk`` over HTTP, where that is installed (``apt-get install wrk``), and over
  WebSocket under a client that sends one frame again and again and counts the replies,
- beside our calls, a TCP echo of as many bytes on the same loop: what is possible without RPC.

Beside the rates stands the processor time of client and server together for one call: it says the same on a
busy machine. Ours run on uvloop, as its command lines do.

    python benchmarks/rpc.py --seconds 1 --rounds 3 --only "asyncio client" --json rpc.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from benchmarks.loads import lean, peers  # noqa: E402
from benchmarks.loads.orders import PEERS  # noqa: E402
from grenache_py.commands.version import is_compiled  # noqa: E402

# Node compiles what it has run often enough: the first time with a peer takes longer.
WARM_UP_S, FIRST_WARM_UP_S = 0.3, 2.0
SMALL, LARGE = 200, 64 * 1024
TITLES = {"http": "HTTP", "ws": "WebSocket"}


class Setup(NamedTuple):
    """What one measurement is about: ``call`` is request or map; the client is aio, asleep (the same without
    busy polling), sync, node, lean, wrk.
    """

    transport: str
    call: str
    client: str
    server: str
    in_flight: int
    size: int

    def theirs(self) -> Setup:
        lean = self.client in ("lean", "wrk")
        return self._replace(client=self.client if lean else "node", server="node")


Row = tuple[str, Setup, Setup]


def rows() -> Iterator[Row]:
    """Name, our setup and what stands beside it."""
    for transport, title in TITLES.items():

        def row(name: str, *setup: Any, transport: str = transport, title: str = title) -> Row:
            ours = Setup(transport, *setup)
            return f"{title}: {name}", ours, ours.theirs()

        for kind, text in (("aio", "asyncio"), ("sync", "synchronous")):
            for in_flight in (1, 32):
                for size, size_text in ((SMALL, "200 B"), (LARGE, "64 KiB")):
                    name = f"{text} client and server, {in_flight} in flight, {size_text}"
                    yield row(name, "request", kind, kind, in_flight, size)
        if transport == "ws":
            name = "asyncio without busy polling, 1 in flight, 200 B"
            yield row(name, "request", "asleep", "asleep", 1, SMALL)
        yield row("asyncio client, Node server, 32 in flight", "request", "aio", "node", 32, SMALL)
        yield row("Node client, asyncio server, 32 in flight", "request", "node", "aio", 32, SMALL)
        yield row("synchronous client, asyncio server, 1 in flight", "request", "sync", "aio", 1, SMALL)
        yield row("synchronous client, Node server, 1 in flight", "request", "sync", "node", 1, SMALL)
        yield row("Node client, synchronous server, 32 in flight", "request", "node", "sync", 32, SMALL)
        yield row(f"asyncio map over {PEERS - 1} peers", "map", "aio", "aio", 1, SMALL)
        yield row(f"synchronous map over {PEERS - 1} peers", "map", "sync", "sync", 1, SMALL)
        load = "wrk" if transport == "http" else "lean"
        for in_flight, size, text in ((1, SMALL, "200 B"), (32, SMALL, "200 B"), (32, LARGE, "64 KiB")):
            name = f"asyncio server alone, {in_flight} in flight, {text}"
            yield row(name, "request", load, "aio", in_flight, size)
        yield row("synchronous server alone, 32 in flight, 200 B", "request", load, "sync", 32, SMALL)
        for in_flight in (1, 32):
            ours = Setup(transport, "request", "aio", "aio", in_flight, SMALL)
            echo = Setup("tcp", "request", "echo", "echo", in_flight, SMALL)
            yield f"{title}: asyncio beside a bare TCP echo, {in_flight} in flight", ours, echo


def run_role(role: str, transport: str, kind: str, grape: str, name: str) -> None:
    """Be one of the processes."""
    if kind == "sync":
        peers.serve_sync(transport, grape, name) if role == "server" else peers.call_sync(transport, grape)
        return
    try:
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    except ImportError:
        pass  # the standard loop, where there is no other
    if kind in ("aio", "asleep"):
        options = {"busy_poll_us": 0} if kind == "asleep" else {}
        if role == "server":
            asyncio.run(peers.serve_aio(transport, grape, name, options))
        else:
            asyncio.run(peers.call_aio(transport, grape, options))
    else:
        asyncio.run(lean.serve_echo() if role == "server" else lean.LOADS[kind]())


class Processes:
    """Servers and clients, started when they are needed, with two Node Grapes between them."""

    def __init__(self, stack: ExitStack, grape: str):
        self._stack = stack
        self._grape = grape
        self._running: dict[tuple[str, str, str], Any] = {}
        self._ports: dict[tuple[str, str], int] = {}
        self._warm: set[tuple[str, ...]] = set()

    def get(self, role: str, transport: str, kind: str) -> Any:
        from tests.harness import Process, need_node

        key = (role, transport, kind)
        if key not in self._running:
            arguments = [role, transport, kind, self._grape, f"bench:{transport}:{kind}"]
            if kind == "node":
                argv = [need_node(), str(ROOT / "benchmarks/node/rpc.js"), *arguments, str(PEERS)]
            else:
                argv = [sys.executable, __file__, "--role", *arguments]
            process = self._running[key] = Process(argv)
            self._stack.callback(process.kill)
            ready = process.next_json()["ready"]
            if role == "server":
                self._ports[transport, kind] = ready
        return self._running[key]

    def measure(self, setup: Setup, seconds: float) -> tuple[float, float]:
        """Calls per second, and seconds of processor time per call."""
        server = self.get("server", setup.transport, setup.server)
        port = self._ports[setup.transport, setup.server]
        if setup.client == "wrk":
            before = cpu_s(server)
            calls, elapsed_s = wrk(port, setup, seconds)
            return calls / elapsed_s, (cpu_s(server) - before) / calls
        client = self.get("client", setup.transport, setup.client)
        order = {
            "call": setup.call,
            "name": f"bench:{setup.transport}:{setup.server}",
            "port": port,
            "in_flight": setup.in_flight,
            "size": setup.size,
        }
        # Of a load that is not ours to judge, the server's time only.
        both = [server] if setup.client == "lean" else [server, client]
        pair = (setup.transport, setup.call, setup.client, setup.server)
        warm_up_s = WARM_UP_S if pair in self._warm else FIRST_WARM_UP_S
        self._warm.add(pair)
        for duration in (warm_up_s, seconds):
            before = sum(map(cpu_s, both))
            client.send_json({**order, "seconds": duration})
            done = client.next_json(duration + 60)
        return done["calls"] / done["seconds"], (sum(map(cpu_s, both)) - before) / done["calls"]


def cpu_s(process: Any) -> float:
    process.send_json({"cpu": True})
    return float(process.next_json()["cpu_s"])


def wrk(port: int, setup: Setup, seconds: float) -> tuple[int, float]:
    """Requests and seconds."""
    with NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(lean.wrk_script(setup.size))
        file.flush()
        argv = ["wrk", "-t1", f"-c{setup.in_flight}", f"-d{max(1, round(seconds))}s", "-s", file.name]
        said = subprocess.run(
            [*argv, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True
        )
    result = re.search(r"RESULT (\d+) (\d+) (\d+)", said.stdout)
    assert result is not None, said.stdout
    requests, microseconds, errors = map(int, result.groups())
    assert not errors, said.stdout
    return requests, microseconds / 1e6


@contextmanager
def processes() -> Iterator[Processes]:
    from tests.harness import start_node

    with ExitStack() as stack:
        first, ready = start_node("grape.js", {})
        stack.callback(first.stop)
        second, other = start_node("grape.js", {"dht_bootstrap": [f"127.0.0.1:{ready['dht_port']}"]})
        stack.callback(second.stop)
        yield Processes(stack, f"http://127.0.0.1:{other['api_port']}")


def run(seconds: float, rounds: int, only: str) -> list[dict[str, Any]]:
    have_wrk = shutil.which("wrk") is not None
    wanted = [row for row in rows() if only in row[0] and (have_wrk or row[1].client != "wrk")]
    setups = list(dict.fromkeys(setup for _, *pair in wanted for setup in pair))
    measured: dict[Setup, list[tuple[float, float]]] = {setup: [] for setup in setups}
    with processes() as running:
        for number in range(rounds):
            for setup in setups if number % 2 == 0 else reversed(setups):
                measured[setup].append(running.measure(setup, seconds))
    rates = {setup: statistics.median(rate for rate, _ in done) for setup, done in measured.items()}
    cpu = {setup: statistics.median(each for _, each in done) for setup, done in measured.items()}
    return [
        {
            "name": f"rpc over {name}",
            "ours": round(rates[ours], 1),
            "theirs": round(rates[theirs], 1),
            "ratio": round(rates[ours] / rates[theirs], 3),
            "unit": "maps/s" if ours.call == "map" else "calls/s",
            "our_cpu_us": round(cpu[ours] * 1e6, 1),
            "their_cpu_us": round(cpu[theirs] * 1e6, 1),
        }
        for name, ours, theirs in wanted
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="RPC calls per second, ours beside Node's.")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind; the median counts")
    parser.add_argument("--only", metavar="TEXT", default="", help="rows with this text in their name")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    parser.add_argument("--role", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        run_role(*options.role)
        return
    done = run(options.seconds, options.rounds, options.only)
    print(f"ours is {'' if is_compiled('grenache_py.wire') else 'not '}compiled")
    print(f"{'':72}{'ours':>9}{'theirs':>9}{'ratio':>7}{'':9}{'CPU us per call':>16}")
    for row in done:
        print(
            f"{row['name']:72}{row['ours']:>9.0f}{row['theirs']:>9.0f}{row['ratio']:>7.2f}  {row['unit']:7}"
            f"{row['our_cpu_us']:>8.0f}{row['their_cpu_us']:>8.0f}"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(done, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

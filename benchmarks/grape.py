"""Requests per second to the HTTP API of a Grape, ours beside Node's, under ``wrk``.

Two pairs of Grapes, one of ours and one of Node's, each Grape a process with its defaults. One Grape of a
pair is asked; the other is the rest of the DHT. The sides take turns, in each round in another order, so that
a busy moment of the machine hits both; the medians count, for the ratio that of the rounds. Asked are

- look-up hit: one name that is announced,
- look-up miss: a fresh name each time, so that the DHT is asked,
- announce: one of 100 names in turn,

over 1 and over 32 connections. Memory is what the processes of a pair hold after all that.

    apt-get install wrk
    python benchmarks/grape.py --seconds 1 --rounds 9 --json grape.json
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from tests.harness import NODE_MODULES, Process, eventually, free_port, need_node  # noqa: E402

CONNECTIONS = (1, 32)
SIDES = ("theirs", "ours")
WARM_UP_S = 1.0
# Look-up misses differ between runs too, else a later one would ask for what an earlier one left behind.
_LUA = """
local count = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function()
  count = count + 1
  return wrk.format(nil, nil, nil, %s)
end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %%d %%d %%d\\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""
KINDS = {
    "hit": ("lookup", """'{"rid":"r","data":"bench:hit"}'"""),
    "miss": ("lookup", """'{"rid":"r","data":"bench:%s:' .. count .. '"}'"""),
    "announce": ("announce", """'{"rid":"r","data":["bench:' .. count %% 100 .. '",6001]}'"""),
}
NAMES = {"hit": "look-up, hit", "miss": "look-up, miss", "announce": "announce"}


@dataclass
class Pair:
    """Two Grapes that know each other."""

    url: str
    pids: list[int]


def call(url: str, kind: str, data: Any) -> Any:
    body = json.dumps({"rid": "r", "data": data}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{kind}", body), timeout=10) as reply:
        return json.loads(reply.read())


@contextmanager
def pairs(python: str) -> Iterator[dict[str, Pair]]:
    """Both pairs, each ready: an announce at the one Grape is taken by the other."""
    commands = {
        "ours": [python, "-m", "grenache_py.grape"],
        # The Node command line keeps peers for ever unless it is told the default of the library.
        "theirs": [
            need_node(),
            str(NODE_MODULES / "grenache-grape" / "bin" / "grape.js"),
            "--dpa",
            "120000",
        ],
    }
    with ExitStack() as stack:
        found = {}
        for side in SIDES:
            processes = []
            ports = [(free_port(), free_port()) for _ in range(2)]
            for number, (dht, api) in enumerate(ports):
                options = ["--dp", str(dht), "--aph", str(api), "-b", "127.0.0.1"]
                options += ["--bn", f"127.0.0.1:{ports[1 - number][0]}"]
                processes.append(Process(commands[side] + options, cwd=ROOT))
                stack.callback(processes[-1].kill)
            url = f"http://127.0.0.1:{ports[0][1]}"

            def joined(url: str = url) -> bool:
                try:
                    call(url, "lookup", "bench:hit")
                    return bool(call(url, "announce", ["bench:hit", 6001]) == 1)
                except (urllib.error.URLError, ConnectionError):
                    return False

            eventually(joined, timeout_s=60.0, what=f"{side}: the Grapes do not join")
            found[side] = Pair(url, [process.pid for process in processes])
        yield found


def measure(wrk: str, pair: Pair, kind: str, connections: int, seconds: float, fresh: str) -> float:
    """Answers per second. ``fresh`` makes the names of this measurement new."""
    path, body = KINDS[kind]
    if kind == "miss":
        body %= fresh
    elif kind == "announce":
        body %= ()
    if kind == "hit":
        call(pair.url, "announce", ["bench:hit", 6001])
    with TemporaryDirectory() as folder:
        script = Path(folder, "request.lua")
        script.write_text(_LUA % body, "utf-8")
        duration = f"{max(1, round(seconds))}s"
        said = subprocess.run(
            [wrk, "-t1", f"-c{connections}", f"-d{duration}", "-s", str(script), f"{pair.url}/{path}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    result = re.search(r"RESULT (\d+) (\d+) (\d+)", said)
    assert result is not None, said
    requests, microseconds, errors = map(int, result.groups())
    assert not errors, f"{errors} errors: {said}"
    return requests / microseconds * 1e6


def memory_mib(pair: Pair) -> float:
    """What the processes of a pair hold for themselves and their share of the rest (Linux: PSS)."""
    kib = 0
    for pid in pair.pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        assert found is not None
        kib += int(found[1])
    return kib / 1024


def row(name: str, ours: list[float], theirs: list[float], unit: str) -> dict[str, Any]:
    return {
        "name": name,
        "ours": round(statistics.median(ours), 1),
        "theirs": round(statistics.median(theirs), 1),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3),
        "unit": unit,
    }


def run(wrk: str, python: str, seconds: float, rounds: int, kinds: list[str]) -> list[dict[str, Any]]:
    setups = [(kind, connections) for connections in CONNECTIONS for kind in kinds]
    rates: dict[tuple[str, str, int], list[float]] = {}
    with pairs(python) as running:
        for side in SIDES:
            for kind in kinds:
                measure(wrk, running[side], kind, CONNECTIONS[-1], WARM_UP_S, "warm")
        for number in range(rounds):
            for kind, connections in setups:
                for side in SIDES if number % 2 else reversed(SIDES):
                    rate = measure(wrk, running[side], kind, connections, seconds, f"{connections}:{number}")
                    rates.setdefault((side, kind, connections), []).append(rate)
        memory = {side: memory_mib(running[side]) for side in SIDES}
    rows = []
    for kind, connections in setups:
        plural = "" if connections == 1 else "s"
        name = f"grape: {NAMES[kind]}, {connections} connection{plural}"
        rows.append(row(name, rates["ours", kind, connections], rates["theirs", kind, connections], "op/s"))
    rows.append(row("grape: memory of a pair (less is better)", [memory["ours"]], [memory["theirs"]], "MiB"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Requests per second to a Grape, ours beside Node's.")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each kind; the median counts")
    parser.add_argument("--kinds", default=",".join(KINDS), help="what to measure: hit,miss,announce")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs our Grapes")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    wrk = shutil.which("wrk")
    if wrk is None:
        parser.error("wrk is missing; Debian and Ubuntu have it: apt-get install wrk")
    rows = run(wrk, options.python, options.seconds, options.rounds, options.kinds.split(","))
    print(f"{'':55}{'ours':>10}{'theirs':>10}{'ratio':>8}")
    for each in rows:
        print(
            f"{each['name']:55}{each['ours']:>10.0f}{each['theirs']:>10.0f}"
            f"{each['ratio']:>8.2f}  {each['unit']}"
        )
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

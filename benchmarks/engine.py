"""The matching engine against others of npm and PyPI: throughput, single operations, memory, in the same run.

The same operations for every engine, each in a process of its own; they take turns, and the best round of
each counts. Flows: all of the recorded order flow, where it is there, and a synthetic one of 200,000
operations: 35 % cancel a random order, the others are limit orders of both sides at random prices of one
range, so that more than half of them trade. How each engine is used says benchmarks/rivals/contestants.py;
what rests at the end is compared, so that a fast wrong engine would be seen.

Then single operations, on books that hold so many resting orders: an order rests, one is cancelled, one
trades with the best. The times include the clock's own, some 50 ns. Memory is what the process grows by.

The rivals are installed into benchmarks/rivals at the first run. One that can't be is left out, saying so.

    python benchmarks/engine.py --rounds 7 --json engine.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RIVALS = ROOT / "benchmarks" / "rivals"
VENV = RIVALS / ".venv"
VENV_PYTHON = str(VENV / ("Scripts" if os.name == "nt" else "bin") / "python")
REAL_FLOW = ROOT.parent / "shared" / "data" / "btcusd-orders.csv.gz"
sys.path.append(str(ROOT))

OURS = "ours"
NODE = "nodejs-order-book"
PYTHON_RIVALS = ("orderly-chaos", "obook", "lightmatchingengine")
GOAL = 1.5
SYNTHETIC_OPERATIONS = 200_000
CANCEL_SHARE = 0.35
RESTING = (1_000, 100_000, 1_000_000)
SLOW = {"lightmatchingengine": 100_000}
"""Engines that get no larger resting book: they look through all prices, or all orders of a price."""
SAMPLES = 20_000

Operation = tuple[str, str, bool, int, int]


def synthetic_flow(seed: int = 1) -> Iterator[Operation]:
    random = Random(seed)
    live: list[str] = []
    for number in range(SYNTHETIC_OPERATIONS):
        if live and random.random() < CANCEL_SHARE:
            place = random.randrange(len(live))
            live[place], live[-1] = live[-1], live[place]
            yield "cancel", live.pop(), False, 0, 0
        else:
            live.append(str(number))
            yield (
                "new",
                str(number),
                random.random() < 0.5,
                random.randint(9_900, 10_100),
                random.randint(1, 100),
            )


def recorded_flow() -> Iterator[Operation]:
    from orderbook.flow.files import read_flow

    for row in read_flow(REAL_FLOW):
        if row.quantity or row.action == "cancel":
            yield row.action, row.id, row.side == "buy", int(row.price * 10), int(row.quantity * 10**8)


class Contestants:
    """The engines that can be run here, by name, and how."""

    def __init__(self, console: Console):
        self.commands: dict[str, list[str]] = {OURS: [sys.executable, str(RIVALS / "contestants.py"), OURS]}
        if self._install_node(console):
            self.commands[NODE] = ["node", "--expose-gc", str(RIVALS / "contestant.js")]
        if self._install_python(console):
            for name in PYTHON_RIVALS:
                self.commands[name] = [VENV_PYTHON, str(RIVALS / "contestants.py"), name]

    @staticmethod
    def _install_node(console: Console) -> bool:
        if shutil.which("npm") is None:
            console.print(f"npm is missing: {NODE} is left out")
            return False
        if not (RIVALS / "node_modules").is_dir():
            command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
            return _installed(command, NODE, console)
        return True

    @staticmethod
    def _install_python(console: Console) -> bool:
        stamp = VENV / ".installed"
        if stamp.exists():
            return True
        pip = [VENV_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        what = ", ".join(PYTHON_RIVALS)
        if not _installed([sys.executable, "-m", "venv", str(VENV)], what, console):
            return False
        if not _installed([*pip, "-r", "requirements.txt"], what, console):
            return False
        stamp.touch()
        return True

    def run(self, name: str, job: dict[str, Any]) -> Any:
        done = subprocess.run(
            [*self.commands[name], json.dumps(job)], stdout=subprocess.PIPE, check=True, text=True
        )
        return json.loads(done.stdout)


def _installed(command: Sequence[str], what: str, console: Console) -> bool:
    try:
        subprocess.run(command, cwd=RIVALS, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        console.print(f"left out, since they can't be installed: {what} ({error})")
        return False
    return True


def measure_flow(
    contestants: Contestants, title: str, operations: list[Operation], rounds: int, console: Console
) -> list[dict[str, Any]]:
    best: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.json"
        path.write_text(json.dumps(operations))
        for number in range(rounds):
            console.print(f"{title}: round {number + 1} of {rounds}", style="dim")
            for name in contestants.commands:
                result = contestants.run(name, {"flow": str(path)})
                if name not in best or result["rate"] > best[name]["rate"]:
                    best[name] = result
    ours = best[OURS]
    table = Table(title=f"{title}: {len(operations):,} operations, best of {rounds}", title_justify="left")
    for column in ("engine", "op/s", "ours / its", "resting orders", "resting lots"):
        table.add_column(column, justify="left" if column == "engine" else "right", no_wrap=True)
    rows = []
    for name, result in sorted(best.items(), key=lambda item: -item[1]["rate"]):
        ratio = ours["rate"] / result["rate"]
        same = (result["orders"], result["lots"]) == (ours["orders"], ours["lots"])
        table.add_row(
            name,
            f"{result['rate']:,.0f}",
            "" if name == OURS else f"{ratio:.2f}",
            f"{result['orders']:,}",
            f"{result['lots']:,}" + ("" if same else " *"),
        )
        if name != OURS:
            rows.append(row(f"{title}, against {name}", ours["rate"], result["rate"], ratio, "op/s"))
    console.print(table)
    if any((result["orders"], result["lots"]) != (ours["orders"], ours["lots"]) for result in best.values()):
        console.print("* another book than ours in the end; why says the engine's class in contestants.py")
    if rows:
        least = min(rows, key=lambda entry: float(entry["ratio"]))
        verdict = "reached" if least["ratio"] >= GOAL else "missed"
        console.print(f"the goal of {GOAL} times the fastest is {verdict}: {least['ratio']:.2f}\n")
    return rows


def measure_resting(
    contestants: Contestants, orders: int, console: Console
) -> tuple[list[dict[str, Any]], dict[str, tuple[float, float]]]:
    """Returns the rows against the rivals, and p50 and p99 by what only ours can."""
    results = {
        name: contestants.run(name, {"orders": orders, "samples": SAMPLES})
        for name in contestants.commands
        if orders <= SLOW.get(name, orders)
    }
    ours = results[OURS]
    table = Table(title=f"{orders:,} resting orders: p50 / p99 in µs, and memory", title_justify="left")
    kinds = list(ours["kinds"])
    for column in ("engine", *kinds, "bytes per order"):
        table.add_column(column, justify="left" if column == "engine" else "right", no_wrap=True)
    rows = []
    for name, result in results.items():
        cells = [f"{p50:.2f} / {p99:.2f}" for p50, p99 in result["kinds"].values()]
        table.add_row(name, *cells, f"{result['bytes']:,.0f}")
        if name == OURS:
            continue
        for kind in kinds:
            for place, percentile in enumerate(("p50", "p99")):
                mine, theirs = ours["kinds"][kind][place], result["kinds"][kind][place]
                title = f"{kind}, {percentile}, {orders:,} resting orders, against {name}"
                rows.append(row(title, mine, theirs, theirs / mine, "µs"))
        title = f"memory per order, {orders:,} resting orders, against {name}"
        ratio = result["bytes"] / ours["bytes"] if ours["bytes"] > 0 else 0.0
        rows.append(row(title, ours["bytes"], result["bytes"], ratio, "bytes"))
    console.print(table)
    return rows, ours["more"]


def show_more(more: dict[int, dict[str, tuple[float, float]]], console: Console) -> None:
    table = Table(title="What only ours can: p50 / p99 in µs, by resting orders", title_justify="left")
    table.add_column("operation")
    for orders in more:
        table.add_column(f"{orders:,}", justify="right", no_wrap=True)
    for kind in next(iter(more.values())):
        cells = (times[kind] for times in more.values())
        table.add_row(kind, *(f"{p50:.2f} / {p99:.2f}" for p50, p99 in cells))
    console.print(table)


def row(name: str, ours: float, theirs: float, ratio: float, unit: str) -> dict[str, Any]:
    """A ratio above 1 is in our favour, whatever the unit."""
    return {
        "name": name,
        "ours": round(ours, 3),
        "theirs": round(theirs, 3),
        "ratio": round(ratio, 3),
        "unit": unit,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="of each flow; the best one counts")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write rows {name, ours, theirs, ratio, unit}"
    )
    parser.add_argument("--flows-only", action="store_true", help="leave the resting books out")
    options = parser.parse_args()

    console = Console(highlight=False, width=110)
    contestants = Contestants(console)
    versions = [f"Python {platform.python_version()}"]
    if NODE in contestants.commands:
        node = subprocess.run(["node", "--version"], stdout=subprocess.PIPE, check=True, text=True)
        versions.append(f"Node {node.stdout.strip()}")
    console.print(f"{', '.join(versions)}, {os.cpu_count()} cores\n")
    rows: list[dict[str, Any]] = []
    if REAL_FLOW.exists():
        operations = list(recorded_flow())
        rows += measure_flow(contestants, "recorded flow", operations, options.rounds, console)
    else:
        console.print("the recorded flow is left out: there is no ../shared/data/btcusd-orders.csv.gz\n")
    rows += measure_flow(contestants, "synthetic flow", list(synthetic_flow()), options.rounds, console)
    if not options.flows_only:
        more = {}
        for orders in RESTING:
            against, more[orders] = measure_resting(contestants, orders, console)
            rows += against
        show_more(more, console)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The demo as its users start it: processes, two Grapes, three peers, a flow, and the books compared."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from orderbook.client import PeerFailedError
from orderbook.demo.demo import Demo, Display, run_demo
from orderbook.demo.network import LocalNetwork, NetworkError
from orderbook.flow.replay import replay
from orderbook.flow.synthetic import synthesize
from tests.harness import Process
from tests.node_grapes import NodeGrape

REAL_FLOW = Path(__file__).parents[3] / "shared" / "data" / "btcusd-orders.csv.gz"

Start = Callable[..., Process]


@pytest.fixture
def demo() -> Iterator[Start]:
    """Start ``orderbook demo`` with further arguments; it ends with the test."""
    processes: list[Process] = []

    def start(*arguments: str) -> Process:
        processes.append(Process([sys.executable, "-m", "orderbook", "demo", *arguments]))
        return processes[-1]

    yield start
    for process in processes:
        process.stop()


def test_the_demo_ends_with_books_that_agree(demo: Start) -> None:
    process = demo("--rows", "600", "--seed", "3", "--json")
    assert process.wait(60) == 0, process.lines
    [line] = process.lines
    result = json.loads(line)
    assert result["ok"] is True
    assert result["replay"]["rows"] == 600
    assert result["replay"]["accepted"] == result["replay"]["submitted"] > 300
    report = result["reconciliation"]
    assert report["peers"] == 3
    assert report["orders"] == result["replay"]["accepted"]
    assert report["cross_peer_trades"] > 5
    assert report["local_trades"] > 5
    assert report["findings"] == []
    assert report["unchecked"] == 0
    unchecked = [rule for rule, times in report["checked"].items() if not times]
    assert unchecked == ["pairs"], "a flow has no pairs of orders; no other rule went unchecked"


def test_the_demo_on_node_grapes_for_people(demo: Start, node_grapes: tuple[NodeGrape, NodeGrape]) -> None:
    url = node_grapes[1].url
    process = demo("--rows", "150", "--peers", "2", "--grape", url)
    assert process.wait(60) == 0, process.lines
    said = "\n".join(process.lines)
    assert f"starting the Grape at {url} and the peers alice, bob" in said
    assert re.search(r"^150 rows in .* orders accepted", said, re.MULTILINE)
    assert "All books agree: 2 peers" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_and_leaves_nothing_behind(demo: Start, number: int) -> None:
    process = demo("--rows", "1000000")
    while "replaying" not in (line := process.next_line()):
        pass
    apis = re.findall(r"http://[0-9.:]+", line)
    assert len(apis) == 3
    for api in apis:
        with urlopen(f"{api}/healthz", timeout=10) as answer:
            assert answer.status == 200
    os.kill(process.pid, number)
    assert process.wait(20) == 1
    assert "Traceback" not in "\n".join(process.lines)
    for api in apis:
        with pytest.raises(OSError, match="refused"):
            urlopen(f"{api}/healthz", timeout=10)


async def test_a_peer_that_dies_is_named() -> None:
    async with LocalNetwork(["alice", "bob"], "BTC-USD") as network:
        rows = synthesize(100_000, 1)

        def until_it_dies() -> Iterator[object]:
            for count, row in enumerate(rows):
                if count == 200:
                    network.peers[1].kill()
                yield row

        with pytest.raises(PeerFailedError) as caught:
            await replay(until_it_dies(), network.clients, "BTC-USD", window=8)  # type: ignore[arg-type]
        assert caught.value.api == network.peers[1].api
        assert await network.explain(caught.value) == "peer bob ended with status -9"


async def test_a_peer_that_cannot_start_says_why() -> None:
    demo = Demo([], "BTC-USD", peers=2, grape=None, window=4, arguments=["--tick", "none"])
    with pytest.raises(NetworkError, match=r"(?s)peer (alice|bob) ended with status 2.*--tick") as caught:
        await run_demo(demo, Display())
    assert "its log ends with" in str(caught.value)


if REAL_FLOW.exists():

    def test_the_demo_replays_recorded_flow(demo: Start) -> None:
        process = demo("--flow", str(REAL_FLOW), "--rows", "2000", "--json")
        assert process.wait(90) == 0, process.lines
        result = json.loads(process.lines[-1])
        assert result["ok"] is True
        assert result["replay"]["accepted"] == result["replay"]["submitted"] == 2000

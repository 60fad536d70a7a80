"""``orderbook journal`` with the journal of a real peer: killed, looked at, compacted, started again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from grenache_py import Grape
from tests.harness import Process

ORDERBOOK = (sys.executable, "-m", "orderbook")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], tuple[Process, str]]]:
    """Start a peer whose journal is in ``tmp_path``; returns it and its client API."""
    started: list[Process] = []
    with Grape(host="127.0.0.1") as grape:
        options = ["--name", "alice", "--grape", grape.url, "--host", "127.0.0.1", "--api", "127.0.0.1:0"]
        options += ["--tick", "0.5", "--journal", str(tmp_path), "--ready-json"]

        def start() -> tuple[Process, str]:
            process = Process([*ORDERBOOK, "peer", *options])
            started.append(process)
            return process, process.next_json()["ready"]["api"]

        yield start
        for process in started:
            process.stop()


def journal(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ORDERBOOK, "journal", *arguments], capture_output=True, text=True, timeout=60)


def submit(api: str, side: str, quantity: str, owner: str) -> Any:
    order = {"market": "BTC-USD", "side": side, "price": "100", "quantity": quantity, "owner": owner}
    return requests.post(f"{api}/orders", json=order, timeout=10).json()["order"]


def test_the_journal_of_a_killed_peer(start: Callable[[], tuple[Process, str]], tmp_path: Path) -> None:
    process, api = start()
    resting = submit(api, "sell", "0.5", "ann")
    submit(api, "buy", "0.2", "bea")
    path = str(tmp_path / "BTC-USD.journal")

    in_use = journal("verify", path)
    assert in_use.returncode == 1
    assert "in use by another process: stop it first" in in_use.stderr

    copy = str(shutil.copy(path, tmp_path / "copy"))
    alone = journal("verify", copy)
    assert alone.returncode == 1
    assert "parted from its redo log" in alone.stderr

    process.kill()
    verified = journal("verify", path)
    assert verified.returncode == 0
    assert "alice's journal of BTC-USD is sound" in verified.stdout
    assert "3 events, 1 trades, 2 orders (1 live)" in verified.stdout

    shown = journal("show", path, "--order", resting["id"]).stdout.splitlines()
    assert "sell 0.5 at 100.0 for ann" in shown[2]
    assert "0.2 at 100.0: maker alice" in shown[3]
    [_, _, trade] = [json.loads(line) for line in journal("export", path).stdout.splitlines()]
    assert (trade["type"], trade["maker_order_id"], trade["price"]) == ("executed", resting["id"], "100.0")

    assert "3 events became a snapshot" in journal("compact", path).stdout
    process, api = start()
    order = requests.get(f"{api}/orders/{resting['id']}", timeout=10).json()["order"]
    assert (order["open"], order["filled"]) == ("0.3", "0.2")
    assert process.stop() == 0
    assert "0 events after a snapshot of the first 3" in journal("verify", path).stdout

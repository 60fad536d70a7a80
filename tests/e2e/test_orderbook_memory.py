"""Peers that journal keep no more Python objects after many orders than after some."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grenache_py import Grape
from tests.harness import ROOT, Process

WARM = 1_000
"""Orders after which all that is bounded has reached its bound."""
ORDERS = 2_000
BLOCKS_AN_ORDER = 0.5
"""One object that stays of every other order is seen; from moment to moment it wavers by some hundreds."""


class Peer(Process):
    def __init__(self, role: str, grape: str, journals: Path):
        conf = {"role": role, "grape": grape, "journals": str(journals)}
        super().__init__([sys.executable, "-m", "tests.e2e.steady_peer", json.dumps(conf)], cwd=ROOT)

    def blocks(self, orders: int = 0) -> int:
        """How much memory its objects take after placing so many more."""
        self.send_json(orders)
        blocks: int = self.next_json(60.0)["blocks"]
        return blocks


def test_no_objects_stay_of_orders_that_are_closed_and_journaled(tmp_path: Path) -> None:
    with Grape(dht_port=0, api_port=0, host="127.0.0.1") as grape:
        peers = [Peer(role, grape.url, tmp_path / role) for role in ("taker", "maker")]
        try:
            for peer in peers:
                peer.next_json()
            taker, maker = peers
            before = taker.blocks(WARM), maker.blocks()
            after = taker.blocks(ORDERS), maker.blocks()
        finally:
            for peer in peers:
                peer.stop()
    for few, many in zip(before, after, strict=True):
        assert many - few < BLOCKS_AN_ORDER * ORDERS

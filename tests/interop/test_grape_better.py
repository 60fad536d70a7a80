"""Where a Node Grape is weak and ours is not: the same is done to both, side by side."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest
from bencode2 import bencode

from grenache_py.grape import Grape
from tests.harness import eventually
from tests.interop.test_grape_mixed import KILLERS, AnyGrape, call, lookup
from tests.node_grapes import NodeGrape

Start = Callable[..., NodeGrape]


def send(datagram: bytes, grape: AnyGrape) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(datagram, ("127.0.0.1", grape.dht_port))


@pytest.mark.parametrize("killer", [KILLERS[0], KILLERS[3], KILLERS[5]], ids=["no q", "target", "token"])
def test_one_datagram_ends_a_node_grape(killer: dict[bytes, object], node_grape: Start) -> None:
    node = node_grape()
    with Grape(host="127.0.0.1") as ours:
        for grape in (node, ours):
            send(bencode(killer), grape)
        assert node.process.wait(10.0) != 0
        assert lookup(ours, "svc") == []


def test_one_http_call_ends_a_node_grape(node_grape: Start) -> None:
    node = node_grape()
    with Grape(host="127.0.0.1") as ours:
        with pytest.raises(OSError, match=r".*"):
            call(node, "announce", ["svc", 70000])
        assert node.process.wait(10.0) != 0
        assert call(ours, "announce", ["svc", 70000]) == (200, "ERR_GRAPE_SERVICE_PORT")
        assert lookup(ours, "svc") == []


def test_an_announce_made_alone(node_grape: Start) -> None:
    node = node_grape()
    with Grape(host="127.0.0.1") as ours:
        assert call(node, "announce", ["svc", 6001]) == (200, "No nodes to query")
        assert call(ours, "announce", ["svc", 6001]) == (200, 1)
        other_of_node = node_grape(bootstrap=[node.dht_address])
        other_of_ours = node_grape(bootstrap=[ours.dht_address])
        # Ours has told the newcomer. Node keeps its empty table, so that even a second try fails.
        eventually(lambda: lookup(other_of_ours, "svc") == ["127.0.0.1:6001"])
        assert call(node, "announce", ["svc", 6001]) == (200, "No nodes to query")
        assert call(ours, "announce", ["svc", 6001]) == (200, 1)
        assert lookup(other_of_node, "nobody") == []


def test_a_look_up_past_a_dead_contact(node_grape: Start) -> None:
    node = node_grape()
    with Grape(host="127.0.0.1", bootstrap=[node.dht_address]) as ours:
        dead = node_grape(bootstrap=[node.dht_address, ours.dht_address])
        call(ours, "announce", ["svc", 6001])
        eventually(lambda: len(ours._grape.node.routing) == 2)
        dead.process.kill()
        took = {}
        for name, grape in (("node", node), ("ours", ours)):
            began = time.monotonic()
            assert lookup(grape, "svc") == ["127.0.0.1:6001"]
            took[name] = time.monotonic() - began
        assert took["node"] >= 1.9
        assert took["ours"] < took["node"] - 0.5

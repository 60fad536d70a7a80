"""Python and Node Grapes in one network: whatever goes in at one is found at every other."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bencode2 import bdecode, bencode
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grenache_py.dht.items import Item
from grenache_py.grape import Grape
from tests.harness import eventually
from tests.node_grapes import NodeGrape

AnyGrape = Grape | NodeGrape


def call(grape: AnyGrape, kind: str, data: Any) -> tuple[int, Any]:
    """Status and the JSON that came, ``None`` for an empty body."""
    body = json.dumps({"rid": "r", "data": data}).encode()
    request = urllib.request.Request(f"{grape.url}/{kind}", body)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            status, said = reply.status, reply.read()
    except urllib.error.HTTPError as error:
        status, said = error.code, error.read()
    return status, json.loads(said) if said else None


def lookup(grape: AnyGrape, name: str) -> Any:
    status, found = call(grape, "lookup", name)
    assert status == 200
    return sorted(found)


@pytest.fixture
def python_grape() -> Iterator[Callable[..., Grape]]:
    """Start a Python Grape; all end with the test."""
    started: list[Grape] = []

    def start(bootstrap: list[str] | None = None, **options: Any) -> Grape:
        grape = Grape(host="127.0.0.1", bootstrap=bootstrap or [], **options)
        started.append(grape)
        grape.start()
        return grape

    yield start
    for grape in reversed(started):
        grape.stop()


Start = Callable[..., NodeGrape]
StartPython = Callable[..., Grape]


def check_all_ways(grapes: list[AnyGrape]) -> None:
    """Announce and put at each, look up and get at each."""
    for number, grape in enumerate(grapes):
        name = f"rest:util:{number}"
        status, count = call(grape, "announce", [name, 6000 + number])
        assert (status, type(count)) == (200, int), count
        status, key = call(grape, "put", {"v": f"value {number}"})
        assert (status, len(key)) == (200, 40)
        for other in grapes:
            assert lookup(other, name) == [f"127.0.0.1:{6000 + number}"]
            status, item = call(other, "get", key)
            assert item["v"] == f"value {number}"
    for grape in grapes:
        assert lookup(grape, "nobody") == []
        assert call(grape, "get", "1" * 40) == (200, None)


def test_ours_joins_through_node(node_grape: Start, python_grape: StartPython) -> None:
    node = node_grape()
    check_all_ways([node, python_grape([node.dht_address])])


def test_node_joins_through_ours(node_grape: Start, python_grape: StartPython) -> None:
    ours = python_grape()
    check_all_ways([ours, node_grape(bootstrap=[ours.dht_address])])


def test_four_of_both(node_grape: Start, python_grape: StartPython) -> None:
    first_node = node_grape()
    first = python_grape([first_node.dht_address])
    second_node = node_grape(bootstrap=[first.dht_address])
    second = python_grape([second_node.dht_address, first.dht_address])
    check_all_ways([first_node, first, second_node, second])
    assert call(second, "announce", ["svc", 7000]) == (200, 3)
    assert call(second_node, "announce", ["svc2", 7000]) == (200, 3)


def test_several_workers_under_one_name(node_grape: Start, python_grape: StartPython) -> None:
    node = node_grape()
    ours = python_grape([node.dht_address])
    for port in range(6001, 6011):
        call(node if port % 2 else ours, "announce", ["svc", port])
    expected = sorted(f"127.0.0.1:{port}" for port in range(6001, 6011))
    assert lookup(node, "svc") == expected
    assert lookup(ours, "svc") == expected


@pytest.mark.parametrize("name", ["x", "sérvice:ü€😀", "n" * 20, "n" * 64, "n" * 200])
def test_names_of_all_kinds(name: str, node_grape: Start, python_grape: StartPython) -> None:
    node = node_grape()
    ours = python_grape([node.dht_address])
    call(node, "announce", [name, 6001])
    call(ours, "announce", [name, 6002])
    for grape in (node, ours):
        assert lookup(grape, name) == ["127.0.0.1:6001", "127.0.0.1:6002"]


@pytest.mark.parametrize(
    "v", ["hello", "", "žluťoučký 😀", 5, True, ["a", 1], {"b": 1, "a": ["x"]}], ids=repr
)
def test_immutable_items_of_all_kinds(v: Any, node_grape: Start, python_grape: StartPython) -> None:
    node = node_grape()
    ours = python_grape([node.dht_address])
    status, key = call(ours, "put", {"v": v})
    assert call(node, "put", {"v": v}) == (status, key) == (200, key)
    texts = {call(grape, "get", {"hash": key, "cache": False})[1]["v"] for grape in (node, ours)}
    assert len(texts) == 1


def signed(key: Ed25519PrivateKey, v: str, seq: int, salt: str | None = None) -> dict[str, Any]:
    """The data of a mutable put."""
    k = key.public_key().public_bytes_raw()
    item = Item(v.encode(), k, b"", seq, salt.encode() if salt else None)
    fields = {"v": v, "k": k.hex(), "sig": key.sign(item.signed_bytes()).hex(), "seq": seq}
    return fields | ({"salt": salt} if salt else {})


def test_mutable_items_with_node_grapes_that_verify(node_grape: Start, python_grape: StartPython) -> None:
    node = node_grape(verify=True)
    ours = python_grape([node.dht_address])
    key = Ed25519PrivateKey.generate()

    def get(grape: AnyGrape, hash: str, salt: str | None = None) -> Any:
        _, item = call(grape, "get", {"hash": hash, "cache": False} | ({"salt": salt} if salt else {}))
        return item and (item["v"], item["seq"])

    status, hash = call(node, "put", signed(key, "one", 1))  # stored at ours
    assert status == 200
    assert get(node, hash) == ("one", 1)
    assert call(ours, "put", signed(key, "two", 2)) == (200, hash)  # stored at both
    assert get(node, hash) == get(ours, hash) == ("two", 2)
    assert call(ours, "put", signed(key, "old", 1)) == (302, "302 sequence number less than current")
    clash = signed(key, "three", 3) | {"cas": 7}
    assert call(ours, "put", clash) == (301, "301 CAS mismatch, re-read and try again")
    assert call(node, "put", signed(key, "old", 1)) == (302, "302 sequence number less than current")
    assert call(node, "put", signed(key, "four", 4) | {"cas": 7})[0] == 301
    assert call(node, "put", signed(key, "four", 4) | {"cas": 1})[0] == 301
    assert call(node, "put", signed(key, "four", 4) | {"cas": 2}) == (200, hash)
    # A Node Grape does not keep what is put at it; ours has read that version, so it is the one to follow.
    assert call(ours, "put", signed(key, "five", 5) | {"cas": 2})[0] == 301
    assert call(ours, "put", signed(key, "five", 5) | {"cas": 4}) == (200, hash)
    assert get(node, hash) == get(ours, hash) == ("five", 5)
    forged = signed(key, "six", 6) | {"v": "forged"}
    assert call(ours, "put", forged) == (200, "All queries failed")
    assert call(node, "put", forged) == (200, "All queries failed")
    status, salted = call(node, "put", signed(key, "salted", 1, "foo"))
    assert get(node, salted, "foo") == ("salted", 1)
    assert get(node, salted, "bar") is None
    assert call(ours, "put", signed(key, "salted", 1, "bar"))[0] == 200


def test_what_was_announced_expires_at_both(node_grape: Start, python_grape: StartPython) -> None:
    node = node_grape(dht_peer_maxAge=900)
    ours = python_grape([node.dht_address], peer_max_age=0.9)
    call(node, "announce", ["svc", 6001])
    call(ours, "announce", ["svc", 6002])
    assert lookup(ours, "svc") == ["127.0.0.1:6001", "127.0.0.1:6002"]
    eventually(lambda: lookup(ours, "svc") == [])
    eventually(lambda: lookup(node, "svc") == [])


def test_what_was_announced_alone_is_found_through_a_node_that_joins(
    node_grape: Start, python_grape: StartPython
) -> None:
    ours = python_grape()
    assert call(ours, "announce", ["svc", 6001]) == (200, 1)
    node = node_grape(bootstrap=[ours.dht_address])
    eventually(lambda: lookup(node, "svc") == ["127.0.0.1:6001"])
    third = node_grape(bootstrap=[node.dht_address])
    eventually(lambda: lookup(third, "svc") == ["127.0.0.1:6001"])


def test_ours_comes_back_on_its_port(node_grape: Start, python_grape: StartPython) -> None:
    node = node_grape()
    ours = python_grape([node.dht_address])
    assert call(node, "announce", ["before", 6001]) == (200, 1)
    ours.stop()
    ours.start()
    # With its old id it is the contact that the Node Grape knows: no restart trap.
    assert call(node, "announce", ["after", 6002]) == (200, 1)
    assert lookup(ours, "after") == ["127.0.0.1:6002"]
    assert call(ours, "announce", ["third", 6003]) == (200, 1)
    assert lookup(node, "third") == ["127.0.0.1:6003"]


def test_node_comes_back_on_its_port_with_another_id(node_grape: Start, python_grape: StartPython) -> None:
    node = node_grape()
    ours = python_grape([node.dht_address])
    assert call(ours, "announce", ["svc", 6001]) == (200, 1)
    node.process.stop()
    again = node_grape(dht_port=node.dht_port, bootstrap=[ours.dht_address])
    # The token is another one now, and so is the id: both are noticed at once.
    assert call(ours, "announce", ["svc", 6001]) == (200, 1)
    assert lookup(again, "svc") == ["127.0.0.1:6001"]
    assert len(list(ours._grape.node.routing)) == 1


def test_a_dead_node_grape_does_not_slow_look_ups(node_grape: Start, python_grape: StartPython) -> None:
    node, dead = node_grape(), node_grape()
    ours = python_grape([node.dht_address, dead.dht_address])
    call(node, "announce", ["svc", 6001])
    dead.process.kill()
    assert lookup(ours, "svc") == ["127.0.0.1:6001"]
    assert lookup(ours, "svc") == ["127.0.0.1:6001"]
    assert lookup(ours, "nobody") == []


KILLERS: list[dict[bytes, Any]] = [
    {b"t": b"aa", b"y": b"q", b"a": {b"id": b"x" * 20}},
    {b"t": b"aa", b"y": b"q", b"q": b"get_peers", b"a": {b"id": b"x" * 20, b"info_hash": 5}},
    {b"t": b"aa", b"y": b"q", b"q": b"get_peers", b"a": {b"id": b"x" * 20, b"info_hash": [b"a"]}},
    {b"t": b"aa", b"y": b"q", b"q": b"find_node", b"a": {b"id": b"x" * 20, b"target": 5}},
    {b"t": b"aa", b"y": b"q", b"q": b"get", b"a": {b"id": b"x" * 20, b"target": 5}},
    {
        b"t": b"aa",
        b"y": b"q",
        b"q": b"announce_peer",
        b"a": {b"id": b"x" * 20, b"info_hash": b"svc", b"port": 1, b"token": 5},
    },
    {
        b"t": b"aa",
        b"y": b"q",
        b"q": b"put",
        b"a": {b"id": b"x" * 20, b"v": b"x", b"sig": b"s" * 64, b"token": b"t"},
    },
]


def test_what_kills_a_node_grape_leaves_ours_alive(node_grape: Start, python_grape: StartPython) -> None:
    node = node_grape()
    ours = python_grape([node.dht_address])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(10)
        for killer in KILLERS:
            stranger.sendto(bencode(killer), ("127.0.0.1", ours.dht_port))
            reply: dict[bytes, Any] = {}
            while reply.get(b"y") != b"e":  # it pings us as well
                reply = bdecode(stranger.recv(2000))
            assert reply[b"e"][0] == 203
        stranger.sendto(b"d-5:e", ("127.0.0.1", ours.dht_port))
    check_all_ways([node, ours])
    assert node.process.returncode is None


def test_values_that_node_could_not_bear_are_not_taken(node_grape: Start, python_grape: StartPython) -> None:
    node = node_grape()
    ours = python_grape([node.dht_address])
    status, text = call(ours, "put", {"v": {"toString": 1}})
    assert (status, "toString" in text) == (200, True)
    for data in (["", 6001], ["svc", 70000], ["svc", -1]):
        status, text = call(ours, "announce", data)
        assert (status, text.startswith("ERR_GRAPE_")) == (200, True)
    assert call(ours, "get", "zzzz") == (200, None)
    check_all_ways([node, ours])
